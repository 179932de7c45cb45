"""Search spaces, one per architecture, and the trials drawn from them.

All trials of a study are drawn before it starts, from (seed, architecture, number) alone: the same seed gives the same
trials whatever the machine, and asking for more trials keeps the first ones. The first trial of an architecture is the
middle of its space, so that even a study of one trial has a sensible result.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from degrain.training.config import Loss
from denoisenets import create_model, full_arguments

Scale: TypeAlias = Literal["small", "paper"]
SCALES: tuple[Scale, ...] = ("small", "paper")


@dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """What a study varies for one architecture."""

    arguments: dict[str, tuple[int, ...]]
    """Arguments of the network and the values each may take."""
    learning_rate: tuple[float, float]
    """Lowest and highest learning rate, drawn evenly on a logarithmic scale."""
    losses: tuple[Loss, ...] = ("mse", "l1", "charbonnier")
    """Losses to choose from."""


_SPACES: dict[Scale, dict[str, SearchSpace]] = {
    # Networks that a CPU trains in minutes.
    "small": {
        "red": SearchSpace(arguments={"width": (16, 24, 32)}, learning_rate=(1e-3, 4e-3)),
        "mwcnn": SearchSpace(arguments={"width": (16, 24, 32), "depth": (1, 2)}, learning_rate=(2e-3, 8e-3)),
        "dncnn": SearchSpace(arguments={"width": (16, 24, 32), "depth": (6, 8, 10)}, learning_rate=(1e-3, 4e-3)),
        "ffdnet": SearchSpace(arguments={"width": (24, 32, 48), "depth": (6, 8, 12)}, learning_rate=(1e-3, 4e-3)),
        "unet": SearchSpace(arguments={"width": (8, 12, 16), "depth": (1, 2)}, learning_rate=(1e-3, 4e-3)),
        "nafnet": SearchSpace(arguments={"width": (8, 12, 16), "depth": (1,)}, learning_rate=(1e-3, 4e-3)),
        "restormer": SearchSpace(arguments={"width": (8, 12, 16), "depth": (1,)}, learning_rate=(1e-3, 4e-3)),
        "pridnet": SearchSpace(
            arguments={"width": (8, 12, 16), "depth": (2, 3), "levels": (2,), "scales": (3,)}, learning_rate=(1e-3, 4e-3)
        ),
    },
    # Networks of the papers' sizes, for GPUs.
    "paper": {
        "red": SearchSpace(arguments={"width": (64, 96, 128)}, learning_rate=(1e-4, 2e-3)),
        "mwcnn": SearchSpace(arguments={"width": (96, 128, 160), "depth": (3, 4)}, learning_rate=(1e-4, 2e-3)),
        "dncnn": SearchSpace(arguments={"width": (64, 96), "depth": (17, 20)}, learning_rate=(1e-4, 2e-3)),
        "ffdnet": SearchSpace(arguments={"width": (64, 96), "depth": (12, 15)}, learning_rate=(1e-4, 2e-3)),
        "unet": SearchSpace(arguments={"width": (32, 48, 64), "depth": (2, 3)}, learning_rate=(1e-4, 2e-3)),
        "nafnet": SearchSpace(arguments={"width": (16, 32, 64), "depth": (1, 2)}, learning_rate=(1e-4, 2e-3)),
        "restormer": SearchSpace(arguments={"width": (24, 32, 48), "depth": (1, 2)}, learning_rate=(1e-4, 1e-3)),
        # The paper's four halvings after four poolings take crops that are multiples of 256.
        "pridnet": SearchSpace(arguments={"width": (32, 48), "depth": (3, 4)}, learning_rate=(5e-5, 1e-3)),
    },
}


def search_space(model: str, scale: Scale) -> SearchSpace:
    """The space of an architecture. Raises ValueError for an unknown name."""
    full_arguments(model, {})
    return next(space for family, space in _SPACES[scale].items() if model.startswith(family))


@dataclass(frozen=True)
class Draw:
    """What one trial differs in."""

    model: str
    arguments: dict[str, int]
    learning_rate: float
    loss: Loss

    @property
    def parameters(self) -> int:
        """Number of trained values of the network."""
        return sum(p.numel() for p in create_model(self.model, **self.arguments).parameters())

    def to_dict(self) -> dict[str, Any]:
        """The fields of a TrainingConfig that the trial sets."""
        return {
            "model": self.model,
            "arguments": self.arguments,
            "learning_rate": self.learning_rate,
            "loss": self.loss,
        }


def draw_trials(models: Sequence[str], trials: int, scale: Scale, seed: int) -> list[Draw]:
    """`trials` configurations, the architectures taking turns."""
    return [_draw(models[i % len(models)], i // len(models), scale, seed) for i in range(trials)]


def _draw(model: str, number: int, scale: Scale, seed: int) -> Draw:
    space = search_space(model, scale)
    low, high = np.log(space.learning_rate)
    if number == 0:
        middle = {name: values[len(values) // 2] for name, values in space.arguments.items()}
        return Draw(model, middle, _rounded(float(np.exp((low + high) / 2))), space.losses[0])
    random = np.random.default_rng([seed, number, *model.encode()])
    arguments = {name: int(random.choice(values)) for name, values in space.arguments.items()}
    rate = _rounded(float(np.exp(random.uniform(low, high))))
    return Draw(model, arguments, rate, space.losses[int(random.integers(len(space.losses)))])


def _rounded(rate: float) -> float:
    return float(f"{rate:.2e}")
