"""The search: trials on Ray Tune, stopped early by ASHA within each architecture."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import ray
import ray.tune
from ray.tune.experiment import Trial as RayTrial
from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler
from torch import Tensor

from degrain.storage.location import Location
from degrain.training.config import TrainingConfig
from degrain.training.distributed.splits import TrainingSplits
from degrain.training.distributed.trial import FAILURE, run_trial
from degrain.training.session import Metrics
from degrain.tuning.config import TRIAL_VALIDATIONS
from degrain.tuning.space import Draw


@dataclass
class Trial:
    """One configuration of a study, and its progress."""

    number: int
    draw: Draw
    config: TrainingConfig
    parameters: int
    status: str = "waiting"
    """`waiting`, `running`, then `finished`, `stopped` (early, by ASHA) or `failed`."""
    best: Metrics = field(default_factory=dict)
    """The reported metrics with the highest val_psnr."""
    error: str | None = None

    @property
    def usable(self) -> bool:
        """Whether the trial can be refitted: it was validated and did not fail."""
        return bool(self.best) and self.status != "failed"

    @property
    def name(self) -> str:
        """Name of the trial's run."""
        return f"trial-{self.number:02d}-{self.draw.model}"

    def to_dict(self) -> dict[str, object]:
        """Return the trial's entry of the summary file."""
        return {
            "model": self.draw.model,
            "params": self.draw.to_dict(),
            "val_psnr": self.best.get("val_psnr"),
            "val_ssim": self.best.get("val_ssim"),
            "status": self.status,
            "error": self.error,
        }


class Observer(Protocol):
    """Callbacks on the trials, in the driver."""

    def started(self, trial: Trial) -> None:
        """Called when the trial starts."""
        ...

    def reported(self, trial: Trial, metrics: Metrics) -> None:
        """Called after each validation."""
        ...

    def ended(self, trial: Trial) -> None:
        """Called when the trial has finished, stopped or failed."""
        ...


class PerArchitecture(TrialScheduler):  # type: ignore[misc]
    """ASHA (Li et al., 2020, arXiv:1810.05934), with separate rungs for each architecture.

    With shared rungs, an architecture that learns fast at first would cause all trials of the
    others to be stopped.
    """

    def __init__(self, make: Callable[[], TrialScheduler]) -> None:
        super().__init__()
        self._make = make
        self._schedulers: dict[str, TrialScheduler] = {}

    def _of(self, trial: RayTrial) -> TrialScheduler:
        model = trial.config["trial"]["training"]["model"]
        if model not in self._schedulers:
            self._schedulers[model] = self._make()
        return self._schedulers[model]

    def on_trial_add(self, tune_controller: Any, trial: RayTrial) -> None:
        self._of(trial).on_trial_add(tune_controller, trial)

    def on_trial_error(self, tune_controller: Any, trial: RayTrial) -> None:
        self._of(trial).on_trial_error(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: RayTrial, result: dict[str, Any]) -> str:
        return str(self._of(trial).on_trial_result(tune_controller, trial, result))

    def on_trial_complete(
        self, tune_controller: Any, trial: RayTrial, result: dict[str, Any]
    ) -> None:
        self._of(trial).on_trial_complete(tune_controller, trial, result)

    def on_trial_remove(self, tune_controller: Any, trial: RayTrial) -> None:
        self._of(trial).on_trial_remove(tune_controller, trial)

    def choose_trial_to_run(self, tune_controller: Any) -> RayTrial | None:
        for trial in tune_controller.get_trials():
            if trial.status in (RayTrial.PENDING, RayTrial.PAUSED):
                return trial
        return None

    def debug_string(self) -> str:
        return "; ".join(f"{model}: {s.debug_string()}" for model, s in self._schedulers.items())


class _Reporting(ray.tune.Callback):  # type: ignore[misc]
    """Updates the trials' records and calls the observer."""

    def __init__(self, trials: Sequence[Trial], observer: Observer) -> None:
        self._trials = trials
        self._observer = observer

    def __getstate__(self) -> dict[str, object]:
        """Return no state: Tune pickles callbacks, and open MLflow runs cannot be pickled."""
        return {}

    def _of(self, trial: RayTrial) -> Trial:
        return self._trials[int(trial.config["trial"]["number"])]

    def on_trial_start(
        self, iteration: int, trials: list[RayTrial], trial: RayTrial, **_: object
    ) -> None:
        record = self._of(trial)
        record.status = "running"
        self._observer.started(record)

    def on_trial_result(
        self,
        iteration: int,
        trials: list[RayTrial],
        trial: RayTrial,
        result: dict[str, Any],
        **_: object,
    ) -> None:
        record = self._of(trial)
        if FAILURE in result:
            record.error = str(result[FAILURE])
            return
        metrics = {k: float(result[k]) for k in METRICS if k in result}
        if not record.best or metrics["val_psnr"] > record.best["val_psnr"]:
            record.best = metrics
        self._observer.reported(record, metrics)
        record.status = "finished" if metrics["progress"] >= 100 else "stopped"

    def on_trial_complete(
        self, iteration: int, trials: list[RayTrial], trial: RayTrial, **_: object
    ) -> None:
        self._observer.ended(self._of(trial))

    def on_trial_error(
        self, iteration: int, trials: list[RayTrial], trial: RayTrial, **_: object
    ) -> None:
        record = self._of(trial)
        record.status = "failed"
        record.error = (
            record.error or f"its process ended unexpectedly; see the logs in {trial.local_path}"
        )
        self._observer.ended(record)


METRICS = (
    "step",
    "progress",
    "train_loss",
    "val_psnr",
    "val_ssim",
    "learning_rate",
    "patches_per_second",
    "data_wait_share",
)
"""Metrics that the training loop reports."""


def _make_asha() -> TrialScheduler:
    return AsyncHyperBandScheduler(
        time_attr="progress",
        metric="val_psnr",
        mode="max",
        max_t=100,
        grace_period=100 / TRIAL_VALIDATIONS,
        reduction_factor=2,
    )


def search(
    trials: Sequence[Trial],
    *,
    splits: TrainingSplits,
    starts: Mapping[str, Mapping[str, Tensor]],
    folder: Location,
    name: str,
    gpus_per_trial: float,
    observer: Observer,
) -> None:
    """Run the trials on Ray Tune, one CPU each, and record their outcomes.

    `starts` has the weights of each model that trials start from. Rungs are percentages of a
    trial's own steps, so that with a budget of time they are at equal cost.
    """
    body = ray.tune.with_parameters(
        run_trial, train_split=splits.train, val_split=splits.val, starts=dict(starts)
    )
    space = [{"number": t.number, "training": t.config.to_dict()} for t in trials]
    tuner = ray.tune.Tuner(
        ray.tune.with_resources(body, {"cpu": 1, "gpu": gpus_per_trial}),
        param_space={"trial": ray.tune.grid_search(space)},
        tune_config=ray.tune.TuneConfig(scheduler=PerArchitecture(_make_asha)),
        run_config=ray.tune.RunConfig(
            name=name,
            storage_path=folder.path,
            storage_filesystem=folder.filesystem,
            callbacks=[_Reporting(trials, observer)],
            verbose=0,
        ),
    )
    folder.make_parent()
    tuner.fit()
