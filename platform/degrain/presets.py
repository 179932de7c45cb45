"""How each family of networks is trained and searched unless the user says otherwise, as data.

The first trial of a network has the default of each field: `default`, else the first value of a
`Choice` and the middle of a range. docs/results.md has the measurements behind the recipes, and
behind crop, batch size and learning rate of `fast`. Only the standard library is imported here: the
command line builds its options from these values.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

from degrain.domains import Choice, Domain, LogUniform
from degrain.inference.config import STARTER
from denoisenets.catalog import NETWORKS
from denoisenets.suggestions import unknown_name

Scale: TypeAlias = Literal["small", "paper"]
Fields: TypeAlias = Mapping[str, Domain | tuple[Domain, ...]]
"""The domains of each field; of several the first one counts whose condition holds."""

STARTER_NETWORK = "fast24"
"""The network of the starter model, which has its default arguments."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The fields of a TrainingConfig that depend on the network; see there."""

    learning_rate: float = 1e-3
    fine_tuning_rate: float = 5e-4
    """Highest learning rate where training starts from a model."""
    loss: str = "psnr"
    batch_size: int = 16
    balance: float = 1.0
    clean_share: float = 0.05
    crop: int = 64
    """Side where none is given, pixels: smaller where patches are, larger where the network takes
    no such size."""

    def fields(self, *, fine_tuning: bool) -> dict[str, Any]:
        """The fields as a TrainingConfig names them, but for the crop, which patches may limit."""
        return {
            "learning_rate": self.fine_tuning_rate if fine_tuning else self.learning_rate,
            "loss": self.loss,
            "batch_size": self.batch_size,
            "balance": self.balance,
            "clean_share": self.clean_share,
        }


_LOSS = Choice(("psnr", "l1", "charbonnier"))
_SMALL: Fields = {
    "crop": Choice((64, 96)),
    "batch_size": Choice((4, 8, 16), default=8),
    "loss": _LOSS,
    "balance": Choice((1.0, 0.5)),
    "learning_rate": LogUniform(1e-3, 4e-3),
}
_FAST: Fields = {**_SMALL, "crop": Choice((64, 96), default=96)}
_PAPER: Fields = {
    "crop": Choice((64, 96, 128), default=64),
    "batch_size": Choice((8, 16, 32), default=16),
    "loss": _LOSS,
    "balance": Choice((1.0, 0.5)),
    "learning_rate": LogUniform(1e-4, 2e-3),
}


@dataclass(frozen=True, kw_only=True)
class Preset:
    """The recipe of a family, and its search spaces by the scale of a study."""

    recipe: Recipe = field(default_factory=Recipe)
    small: Fields = field(default_factory=lambda: _SMALL)
    """Networks that train in minutes on a CPU."""
    paper: Fields = field(default_factory=lambda: _PAPER)
    """Networks of the papers' sizes, for GPUs."""


