"""The plan of a new or resumed training run."""

import json
import logging
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from degrain.errors import UserError
from degrain.inference.denoiser import NetworkDenoiser
from degrain.patchsets.patch_set import PatchSet
from degrain.registry.card import ModelCard
from degrain.registry.resolver import Resolver
from degrain.storage.json_file import json_bytes
from degrain.storage.location import Location
from degrain.tracking.training_photos import TrainingPhotos, union_of
from degrain.training.checkpoint_store import CheckpointStore
from degrain.training.config import TrainingConfig
from degrain.training.teacher import Teacher

PLAN_FILE = "run.json"


@dataclass(frozen=True)
class StartingModel:
    """A model whose weights training starts from, or learns from."""

    name: str
    """Of its version: it stays the same when aliases move."""
    denoiser: NetworkDenoiser
    card: ModelCard

    @property
    def weights(self) -> Mapping[str, Tensor]:
        """The network's state dict."""
        return self.denoiser.weights


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """A run: its name, its folder, its patch set and its configuration."""

    name: str
    folder: Location
    data: str
    config: TrainingConfig
    start: StartingModel | None = None
    """None where training starts from random weights or from a checkpoint."""
    teacher: Teacher | None = None
    earlier_photos: TrainingPhotos | None = field(default_factory=TrainingPhotos)
    """The photos that the starting model and the teacher were trained on; None if unknown."""
    run_id: str | None = None
    """Id of the MLflow run to resume."""

    def write(
        self, config: TrainingConfig, patch_set: PatchSet, run_id: str
    ) -> TrainingPhotos | None:
        """Write the file from which the run is resumed; returns all photos that the model will
        have been trained on, or None if some are unknown.

        Raises UserError if the catalog is damaged.
        """
        photos = self.earlier_photos
        content = {
            "data": patch_set.uri,
            "config": config.to_dict(),
            "run_id": run_id,
            "earlier_photos": None if photos is None else photos.to_text(),
        }
        (self.folder / PLAN_FILE).write_bytes(json_bytes(content))
        return union_of([TrainingPhotos.of(patch_set.photos("train")), photos])


def new_plan(out: Location, data: str, config: TrainingConfig, models: Resolver) -> RunPlan:
    """Plan a new run below `out`.

    Raises UserError for an unknown starting model.
    """
    start = None
    if config.start is not None:
        start = load_starting_model(config.start, models)
        config = replace(
            config, model=start.card.model, arguments=start.card.arguments, start=start.name
        )
    # A random suffix, because runs of a sweep start within one second.
    name = time.strftime(f"{config.model}-%Y%m%d-%H%M%S-{secrets.token_hex(2)}")
    teacher, learnt_from, config = _load_teacher(config, models)
    cards = [card for card in (start.card if start else None, learnt_from) if card is not None]
    return RunPlan(
        name=name,
        folder=out / name,
        data=data,
        config=config,
        start=start,
        teacher=teacher,
        earlier_photos=union_of([card.photos for card in cards]),
    )


def resumed_plan(
    out: Location, name: str, data: str, config: TrainingConfig, models: Resolver
) -> RunPlan:
    """Plan to resume the run `name` below `out` on the patch set `data` with `config`."""
    _, _, run_id, earlier_photos = read_plan(out, name)
    folder = out / name
    start = None
    if config.start is not None and not _has_checkpoint(folder):
        start = load_starting_model(config.start, models)
    teacher, _, _ = _load_teacher(config, models)
    return RunPlan(
        name=name,
        folder=folder,
        data=data,
        config=config,
        start=start,
        teacher=teacher,
        earlier_photos=earlier_photos,
        run_id=run_id,
    )


def _has_checkpoint(folder: Location) -> bool:
    """Whether there is a checkpoint to go on from: a full disk may have left an empty folder."""
    warn = logging.getLogger(__name__).warning
    return CheckpointStore(folder / "checkpoints", warn=warn).newest() is not None


def _load_teacher(
    config: TrainingConfig, models: Resolver
) -> tuple[Teacher | None, ModelCard | None, TrainingConfig]:
    """Load the configuration's teacher; also returns its card, and the configuration with the URI
    of its version. Raises UserError if it does not exist.
    """
    if config.teacher is None:
        return None, None, config
    found = load_starting_model(config.teacher, models)
    teacher = Teacher(model=found.card.model, arguments=found.card.arguments, weights=found.weights)
    return teacher, found.card, replace(config, teacher=found.name)


def read_plan(out: Location, name: str) -> tuple[str, TrainingConfig, str, TrainingPhotos | None]:
    """Read patch set, configuration, MLflow run id and earlier photos of the run `name` below
    `out`.

    Raises UserError if the run does not exist or its file is damaged.
    """
    file = out / name / PLAN_FILE
    if "/" in name or not file.exists():
        raise UserError(f"run '{name}' does not exist in '{out}'; check `resume` and `out`")
    try:
        content: dict[str, Any] = json.loads(file.read_bytes())
        photos = content["earlier_photos"]
        earlier = None if photos is None else TrainingPhotos.from_text(photos)
        return content["data"], TrainingConfig(**content["config"]), content["run_id"], earlier
    except UserError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"cannot resume '{name}': '{file}' is damaged ({error}); start a new run"
        ) from None


def load_starting_model(named: str, models: Resolver) -> StartingModel:
    """Load the model that training starts from. Raises UserError if it does not exist."""
    name = models.fixed(named)
    return StartingModel(name, *models.load(name))
