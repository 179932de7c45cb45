"""The configuration of a study.

Only the standard library is imported here: the command line builds its options from these fields.
"""

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from degrain.errors import UserError
from degrain.fields import check_choices, check_minimum, check_not_negative
from degrain.training.config import Batches, Sampling, TrainingConfig
from degrain.training.distributed.workers import WorkerRange, Workers
from denoisenets.names import MODEL_NAMES
from denoisenets.suggestions import unknown_name

Scale: TypeAlias = Literal["small", "paper"]
_DEFAULT_WORKERS = 2


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """A study: its networks, its budget in steps, and its resources."""

    models: tuple[str, ...] = ("red10", "mwcnn")
    """Networks to tune, separated by commas."""
    trials: int = 6
    """Trials over all networks; at least one each."""
    steps: int = 240
    """Optimizer steps of a trial that ASHA does not stop early."""
    refit_steps: int = 900
    """Optimizer steps of a refit."""
    batch_size: int = 8
    """Patches per step over all workers."""
    crop: int | None = 64
    """Side of the random crop from each patch, pixels. None: the whole patch."""
    sampling: Sampling = "uniform"
    """`uniform` draws each patch once an epoch; `balanced` draws all cameras and ISOs equally
    often."""
    batches: Batches = "auto"
    """Where patches are held: `resident` in memory, `streaming` in windows, `auto` in memory if
    they fit.
    """
    workers: int | None = None
    """Ray Train workers of a refit. None: 2, or 1 if the cluster or the batch is too small, or
    workers share a GPU."""
    gpus: float | None = None
    """GPUs per trial and per worker. None: 1 if the cluster has a GPU, else 0."""
    scale: Scale | None = None
    """Search space: `small` networks for CPUs, or the `paper` sizes. None: `paper` with GPUs, else
    `small`."""
    validation_patches: int = 48
    """Patches that a validation scores."""
    test_photos: int = 40
    """Most whole test photos in the comparison, evenly spaced over the split."""
    seed: int = 0
    """Seed of the search and of all training."""

    def __post_init__(self) -> None:
        if not self.models:
            raise UserError("name at least one model with `models`")
        if len(set(self.models)) != len(self.models):
            raise UserError(
                f"`models` has duplicates: {', '.join(self.models)}; name each model once"
            )
        for model in self.models:
            if model not in MODEL_NAMES:
                raise UserError(unknown_name("model", model, MODEL_NAMES))
        if self.trials < len(self.models):
            raise UserError(
                f"{len(self.models)} models need at least as many trials, got {self.trials}; raise "
                "`trials` or name fewer `models`"
            )
        check_choices(self)
        check_minimum(self, 1, "steps", "refit_steps", "test_photos", "workers")
        check_not_negative(self, "gpus")
        self.training()
        if self.workers is not None:
            self.refit_workers.check_batch(self.batch_size)

    @property
    def refit_workers(self) -> Workers:
        """The workers of a refit. Needs `workers`, which `fit_to` sets."""
        assert self.workers is not None, "call fit_to first"
        count = WorkerRange(self.workers, self.workers)
        return Workers(workers=count, gpus_per_worker=self.gpus or 0)

    def fit_to(self, cpus: float, gpus: float) -> "StudyConfig":
        """Return the study with its None fields set by the cluster's CPUs and GPUs."""
        gpus_each = self.gpus if self.gpus is not None else float(gpus >= 1)
        possible_workers = int(gpus / gpus_each if gpus_each else cpus)
        if gpus_each != int(gpus_each):
            # DDP needs a GPU of its own for each worker.
            possible_workers = 1
        return replace(
            self,
            gpus=gpus_each,
            scale=self.scale or ("paper" if gpus_each else "small"),
            workers=self.workers
            or max(1, min(_DEFAULT_WORKERS, self.batch_size, possible_workers)),
        )

    def training(self, **changes: object) -> TrainingConfig:
        """Return the configuration that trials and refits share, with `changes`."""
        base = TrainingConfig(
            batch_size=self.batch_size,
            crop=self.crop,
            sampling=self.sampling,
            batches=self.batches,
            validation_patches=self.validation_patches,
            seed=self.seed,
        )
        return replace(base, **changes)  # type: ignore[arg-type]
