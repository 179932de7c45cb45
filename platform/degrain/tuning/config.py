"""The configuration of a study.

Only the standard library is imported here: the command line builds its options from these fields.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, Self, TypeAlias, get_args

from degrain.durations import Duration
from degrain.errors import InvalidFieldError, UserError
from degrain.fields import check_choices, check_minimum, check_not_negative, check_positive
from degrain.presets import Scale
from degrain.training.config import Batches, TrainingConfig
from degrain.training.distributed.workers import WorkerRange, Workers
from degrain.tuning.space import SpaceChanges, search_space
from denoisenets.catalog import NETWORKS
from denoisenets.suggestions import unknown_name

Algorithm: TypeAlias = Literal["tpe", "random", "nsga2", "pbt"]
Objective: TypeAlias = Literal["psnr", "ssim", "psnr+speed"]
_BUDGET = Duration(300)
EMBEDDED_MODELS = ("red10", "mwcnn", "pridnet", "fast24")
"""Networks that are tuned on the embedded corpus: those of the article, and `fast24`."""
MODELS_FROM_BUDGET = {
    0.0: ("fast24",),
    3600.0: ("fast24", "nafnet16"),
}
"""Networks that are tuned on other photos, by the least budget in seconds; docs/results.md has the
measurements."""
NO_CHANGES = SpaceChanges()
_SEARCH_SHARE = 0.25
TRIAL_VALIDATIONS = 4
"""Validations of a trial, after each of which it may be stopped."""
_REFIT_VALIDATIONS = 3
_DEFAULT_WORKERS = 2


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """A study: its networks, its budget, and its resources."""

    models: tuple[str, ...] | None = None
    """Networks to tune, separated by commas. None: by the budget; on the embedded corpus
    red10,mwcnn,pridnet,fast24."""
    trials: int = 6
    """Trials over all networks; at least one each."""
    budget: Duration = _BUDGET
    """Time for search and refits, e.g. 90s, 15m, 2h; a quarter of it is for the search. The numbers
    of steps follow from their measured rates."""
    steps: int | None = None
    """Optimizer steps of a trial that ASHA does not stop early. None: by the budget."""
    refit_steps: int | None = None
    """Optimizer steps of a refit. None: by the budget."""
    search: Algorithm = "tpe"
    """How configurations are suggested: `tpe` learns from finished trials, `random` draws them from
    the seed, `nsga2` combines the best; `pbt` draws them, and replaces bad ones while they train
    (population-based training)."""
    warm_start: bool = False
    """Whether to learn from earlier studies on the same patch set, from MLflow: the first trial of
    a network is then the best one so far, and `tpe` and `nsga2` know all trials of this length."""
    start: str | None = None
    """Model to search around: its network is tuned too, with its arguments, first with its weights
    and training. models:/NAME@ALIAS, models:/NAME/VERSION or a folder. None: no model; `retrain`
    then takes the champion."""
    objective: Objective = "psnr"
    """Score of a trial on the val split; `psnr+speed` also seeks fast networks."""
    spaces: SpaceChanges = NO_CHANGES
    """Changes of the search spaces, by network and field: a YAML file or a JSON object."""
    batch_size: int | None = None
    """Patches per step over all workers. None: by the network's search space."""
    crop: int | None = None
    """Side of the random crop from each patch, pixels. None: by the network's search space."""
    balance: float | None = None
    """Between 0, each patch once an epoch, and 1, all corpora equally often, and within a corpus
    all its cameras and ISOs. None: by the network's search space."""
    batches: Batches = "auto"
    """Where patches are held: `resident` in memory, `streaming` in windows, `auto` in memory if
    they fit.
    """
    workers: int | None = None
    """Ray Train workers of a refit. None: 2, or 1 if the cluster or the batch is too small, or
    workers share a GPU."""
    workers_per_trial: int = 1
    """Workers of a trial: one trains in the trial's own process, several by DDP of Ray Train."""
    gpus: float | None = None
    """GPUs per worker of a trial or a refit. None: 1 if the cluster has a GPU, else 0."""
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
        if self.models is not None:
            self._check_models(self.models)
        check_choices(self)
        check_minimum(self, 1, "steps", "refit_steps", "test_photos", "workers")
        check_minimum(self, 1, "trials", "workers_per_trial")
        check_positive(self, "budget")
        check_not_negative(self, "gpus")
        if self.search == "pbt" and self.objective == "psnr+speed":
            raise InvalidFieldError("search", "`pbt` needs an objective of one score")
        if self.search == "pbt" and self.workers_per_trial > 1:
            raise InvalidFieldError("search", "`pbt` needs trials of one worker")
        if self.workers_per_trial > 1 and self.gpus and self.gpus != int(self.gpus):
            raise InvalidFieldError(
                "gpus", f"must be whole where a trial has several workers, got {self.gpus:g}"
            )
        self.training()
        if self.workers is not None and self.batch_size is not None:
            Workers(workers=WorkerRange(self.workers, self.workers)).check_batch(self.batch_size)
        if self.spaces.networks:
            self._check_spaces()

    def _check_models(self, models: Sequence[str]) -> None:
        if not models:
            raise UserError("name at least one model with `models`")
        if len(set(models)) != len(models):
            raise UserError(f"`models` has duplicates: {', '.join(models)}; name each model once")
        for model in models:
            if model not in NETWORKS:
                raise UserError(unknown_name("model", model, NETWORKS))
        if self.trials < len(models):
            raise UserError(
                f"{len(models)} models need at least as many trials, got {self.trials}; raise "
                "`trials` or name fewer `models`"
            )

    def _check_spaces(self) -> None:
        for model in self.spaces.networks:
            for scale in get_args(Scale):
                search_space(model, scale, self.spaces)

    @property
    def tuned(self) -> tuple[str, ...]:
        """The networks to tune, by the budget unless `models` names them; one per trial at most."""
        if self.models is not None:
            return self.models
        longest = max(budget for budget in MODELS_FROM_BUDGET if budget <= self.budget)
        return MODELS_FROM_BUDGET[longest][: self.trials]

    def fit_to(self, cpus: float, gpus: float) -> "FittedStudy":
        """Return the study with its None fields set by the cluster's CPUs and GPUs.

        Raises InvalidFieldError if the cluster is too small for the workers of one trial.
        """
        gpus_each = self.gpus if self.gpus is not None else float(gpus >= 1)
        kind, has, needed = ("GPU", gpus, gpus_each) if gpus_each else ("CPU", cpus, 1)
        needed *= self.workers_per_trial
        if self.workers_per_trial > 1 and needed > has:
            raise InvalidFieldError(
                "workers_per_trial",
                f"{self.workers_per_trial} need {needed:g} {kind}s, but the cluster has {has:g}; "
                "lower it or start more nodes",
            )
        possible_workers = int(gpus / gpus_each if gpus_each else cpus)
        if gpus_each != int(gpus_each):
            # DDP needs a GPU of its own for each worker.
            possible_workers = 1
        most = min(_DEFAULT_WORKERS, self.batch_size or possible_workers, possible_workers)
        settled = {
            "models": self.tuned,
            "gpus": gpus_each,
            "scale": self.scale or ("paper" if gpus_each else "small"),
            "workers": self.workers or max(1, most),
        }
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        return FittedStudy(**{**given, **settled})

    def to_dict(self) -> dict[str, Any]:
        """All fields as values that JSON can represent; the budget in seconds."""
        return {
            **asdict(self),
            "budget": float(self.budget),
            "spaces": dict(self.spaces.networks),
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """Return the study of which `to_dict` returned `content`."""
        read = {
            "models": content["models"] and tuple(content["models"]),
            "budget": Duration(content["budget"]),
            "spaces": SpaceChanges(content["spaces"]),
        }
        return cls(**{**content, **read})

    def trial_length(self, parallel: int) -> dict[str, object]:
        """The fields of a trial's TrainingConfig that set its length; `parallel` run at a time."""
        if self.steps is not None:
            return {"steps": self.steps, "validate_every": -(-self.steps // TRIAL_VALIDATIONS)}
        rounds = -(-self.trials // parallel)
        return {"budget": Duration(_SEARCH_SHARE * self.budget / rounds)}

    def refit_length(self, refits: int) -> dict[str, object]:
        """The fields of the TrainingConfig of each of several refits that set its length."""
        if self.refit_steps is not None:
            every = -(-self.refit_steps // _REFIT_VALIDATIONS)
            return {"steps": self.refit_steps, "budget": None, "validate_every": every}
        each = Duration((1 - _SEARCH_SHARE) * self.budget / refits)
        return {"budget": each, "validate_every": None}

    def training(self, **changes: object) -> TrainingConfig:
        """Return the configuration that trials and refits share, with `changes`."""
        set_here = {"batch_size": self.batch_size, "crop": self.crop, "balance": self.balance}
        base = TrainingConfig(
            batches=self.batches,
            validation_patches=self.validation_patches,
            seed=self.seed,
            **{n: v for n, v in set_here.items() if v is not None},  # type: ignore[arg-type]
        )
        return replace(base, **changes)  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class FittedStudy(StudyConfig):
    """A study whose networks and resources are settled, see `StudyConfig.fit_to`."""

    models: tuple[str, ...]
    workers: int
    gpus: float
    scale: Scale

    @property
    def refit_workers(self) -> Workers:
        """The workers of a refit."""
        count = WorkerRange(self.workers, self.workers)
        return Workers(workers=count, cpus_per_worker=1, gpus_per_worker=self.gpus)

    @property
    def trial_workers(self) -> Workers:
        """The workers of a trial."""
        count = WorkerRange(self.workers_per_trial, self.workers_per_trial)
        return Workers(workers=count, cpus_per_worker=1, gpus_per_worker=self.gpus)

    def workers_for(self, batch_size: int) -> Workers:
        """The workers of a refit; not more than a batch has patches."""
        workers = self.refit_workers
        count = min(batch_size, workers.workers.maximum)
        return replace(workers, workers=WorkerRange(count, count))
