"""Networks of `catalog.NETWORKS` are built and described: arguments, contracts and costs."""

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from types import ModuleType
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from denoisenets.catalog import NETWORKS
from denoisenets.contract import Contract, InputCheck, check_positive
from denoisenets.memory import activation_bytes_per_pixel
from denoisenets.suggestions import unknown_name


@dataclass(frozen=True, kw_only=True)
class Description:
    """Arguments, contract and costs of a network."""

    name: str
    arguments: dict[str, Any]
    parameters: int
    macs_per_pixel: float
    """Multiply-accumulates of the forward pass."""
    bytes_per_pixel: float
    """Peak memory of activations, see `bytes_per_pixel`."""
    contract: Contract


def list_models() -> list[str]:
    """Names of all registered networks, sorted."""
    return list(NETWORKS)


def network_class(name: str) -> Callable[..., nn.Module]:
    """The class of the network `name`. Raises ValueError, with the nearest name, for an unknown
    one.
    """
    found: Callable[..., nn.Module] = getattr(_family(name), NETWORKS[name].network)
    return found


def _family(name: str) -> ModuleType:
    if name not in NETWORKS:
        raise ValueError(unknown_name("model", name, NETWORKS))
    return import_module(f"denoisenets.{NETWORKS[name].family}")


def full_arguments(name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """All arguments of the network `name`: its own defaults, the entry's, then `arguments`.

    Raises ValueError for an unknown name (with the nearest known one), an unknown argument, or a
    value of the wrong type.
    """
    parameters = inspect.signature(network_class(name)).parameters.values()
    own = {parameter.name: parameter.default for parameter in parameters}
    if unknown := sorted(set(arguments) - set(own)):
        raise ValueError(
            f"model '{name}' takes no argument '{unknown[0]}'; it takes {', '.join(sorted(own))}"
        )
    full = {**own, **NETWORKS[name].arguments, **arguments}
    for argument, default in own.items():
        if isinstance(default, bool):
            if not isinstance(full[argument], bool):
                raise ValueError(f"{argument} must be true or false, got {full[argument]!r}")
        else:
            check_positive(**{argument: full[argument]})
    return full


# Each network has arguments of its own.
def create_model(name: str, **arguments: Any) -> nn.Module:  # noqa: ANN401
    """Build the network `name` with `arguments` over its defaults, freshly initialised.

    `InputCheck` validates each input. Raises ValueError as `full_arguments`.
    """
    full = full_arguments(name, arguments)
    network = network_class(name)(**full)
    network.register_forward_pre_hook(InputCheck(name, model_contract(name, **full).size))
    return network


def model_contract(name: str, **arguments: Any) -> Contract:  # noqa: ANN401
    """Accepted sizes and receptive field of the network `name` with these arguments."""
    full = full_arguments(name, arguments)
    contract: Contract = _family(name).contract(**full)
    return contract


def count_parameters(name: str, **arguments: Any) -> int:  # noqa: ANN401
    """Number of parameters of the network `name`, which is built on the meta device.

    That takes a tenth of a second, so equal arguments are counted once. Raises what `create_model`
    raises.
    """
    return _count_parameters(name, json.dumps(arguments, sort_keys=True))


@lru_cache(maxsize=4096)
def _count_parameters(name: str, arguments: str) -> int:
    with torch.device("meta"):
        network = create_model(name, **json.loads(arguments))
    return sum(parameter.numel() for parameter in network.parameters())


def bytes_per_pixel(
    name: str,
    *,
    dtype: torch.dtype = torch.float32,
    **arguments: Any,  # noqa: ANN401
) -> float:
    """Peak memory of the activations of a forward pass of the network `name`, in bytes per pixel of
    the input, in float32 or under autocast to `dtype`, and without gradients.
    """
    return _bytes_per_pixel(name, tuple(sorted(arguments.items())), dtype)


@lru_cache
def _bytes_per_pixel(
    name: str, arguments: tuple[tuple[str, Any], ...], dtype: torch.dtype
) -> float:
    # Under autocast the weights are cast layer by layer, which a small input would not hide.
    least = 128 if dtype == torch.float32 else 512
    side = model_contract(name, **dict(arguments)).size.padded(least)
    return activation_bytes_per_pixel(lambda: create_model(name, **dict(arguments)), side, dtype)


def describe(name: str, **arguments: Any) -> Description:  # noqa: ANN401
    """Count parameters, multiply-accumulates and activations of a network on the meta device, which
    allocates no memory.
    """
    contract = model_contract(name, **arguments)
    with torch.device("meta"):
        network = create_model(name, **arguments).eval()
        side = contract.size.padded(64)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(torch.empty(1, 3, side, side))
    return Description(
        name=name,
        arguments=full_arguments(name, arguments),
        parameters=sum(p.numel() for p in network.parameters()),
        macs_per_pixel=counter.get_total_flops() / 2 / side**2,
        bytes_per_pixel=bytes_per_pixel(name, **arguments),
        contract=contract,
    )
