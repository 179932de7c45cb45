"""The search spaces of all networks, as data.

The first trial of a network has the default of each field: `default`, else the first value of a
`Choice` and the middle of a range. docs/results.md has the measurements behind crop, batch size and
learning rate of `fast`.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from degrain.errors import UserError
from degrain.inference.config import STARTER
from degrain.training.config import TrainingConfig
from degrain.tuning.space import Choice, Domain, LogUniform, SearchSpace
from degrain.tuning.space_changes import SpaceChanges
from denoisenets import full_arguments
from denoisenets.names import MODEL_NAMES
from denoisenets.suggestions import unknown_name

if TYPE_CHECKING:
    from degrain.tuning.config import Scale

_Fields: TypeAlias = Mapping[str, Domain | tuple[Domain, ...]]

STARTER_NETWORK = "fast24"
"""The network of the starter model, which has its default arguments."""
_LOSS = Choice(("psnr", "l1", "charbonnier"))
_SMALL: _Fields = {
    "crop": Choice((64, 96)),
    "batch_size": Choice((4, 8, 16), default=8),
    "loss": _LOSS,
    "balance": Choice((1.0, 0.5)),
    "learning_rate": LogUniform(1e-3, 4e-3),
}
_FAST: _Fields = {**_SMALL, "crop": Choice((64, 96), default=96)}
_PAPER: _Fields = {
    "crop": Choice((64, 96, 128), default=64),
    "batch_size": Choice((8, 16, 32), default=16),
    "loss": _LOSS,
    "balance": Choice((1.0, 0.5)),
    "learning_rate": LogUniform(1e-4, 2e-3),
}
_SPACES: "dict[Scale, dict[str, _Fields]]" = {
    # Networks that train in minutes on a CPU.
    "small": {
        "red": {**_SMALL, "width": Choice((16, 24, 32), default=24)},
        "mwcnn": {
            **_SMALL,
            "width": Choice((16, 24, 32), default=24),
            "depth": Choice((1, 2), default=2),
            "learning_rate": LogUniform(2e-3, 8e-3),
        },
        "dncnn": {
            **_SMALL,
            "width": Choice((16, 24, 32), default=24),
            "depth": Choice((6, 8, 10), default=8),
        },
        "fast24": {
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
        "fast": {
            **_FAST,
            "width": Choice((12, 16, 24), default=16),
            "depth": Choice((1, 2), default=2),
        },
        "ffdnet": {
            **_SMALL,
            "width": Choice((24, 32, 48), default=32),
            "depth": Choice((6, 8, 12), default=8),
        },
        "drunet": {
            **_SMALL,
            "width": Choice((8, 12, 16), default=12),
            "depth": Choice((1, 2), default=2),
        },
        "unet": {
            **_SMALL,
            "width": Choice((8, 12, 16), default=12),
            "depth": Choice((1, 2), default=2),
        },
        "nafnet": {**_SMALL, "width": Choice((8, 12, 16), default=12), "depth": Choice((1,))},
        "restormer": {**_SMALL, "width": Choice((8, 12, 16), default=12), "depth": Choice((1,))},
        "pridnet": {
            **_SMALL,
            "width": Choice((8, 12, 16), default=12),
            "depth": Choice((2, 3), default=3),
            "levels": Choice((2,)),
            "scales": Choice((3,)),
        },
    },
    # Networks of the papers' sizes, for GPUs.
    "paper": {
        "red": {**_PAPER, "width": Choice((64, 96, 128), default=96)},
        "mwcnn": {
            **_PAPER,
            "width": Choice((96, 128, 160), default=128),
            "depth": Choice((3, 4), default=4),
        },
        "dncnn": {
            **_PAPER,
            "width": Choice((64, 96), default=96),
            "depth": Choice((17, 20), default=20),
        },
        "fast": {
            **_PAPER,
            "width": Choice((32, 48, 64), default=48),
            "depth": Choice((2, 3, 4), default=3),
            "learning_rate": LogUniform(2e-4, 2e-3),
        },
        "ffdnet": {
            **_PAPER,
            "width": Choice((64, 96), default=96),
            "depth": Choice((12, 15), default=15),
        },
        "drunet": {
            **_PAPER,
            "width": Choice((32, 48, 64), default=48),
            "depth": Choice((2, 4), default=4),
            "learning_rate": LogUniform(1e-4, 1e-3),
        },
        "unet": {
            **_PAPER,
            "width": Choice((32, 48, 64), default=48),
            "depth": Choice((2, 3), default=3),
        },
        "nafnet": {
            **_PAPER,
            "width": Choice((16, 32, 64), default=32),
            "depth": Choice((1, 2), default=2),
        },
        "restormer": {
            **_PAPER,
            "width": Choice((24, 32, 48), default=32),
            "depth": Choice((1, 2), default=2),
            "learning_rate": LogUniform(1e-4, 1e-3),
        },
        # With the default levels and scales, PRIDNet accepts multiples of 256 pixels only.
        "pridnet": {
            **_PAPER,
            "width": Choice((32, 48), default=48),
            "depth": Choice((3, 4), default=4),
            "crop": Choice((256,)),
            "batch_size": Choice((4, 8)),
            "learning_rate": LogUniform(5e-5, 1e-3),
        },
    },
}


def search_space(model: str, scale: "Scale", changes: SpaceChanges | None = None) -> SearchSpace:
    """The search space of a network, with `changes`.

    Raises ValueError for an unknown name, UserError for changes that the network does not accept.
    """
    if model not in MODEL_NAMES:
        raise ValueError(unknown_name("model", model, MODEL_NAMES))
    found = next(space for family, space in _SPACES[scale].items() if model.startswith(family))
    fields = {n: d if isinstance(d, tuple) else (d,) for n, d in found.items()}
    changed = (changes or SpaceChanges()).of(model, full_arguments(model, {}))
    space = SearchSpace(model, {**fields, **changed})
    _check(space, changed)
    return space


def _check(space: SearchSpace, changed: Mapping[str, tuple[Domain, ...]]) -> None:
    """Raise UserError for a value that no training accepts."""
    for name, domains in changed.items():
        for domain in domains:
            _check_condition(space, name, domain)
            values = domain.values if isinstance(domain, Choice) else (domain.low, domain.high)
            for value in values:
                _check_value(space, name, value)


def _check_condition(space: SearchSpace, name: str, domain: Domain) -> None:
    for key in domain.when:
        if key != "start" or name == "start":
            text = unknown_name("condition", key, ["start"])
            raise UserError(f"spaces: {space.model}.{name}: {text}")


def _check_value(space: SearchSpace, name: str, value: object) -> None:
    if name == "start" and value not in (None, STARTER):
        raise UserError(f"spaces: {space.model}.start: must be {STARTER} or null, got '{value}'")
    if name == "start" and value is not None and space.model != STARTER_NETWORK:
        raise UserError(
            f"spaces: {space.model}.start: the starter is a {STARTER_NETWORK}; only that network "
            "can start from it"
        )
    if name in ("batch_size", "crop", "warmup_steps") and not isinstance(value, int):
        raise UserError(f"spaces: {space.model}.{name}: must be a whole number, got {value!r}")
    own = full_arguments(space.model, {})
    fields: dict[str, Any] = {"arguments": {name: value}} if name in own else {name: value}
    try:
        TrainingConfig(model=space.model, **fields)
    except (UserError, TypeError) as error:
        raise UserError(f"spaces: {space.model}.{name}: {error}") from None
