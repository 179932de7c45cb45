"""The registry of networks: which there are, what they take, what they cost.

A network is one file with one `nn.Module` that maps noisy to clean, (B, 3, H, W) float in [0, 1] to the same shape, and
one line in `MODELS`. What sizes it accepts is data here; padding and cropping happen once, outside.
"""

import difflib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from denoisenets.mwcnn import MWCNN
from denoisenets.rednet import REDNet


@dataclass(frozen=True, kw_only=True)
class SizeContract:
    """Which heights and widths a network takes, in pixels."""

    minimum: int = 1
    """Smallest height and width."""
    multiple: int = 1
    """Height and width must be multiples of this."""

    def padded(self, side: int) -> int:
        """The smallest allowed side, in pixels, that is at least `side`."""
        at_least = max(side, self.minimum)
        return -(-at_least // self.multiple) * self.multiple


@dataclass(frozen=True, kw_only=True)
class Entry:
    """How a registered network is built and what it promises."""

    build: Callable[..., nn.Module]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    size: Callable[[Mapping[str, Any]], SizeContract] = lambda _: SizeContract()
    receptive_radius: Callable[[Mapping[str, Any]], int]
    """How far, in pixels, an output pixel can see; tiles need a halo of this."""


def _mwcnn_radius(arguments: Mapping[str, Any]) -> int:
    """Each 3x3 convolution at level k sees 2**k pixels further; each Haar block adds up to 2**k - 1 in all."""
    depth, levels = arguments["depth"], arguments["levels"]
    return int(sum(2 * depth * 2**k for k in range(1, levels + 1)) + 2**levels)


def _rednet_radius(arguments: Mapping[str, Any]) -> int:
    """Each of the 2 * depth convolutions of 3x3 sees one pixel further."""
    return int(2 * arguments["depth"])


MODELS: dict[str, Entry] = {
    "red10": Entry(build=REDNet, defaults={"depth": 5, "skips": False}, receptive_radius=_rednet_radius),
    "red20": Entry(build=REDNet, defaults={"depth": 10}, receptive_radius=_rednet_radius),
    "red30": Entry(build=REDNet, defaults={"depth": 15}, receptive_radius=_rednet_radius),
    "red_article": Entry(build=REDNet, defaults={"depth": 5, "skips": True}, receptive_radius=_rednet_radius),
    "mwcnn": Entry(
        build=MWCNN,
        size=lambda a: SizeContract(minimum=2 ** a["levels"], multiple=2 ** a["levels"]),
        receptive_radius=_mwcnn_radius,
    ),
}


@dataclass(frozen=True, kw_only=True)
class Description:
    """What a network is and costs; `macs_per_pixel` counts multiply-accumulates of the forward pass."""

    name: str
    arguments: dict[str, Any]
    parameters: int
    macs_per_pixel: float
    size: SizeContract
    receptive_radius: int


def list_models() -> list[str]:
    """Names of all registered networks, sorted."""
    return sorted(MODELS)


def check_known(name: str) -> None:
    """Raise ValueError, suggesting the nearest name, unless `name` is registered."""
    if name not in MODELS:
        near = difflib.get_close_matches(name, MODELS, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else "."
        raise ValueError(f"unknown model '{name}'{hint} Known models: {', '.join(list_models())}")


def full_arguments(name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """All arguments of the network `name`: its own defaults, the entry's, then `arguments`.

    Raises ValueError for an unknown name or an argument that the network does not take.
    """
    check_known(name)
    entry = MODELS[name]
    own = {p.name: p.default for p in inspect.signature(entry.build).parameters.values()}
    if unknown := sorted(set(arguments) - set(own)):
        raise ValueError(f"model '{name}' takes no argument '{unknown[0]}'; it takes {', '.join(sorted(own))}")
    return {**own, **entry.defaults, **arguments}


def create_model(name: str, **arguments: Any) -> nn.Module:  # noqa: ANN401 - each network has its own arguments
    """Build the network `name` with `arguments` over its defaults, freshly initialised.

    Raises ValueError for an unknown name (suggesting the nearest), an unknown argument or a bad value.
    """
    full = full_arguments(name, arguments)
    return MODELS[name].build(**full)


def size_contract(name: str, **arguments: Any) -> SizeContract:  # noqa: ANN401
    """The heights and widths that the network `name` takes with these arguments."""
    full = full_arguments(name, arguments)
    return MODELS[name].size(full)


def receptive_radius(name: str, **arguments: Any) -> int:  # noqa: ANN401
    """How far an output pixel of the network `name` can see, in pixels."""
    full = full_arguments(name, arguments)
    return MODELS[name].receptive_radius(full)


def describe(name: str, **arguments: Any) -> Description:  # noqa: ANN401
    """Count parameters and multiply-accumulates of a network by building it without memory."""
    with torch.device("meta"):
        network = create_model(name, **arguments)
        side = size_contract(name, **arguments).padded(64)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(torch.empty(1, 3, side, side))
    return Description(
        name=name,
        arguments=full_arguments(name, arguments),
        parameters=sum(p.numel() for p in network.parameters()),
        macs_per_pixel=counter.get_total_flops() / 2 / side**2,
        size=size_contract(name, **arguments),
        receptive_radius=receptive_radius(name, **arguments),
    )
