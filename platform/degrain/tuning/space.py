"""Search spaces, one per architecture, and the trials drawn from them.

The trials of a study are drawn before it starts and depend on (seed, architecture, number) alone:
they are the same on every machine, and a study with more trials starts with the same ones. The
first trial of an architecture is the middle of its space, a reasonable default.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from degrain.inference.config import STARTER
from degrain.training.config import Loss
from degrain.tuning.config import Scale
from denoisenets import create_model
from denoisenets.names import MODEL_NAMES
from denoisenets.suggestions import unknown_name


@dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """The search space of one architecture."""

    arguments: dict[str, tuple[int, ...]]
    """Arguments of the network and their candidate values."""
    learning_rate: tuple[float, float]
    """Lowest and highest learning rate, drawn log-uniformly."""
    losses: tuple[Loss, ...] = ("psnr", "l1", "charbonnier")
    """Candidate losses."""
    start: str | None = None
    """Model that training starts from. None: random weights."""


_SPACES: dict[Scale, dict[str, SearchSpace]] = {
    # Networks that train in minutes on a CPU.
    "small": {
        "red": SearchSpace(arguments={"width": (16, 24, 32)}, learning_rate=(1e-3, 4e-3)),
        "mwcnn": SearchSpace(
            arguments={"width": (16, 24, 32), "depth": (1, 2)}, learning_rate=(2e-3, 8e-3)
        ),
        "dncnn": SearchSpace(
            arguments={"width": (16, 24, 32), "depth": (6, 8, 10)}, learning_rate=(1e-3, 4e-3)
        ),
        # Of the starter model's size.
        "fast24": SearchSpace(arguments={}, learning_rate=(2e-4, 1e-3), start=STARTER),
        "fast": SearchSpace(
            arguments={"width": (12, 16, 24), "depth": (1, 2)}, learning_rate=(1e-3, 4e-3)
        ),
        "ffdnet": SearchSpace(
            arguments={"width": (24, 32, 48), "depth": (6, 8, 12)}, learning_rate=(1e-3, 4e-3)
        ),
        "drunet": SearchSpace(
            arguments={"width": (8, 12, 16), "depth": (1, 2)}, learning_rate=(1e-3, 4e-3)
        ),
        "unet": SearchSpace(
            arguments={"width": (8, 12, 16), "depth": (1, 2)}, learning_rate=(1e-3, 4e-3)
        ),
        "nafnet": SearchSpace(
            arguments={"width": (8, 12, 16), "depth": (1,)}, learning_rate=(1e-3, 4e-3)
        ),
        "restormer": SearchSpace(
            arguments={"width": (8, 12, 16), "depth": (1,)}, learning_rate=(1e-3, 4e-3)
        ),
        "pridnet": SearchSpace(
            arguments={"width": (8, 12, 16), "depth": (2, 3), "levels": (2,), "scales": (3,)},
            learning_rate=(1e-3, 4e-3),
        ),
    },
    # Networks of the papers' sizes, for GPUs.
    "paper": {
        "red": SearchSpace(arguments={"width": (64, 96, 128)}, learning_rate=(1e-4, 2e-3)),
        "mwcnn": SearchSpace(
            arguments={"width": (96, 128, 160), "depth": (3, 4)}, learning_rate=(1e-4, 2e-3)
        ),
        "dncnn": SearchSpace(
            arguments={"width": (64, 96), "depth": (17, 20)}, learning_rate=(1e-4, 2e-3)
        ),
        "fast": SearchSpace(
            arguments={"width": (32, 48, 64), "depth": (2, 3, 4)}, learning_rate=(2e-4, 2e-3)
        ),
        "ffdnet": SearchSpace(
            arguments={"width": (64, 96), "depth": (12, 15)}, learning_rate=(1e-4, 2e-3)
        ),
        "drunet": SearchSpace(
            arguments={"width": (32, 48, 64), "depth": (2, 4)}, learning_rate=(1e-4, 1e-3)
        ),
        "unet": SearchSpace(
            arguments={"width": (32, 48, 64), "depth": (2, 3)}, learning_rate=(1e-4, 2e-3)
        ),
        "nafnet": SearchSpace(
            arguments={"width": (16, 32, 64), "depth": (1, 2)}, learning_rate=(1e-4, 2e-3)
        ),
        "restormer": SearchSpace(
            arguments={"width": (24, 32, 48), "depth": (1, 2)}, learning_rate=(1e-4, 1e-3)
        ),
        # With the default levels and scales, PRIDNet accepts multiples of 256 pixels only.
        "pridnet": SearchSpace(
            arguments={"width": (32, 48), "depth": (3, 4)}, learning_rate=(5e-5, 1e-3)
        ),
    },
}


def search_space(model: str, scale: Scale) -> SearchSpace:
    """The search space of a network. Raises ValueError for an unknown name."""
    if model not in MODEL_NAMES:
        raise ValueError(unknown_name("model", model, MODEL_NAMES))
    return next(space for family, space in _SPACES[scale].items() if model.startswith(family))


@dataclass(frozen=True)
class Draw:
    """The hyperparameters of one trial."""

    model: str
    arguments: dict[str, int]
    learning_rate: float
    loss: Loss
    start: str | None = None

    @property
    def parameters(self) -> int:
        """Number of trainable parameters of the network."""
        return sum(p.numel() for p in create_model(self.model, **self.arguments).parameters())

    def to_dict(self) -> dict[str, Any]:
        """The fields of a TrainingConfig that the trial sets."""
        return {
            "model": self.model,
            "arguments": self.arguments,
            "learning_rate": self.learning_rate,
            "loss": self.loss,
            "start": self.start,
        }


def draw_trials(models: Sequence[str], trials: int, scale: Scale, seed: int) -> list[Draw]:
    """Draw `trials` configurations, cycling through the architectures."""
    return [_draw(models[i % len(models)], i // len(models), scale, seed) for i in range(trials)]


def _draw(model: str, number: int, scale: Scale, seed: int) -> Draw:
    space = search_space(model, scale)
    low, high = np.log(space.learning_rate)
    if number == 0:
        middle = {name: values[len(values) // 2] for name, values in space.arguments.items()}
        rate = _rounded(float(np.exp((low + high) / 2)))
        return Draw(model, middle, rate, space.losses[0], space.start)
    random = np.random.default_rng([seed, number, *model.encode()])
    arguments = {name: int(random.choice(values)) for name, values in space.arguments.items()}
    rate = _rounded(float(np.exp(random.uniform(low, high))))
    loss = space.losses[int(random.integers(len(space.losses)))]
    return Draw(model, arguments, rate, loss, space.start)


def _rounded(rate: float) -> float:
    return float(f"{rate:.2e}")
