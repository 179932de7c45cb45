"""Narrow versions of all registered networks, and what their tests share."""

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from unit.support import natural_photo

from degrain.imaging.metrics import to_float
from denoisenets import create_model
from denoisenets.catalog import NETWORKS

SMALL: dict[str, dict[str, Any]] = {
    "dncnn": {"width": 8, "depth": 6},
    "drunet": {"width": 4, "depth": 1},
    "fast16": {"width": 4},
    "fast24": {"width": 4, "depth": 1},
    "fast32": {"width": 6, "levels": 2},
    "fast64": {"width": 6, "depth": 1, "levels": 2},
    "ffdnet": {"width": 8, "depth": 5},
    "mwcnn": {"width": 8, "depth": 2},
    "mwcnn_article": {"width": 4, "depth": 1},
    "pridnet": {"width": 4, "depth": 2, "levels": 2, "scales": 3},
    "pridnet_article": {"width": 6, "depth": 2, "levels": 1, "scales": 3},
    "nafnet16": {"width": 4, "depth": 1, "levels": 3},
    "nafnet32": {"width": 6, "depth": 1, "levels": 2},
    "restormer": {"width": 4},
    "unet": {"width": 4, "levels": 3},
}
ONE_PER_CLASS = sorted({entry.family: name for name, entry in reversed(NETWORKS.items())}.values())
"""The first network of each class, for slow tests: the others differ in their arguments alone."""
LARGE_LAST = [
    pytest.param(name, marks=pytest.mark.soak)
    if name in ("mwcnn", "nafnet16", "pridnet", "restormer")
    else name
    for name in ONE_PER_CLASS
]
"""The same for the slowest tests; those that take long, narrow ones too, in `make soak` alone."""
NOISE = 0.15
"""Standard deviation."""


def state_shapes(name: str, **arguments: int) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of a network's state dict."""
    with torch.device("meta"):
        made = create_model(name, **arguments)
    return {key: tuple(value.shape) for key, value in made.state_dict().items()}


def small(name: str) -> dict[str, Any]:
    return SMALL.get(name, {"width": 8})


@cache
def network(name: str) -> nn.Module:
    """A small network with random values also in place of zeros: NAFNet's blocks start as the
    identity.
    """
    torch.manual_seed(1)  # with 0 both units of a squeeze in PRIDNet are dead
    made = create_model(name, **small(name)).eval()
    with torch.no_grad():
        for parameter_name, parameter in made.named_parameters():
            if parameter_name.endswith(("beta", "gamma")):
                parameter.normal_(std=0.3)
            elif parameter_name.endswith("bias"):
                parameter.normal_(std=0.02)
    return made


def photo(height: int, width: int) -> Tensor:
    return to_float(torch.from_numpy(natural_photo(height, width)).permute(2, 0, 1)[None])


def recorded(made: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """The first input of each module of a network, by the module's name."""
    inputs: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda _, arguments: inputs.__setitem__(name, arguments[0])

    hooks = [module.register_forward_pre_hook(keep(name)) for name, module in made.named_modules()]
    with torch.no_grad():
        made(x)
    for hook in hooks:
        hook.remove()
    return inputs


@cache
def trained(name: str) -> nn.Module:
    """A small network after a few steps on noisy crops of a photo: trained weights round better
    than random ones.
    """
    with torch.inference_mode(mode=False), torch.enable_grad():
        torch.manual_seed(0)
        made = create_model(name, **small(name))
        clean = (
            photo(64, 64)
            .unfold(2, 32, 32)
            .unfold(3, 32, 32)
            .permute(0, 2, 3, 1, 4, 5)
            .reshape(4, 3, 32, 32)
        )
        optimizer = torch.optim.Adam(made.parameters(), lr=2e-3)
        for _ in range(12):
            optimizer.zero_grad()
            torch.nn.functional.mse_loss(made(add_noise(clean)), clean).backward()
            optimizer.step()
    return made.eval()


def add_noise(clean: Tensor) -> Tensor:
    return clean + NOISE * torch.randn_like(clean)
