"""Recipes: how each network is trained unless the user says otherwise, as data.

docs/results.md has the measurements behind them. Only the standard library is imported here: the
command line builds its options from these values.
"""

from dataclasses import dataclass, replace
from typing import Any

from degrain.training.config import Loss, TrainingConfig
from denoisenets.names import MODEL_NAMES
from denoisenets.suggestions import unknown_name


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The fields of a TrainingConfig that depend on the network; see there."""

    learning_rate: float = 1e-3
    fine_tuning_rate: float = 5e-4
    """Highest learning rate where training starts from a model."""
    loss: Loss = "psnr"
    batch_size: int = 16
    balance: float = 1.0
    clean_share: float = 0.05

    def fields(self, *, fine_tuning: bool) -> dict[str, Any]:
        """The fields as a TrainingConfig names them."""
        return {
            "learning_rate": self.fine_tuning_rate if fine_tuning else self.learning_rate,
            "loss": self.loss,
            "batch_size": self.batch_size,
            "balance": self.balance,
            "clean_share": self.clean_share,
        }


RECIPES: dict[str, Recipe] = {
    "dncnn": Recipe(),
    "drunet": Recipe(batch_size=8, learning_rate=5e-4),
    # Crops of 96 pixels; see `TrainingConfig.crop_of`.
    "fast": Recipe(batch_size=8, fine_tuning_rate=1e-3),
    "ffdnet": Recipe(learning_rate=7e-4),
    "mwcnn": Recipe(),
    "nafnet": Recipe(),
    # PRIDNet of the paper's size takes multiples of 256 pixels.
    "pridnet": Recipe(learning_rate=5e-4, batch_size=4),
    "red": Recipe(),
    "restormer": Recipe(batch_size=8),
    "unet": Recipe(),
}
"""By the first letters of the network's name."""


def recipe(model: str) -> Recipe:
    """Return the recipe of a network. Raises ValueError for an unknown name."""
    if model not in MODEL_NAMES:
        raise ValueError(unknown_name("model", model, MODEL_NAMES))
    return next(found for family, found in RECIPES.items() if model.startswith(family))


def by_recipe(config: TrainingConfig) -> TrainingConfig:
    """Return the configuration with the fields that its network's recipe sets."""
    return replace(config, **recipe(config.model).fields(fine_tuning=config.start is not None))