PRESETS: dict[str, Preset] = {
    "dncnn": Preset(
        small={
            **_SMALL,
            "width": Choice((16, 24, 32), default=24),
            "depth": Choice((6, 8, 10), default=8),
        },
        paper={
            **_PAPER,
            "width": Choice((64, 96), default=96),
            "depth": Choice((17, 20), default=20),
        },
    ),
    "drunet": Preset(
        recipe=Recipe(batch_size=8, learning_rate=5e-4),
        small={
            **_SMALL,
            "width": Choice((8, 12, 16), default=12),
            "depth": Choice((1, 2), default=2),
        },
        paper={
            **_PAPER,
            "width": Choice((32, 48, 64), default=48),
            "depth": Choice((2, 4), default=4),
            "learning_rate": LogUniform(1e-4, 1e-3),
        },
    ),
    "fast": Preset(
        # At equal time crops of 96 were ahead of 64 by 0.1 dB.
        recipe=Recipe(batch_size=8, fine_tuning_rate=1e-3, crop=96),
        small={
            **_FAST,
            "width": Choice((12, 16, 24), default=16),
            "depth": Choice((1, 2), default=2),
        },
        paper={
            **_PAPER,
            "width": Choice((32, 48, 64), default=48),
            "depth": Choice((2, 3, 4), default=3),
            "learning_rate": LogUniform(2e-4, 2e-3),
        },
    ),
    "ffdnet": Preset(
        recipe=Recipe(learning_rate=7e-4),
        small={
            **_SMALL,
            "width": Choice((24, 32, 48), default=32),
            "depth": Choice((6, 8, 12), default=8),
        },
        paper={
            **_PAPER,
            "width": Choice((64, 96), default=96),
            "depth": Choice((12, 15), default=15),
        },
    ),
    "mwcnn": Preset(
        small={
            **_SMALL,
            "width": Choice((16, 24, 32), default=24),
            "depth": Choice((1, 2), default=2),
            "learning_rate": LogUniform(2e-3, 8e-3),
        },
        paper={
            **_PAPER,
            "width": Choice((96, 128, 160), default=128),
            "depth": Choice((3, 4), default=4),
        },
    ),
    "nafnet": Preset(
        small={**_SMALL, "width": Choice((8, 12, 16), default=12), "depth": Choice((1,))},
        paper={
            **_PAPER,
            "width": Choice((16, 32, 64), default=32),
            "depth": Choice((1, 2), default=2),
        },
    ),
    "pridnet": Preset(
        # Of the paper's size, with its levels and scales, it takes multiples of 256 pixels only.
        recipe=Recipe(learning_rate=5e-4, batch_size=4),
        small={
            **_SMALL,
            "width": Choice((8, 12, 16), default=12),
            "depth": Choice((2, 3), default=3),
            "levels": Choice((2,)),
            "scales": Choice((3,)),
        },
        paper={
            **_PAPER,
            "width": Choice((32, 48), default=48),
            "depth": Choice((3, 4), default=4),
            "crop": Choice((256,)),
            "batch_size": Choice((4, 8)),
            "learning_rate": LogUniform(5e-5, 1e-3),
        },
    ),
    "rednet": Preset(
        small={**_SMALL, "width": Choice((16, 24, 32), default=24)},
        paper={**_PAPER, "width": Choice((64, 96, 128), default=96)},
    ),
    "restormer": Preset(
        recipe=Recipe(batch_size=8),
        small={**_SMALL, "width": Choice((8, 12, 16), default=12), "depth": Choice((1,))},
        paper={
            **_PAPER,
            "width": Choice((24, 32, 48), default=32),
            "depth": Choice((1, 2), default=2),
            "learning_rate": LogUniform(1e-4, 1e-3),
        },
    ),
    "unet": Preset(
        small={
            **_SMALL,
            "width": Choice((8, 12, 16), default=12),
            "depth": Choice((1, 2), default=2),
        },
        paper={
            **_PAPER,
            "width": Choice((32, 48, 64), default=48),
            "depth": Choice((2, 3), default=3),
        },
    ),
}
"""By family, or by network where one has its own; a family that is not here has the usual one."""
PRESETS[STARTER_NETWORK] = replace(
    PRESETS["fast"],
    small={
        **_FAST,
        "start": Choice((STARTER, None)),
        # Arguments are searched where training starts from random weights.
        "width": Choice((16, 24, 32), default=24),
        "depth": Choice((1, 2), default=2),
        "learning_rate": (
            LogUniform(2e-4, 2e-3, default=1e-3, when={"start": STARTER}),
            LogUniform(1e-3, 4e-3, when={"start": None}),
        ),
    },
)


def preset(model: str) -> Preset:
    """The preset of a network. Raises ValueError for an unknown name."""
    if model not in NETWORKS:
        raise ValueError(unknown_name("model", model, NETWORKS))
    return PRESETS.get(model) or PRESETS.get(NETWORKS[model].family) or Preset()
