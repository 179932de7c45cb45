"""The search: trials on Ray Tune, stopped early by ASHA within each architecture."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
import ray.tune
from ray.tune.experiment import Trial as RayTrial
from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler

from degrain.storage import Location
from degrain.training.config import TrainingConfig
from degrain.training.session import Metrics
from degrain.training.trainer import Splits
from degrain.training.trial import FAILURE, run_trial
from degrain.tuning.space import Draw


@dataclass
class Trial:
    """One configuration of a study, and how far it came."""

    number: int
    draw: Draw
    config: TrainingConfig
    parameters: int
    status: str = "waiting"
    """`waiting`, `running`, then `finished`, `stopped` (early, by ASHA) or `failed`."""
    best: Metrics = field(default_factory=dict)
    """The report with the highest val_psnr."""
    error: str | None = None

    @property
    def name(self) -> str:
        """Name of the trial's run."""
        return f"trial-{self.number:02d}-{self.draw.model}"

    def to_dict(self) -> dict[str, object]:
        """The trial as a summary has it."""
        return {
            "model": self.draw.model,
            "params": self.draw.to_dict(),
            "val_psnr": self.best.get("val_psnr"),
            "val_ssim": self.best.get("val_ssim"),
            "status": self.status,
            "error": self.error,
        }


class Observer:
    """Is told, in the driver, what happens to trials."""

    def started(self, trial: Trial) -> None:
        """The trial has its resources."""

    def reported(self, trial: Trial, metrics: Metrics) -> None:
        """The trial validated."""

    def ended(self, trial: Trial) -> None:
        """The trial will report no more."""


class PerArchitecture(TrialScheduler):  # type: ignore[misc]
    """ASHA (Li et al., 2020, arXiv:1810.05934), with rungs of its own for each architecture.

    One ladder for all would let the architecture that learns fastest at first stop all trials of the others.
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

    def on_trial_add(self, tune_controller: Any, trial: RayTrial) -> None:  # noqa: ANN401, D102
        self._of(trial).on_trial_add(tune_controller, trial)

    def on_trial_error(self, tune_controller: Any, trial: RayTrial) -> None:  # noqa: ANN401, D102
        self._of(trial).on_trial_error(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: RayTrial, result: dict[str, Any]) -> str:  # noqa: ANN401, D102
        return str(self._of(trial).on_trial_result(tune_controller, trial, result))

    def on_trial_complete(self, tune_controller: Any, trial: RayTrial, result: dict[str, Any]) -> None:  # noqa: ANN401, D102
        self._of(trial).on_trial_complete(tune_controller, trial, result)

    def on_trial_remove(self, tune_controller: Any, trial: RayTrial) -> None:  # noqa: ANN401, D102
        self._of(trial).on_trial_remove(tune_controller, trial)

    def choose_trial_to_run(self, tune_controller: Any) -> RayTrial | None:  # noqa: ANN401, D102
        for trial in tune_controller.get_trials():
            if trial.status in (RayTrial.PENDING, RayTrial.PAUSED):
                return trial
        return None

    def debug_string(self) -> str:  # noqa: D102
        return "; ".join(f"{model}: {s.debug_string()}" for model, s in self._schedulers.items())


class _Reporting(ray.tune.Callback):  # type: ignore[misc]
    """Keeps the trials' records up to date and tells the observer."""

    def __init__(self, trials: Sequence[Trial], observer: Observer) -> None:
        self._trials = trials
        self._observer = observer

    def __getstate__(self) -> dict[str, object]:
        """Nothing: Tune writes callbacks into its snapshot of the experiment, and open runs cannot be written."""
        return {}

    def _of(self, trial: RayTrial) -> Trial:
        return self._trials[int(trial.config["trial"]["number"])]

    def on_trial_start(self, iteration: int, trials: list[RayTrial], trial: RayTrial, **_: object) -> None:
        mine = self._of(trial)
        mine.status = "running"
        self._observer.started(mine)

    def on_trial_result(
        self, iteration: int, trials: list[RayTrial], trial: RayTrial, result: dict[str, Any], **_: object
    ) -> None:
        mine = self._of(trial)
        if FAILURE in result:
            mine.error = str(result[FAILURE])
            return
        metrics = {k: float(result[k]) for k in METRICS if k in result}
        if not mine.best or metrics["val_psnr"] > mine.best["val_psnr"]:
            mine.best = metrics
        self._observer.reported(mine, metrics)
        mine.status = "finished" if metrics["step"] >= mine.config.steps else "stopped"

    def on_trial_complete(self, iteration: int, trials: list[RayTrial], trial: RayTrial, **_: object) -> None:
        self._observer.ended(self._of(trial))

    def on_trial_error(self, iteration: int, trials: list[RayTrial], trial: RayTrial, **_: object) -> None:
        mine = self._of(trial)
        mine.status = "failed"
        mine.error = mine.error or f"its process died; see the folder {trial.local_path}"
        self._observer.ended(mine)


METRICS = (
    "step",
    "train_loss",
    "val_psnr",
    "val_ssim",
    "learning_rate",
    "patches_per_second",
    "data_wait_share",
)
"""What the training loop reports."""


def search(
    trials: Sequence[Trial],
    *,
    splits: Splits,
    folder: Location,
    name: str,
    gpus_per_trial: float,
    observer: Observer,
) -> None:
    """Run the trials on Ray Tune, one CPU each, and fill in what became of them."""
    asha = functools.partial(
        AsyncHyperBandScheduler,
        time_attr="step",
        metric="val_psnr",
        mode="max",
        max_t=max(t.config.steps for t in trials),
        grace_period=min(t.config.validate_every for t in trials),
        reduction_factor=2,
    )
    body = ray.tune.with_parameters(run_trial, train_split=splits.train, val_split=splits.val)
    space = [{"number": t.number, "training": t.config.to_dict()} for t in trials]
    tuner = ray.tune.Tuner(
        ray.tune.with_resources(body, {"cpu": 1, "gpu": gpus_per_trial}),
        param_space={"trial": ray.tune.grid_search(space)},
        tune_config=ray.tune.TuneConfig(scheduler=PerArchitecture(asha)),
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
