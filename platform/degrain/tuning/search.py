"""The search: trials on Ray Tune, suggested as they start, stopped early within an architecture."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import ray
import ray.tune
from ray.tune.experiment import Trial as RayTrial
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher
from torch import Tensor

from degrain.cluster import files_of_ray
from degrain.storage.location import Location
from degrain.training.distributed.splits import TrainingSplits
from degrain.training.distributed.trial import FAILURE, HALVED, INHERITED, TrialBody, run_trial
from degrain.training.distributed.worker_groups import WorkerGroups
from degrain.training.distributed.workers import Workers
from degrain.tuning.config import Algorithm, Objective, StudyConfig
from degrain.tuning.early_stopping import EarlyStopping
from degrain.tuning.suggest import METRICS, Outcome, Suggester
from degrain.tuning.trial import Observer, Trial


class _Queue(Searcher):  # type: ignore[misc]
    """Gives Ray Tune the next trial when a slot is free."""

    def __init__(self, queue: Iterator[Trial], trials: dict[int, Trial]) -> None:
        super().__init__()
        self._queue = queue
        self._trials = trials

    def __getstate__(self) -> dict[str, object]:
        """Return no state: the study has a file of its own from which it is resumed."""
        return {}

    def suggest(self, trial_id: str) -> Any:
        trial = next(self._queue, None)
        if trial is None:
            return Searcher.FINISHED
        self._trials[trial.number] = trial
        described = {
            "number": trial.number,
            "name": trial.name,
            "halved": trial.halved,
            "inherited": len(trial.inherited),
            "draw": asdict(trial.draw),
            "training": trial.config.to_dict(),
        }
        return {"trial": described}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Do nothing: `_Reporting` has the outcome."""

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: see `__getstate__`."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing: see `__getstate__`."""


_RESTARTS = 3
"""How often a trial whose process or node was lost goes on from its checkpoint."""


class _Reporting(ray.tune.Callback):  # type: ignore[misc]
    """Updates the trials' records, teaches the suggester, and calls the observer."""

    def __init__(
        self,
        trials: Mapping[int, Trial],
        suggester: Suggester,
        objective: Objective,
        observer: Observer,
    ) -> None:
        self._trials = trials
        self._suggester = suggester
        self._objective = objective
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
        elif HALVED in result:
            record.config = replace(record.config, batch_size=int(result[HALVED]))
            record.halved, record.best, record.curve = True, {}, []
        elif INHERITED in result:
            record.inherit(json.loads(result[INHERITED]))
        else:
            self._validated(record, result)

    def _validated(self, record: Trial, result: Mapping[str, Any]) -> None:
        metrics = {k: float(result[k]) for k in TRIAL_METRICS if k in result}
        if record.curve and metrics["progress"] == record.curve[-1][0]:
            # A resumed trial repeats its last report.
            return
        score = METRICS[self._objective][0]
        if not record.best or metrics[score] > record.best[score]:
            record.best = metrics
        record.curve.append((metrics["progress"], metrics[score]))
        self._observer.reported(record, metrics)

    def on_trial_complete(
        self, iteration: int, trials: list[RayTrial], trial: RayTrial, **_: object
    ) -> None:
        record = self._of(trial)
        if record.error is not None:
            record.status = "failed"
        else:
            record.status = "finished" if record.curve[-1][0] >= 100 else "stopped"
        self._end(record)

    def on_trial_error(
        self, iteration: int, trials: list[RayTrial], trial: RayTrial, **_: object
    ) -> None:
        record = self._of(trial)
        record.status = "failed"
        record.error = (
            f"its process ended unexpectedly, {_RESTARTS + 1} times; see the logs in "
            f"{trial.local_path}"
        )
        self._end(record)

    def _end(self, record: Trial) -> None:
        self._suggester.learn(record.number, outcome(record, self._objective))
        self._observer.ended(record)


TRIAL_METRICS = (
    "step",
    "progress",
    "train_loss",
    "val_psnr",
    "val_ssim",
    "learning_rate",
    "patches_per_second",
    "data_wait_share",
    "seconds_per_megapixel",
)
"""Metrics that a trial reports."""


def outcome(trial: Trial, objective: Objective) -> Outcome:
    """What a search learns from an ended trial."""
    if not trial.usable:
        return Outcome(trial.draw, None)
    scores = [trial.best[name] for name in METRICS[objective]]
    return Outcome(trial.draw, scores, trial.stopped_at)


def search(
    queue: Iterator[Trial],
    before: Sequence[Trial],
    *,
    suggester: Suggester,
    algorithm: Algorithm,
    objective: Objective,
    body: TrialBody,
    name: str,
    parallel: int,
    observer: Observer,
) -> list[Trial]:
    """Run the trials of the queue on Ray Tune as slots become free; returns them.

    `before` are trials of an earlier process.
    """
    trials: dict[int, Trial] = {}
    # As a parameter its weights and patches are in Ray's object store once.
    trainable = ray.tune.with_parameters(run_trial, body=body)
    with files_of_ray() as files:
        ray.tune.Tuner(
            ray.tune.with_resources(trainable, _resources(body.workers)),
            tune_config=ray.tune.TuneConfig(
                scheduler=_scheduler(algorithm, objective, before),
                search_alg=_Queue(queue, trials),
                num_samples=-1,
                max_concurrent_trials=parallel,
                # A new process would import PyTorch and Ray for each trial, which takes seconds.
                reuse_actors=True,
            ),
            run_config=ray.tune.RunConfig(
                name=name,
                storage_path=files,
                callbacks=[_Reporting(trials, suggester, objective, observer)],
                failure_config=ray.tune.FailureConfig(max_failures=_RESTARTS),
                verbose=0,
            ),
        ).fit()
    if body.groups is not None:
        # Ray Tune does not wait for the processes of the last trials.
        body.groups.free()
        body.groups.close()
    return sorted(trials.values(), key=lambda trial: trial.number)


def trial_body(
    config: StudyConfig,
    splits: TrainingSplits,
    starts: Mapping[str, Mapping[str, Tensor]],
    folder: Location,
) -> TrialBody:
    """The body of a study's trials, whose checkpoints are below `folder`; `starts` has the weights
    that trials start from.
    """
    return TrialBody(
        splits,
        starts,
        folder / "checkpoints",
        config.trial_workers,
        measures_speed=_speed_counts(config.objective),
        population=METRICS[config.objective][0] if config.search == "pbt" else None,
        groups=WorkerGroups.open() if config.workers_per_trial > 1 else None,
    )


def _scheduler(
    algorithm: Algorithm, objective: Objective, before: Sequence[Trial]
) -> FIFOScheduler:
    """Early stopping, but not where trials replace each other, and not for two objectives: a slow
    but good network and a fast one are not comparable by PSNR.
    """
    if algorithm == "pbt" or _speed_counts(objective):
        return FIFOScheduler()
    return EarlyStopping(METRICS[objective][0], before)


def _resources(workers: Workers) -> dict[str, float]:
    """Resources of a trial's own process.

    Several workers have their own, so that theirs needs none; but Ray Tune refuses none at all.
    """
    if workers.workers.maximum > 1:
        return {"cpu": 0, "memory": 1}
    return {"cpu": workers.resources["CPU"], "gpu": workers.gpus_per_worker}


def _speed_counts(objective: Objective) -> bool:
    return "seconds_per_megapixel" in METRICS[objective]
