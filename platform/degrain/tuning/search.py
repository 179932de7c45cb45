"""The search: which trials a study has, how Ray Tune runs them, and which of them are refitted."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ray
import ray.tune
from ray.tune.experiment import Trial as RayTrial
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher
from torch import Tensor

from degrain.cluster import files_of_ray
from degrain.domains import Choice
from degrain.errors import InvalidFieldError
from degrain.patchsets.manifest import Manifest
from degrain.presets import preset
from degrain.storage.location import Location
from degrain.training.distributed.splits import TrainingSplits
from degrain.training.distributed.worker_groups import WorkerGroups
from degrain.training.distributed.workers import Workers
from degrain.tuning.config import Algorithm, FittedStudy, Objective
from degrain.tuning.sampler import COLD, METRICS, Outcome, Suggester, WarmStart, pareto_front
from degrain.tuning.space import Draw, SearchSpace, search_space
from degrain.tuning.starts import Starts
from degrain.tuning.stopping import EarlyStopping
from degrain.tuning.trial import (
    ENDED,
    Failed,
    Halved,
    Inherited,
    Observer,
    Task,
    Trial,
    message_of,
)
from degrain.tuning.trial_process import TrialBody, run_trial
from denoisenets import count_parameters

_RESTARTS = 3
"""How often a trial whose process or node was lost goes on from its checkpoint."""
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
LARGEST_LOSS_DB = 1.0
"""PSNR that the fastest refitted network may lose to the best one on the val split."""


def spaces_of(
    config: FittedStudy, manifest: Manifest, starts: Starts | None = None
) -> list[SearchSpace]:
    """The search spaces of a study on a patch set.

    Raises InvalidFieldError if a value that the user chose does not suit the patches.
    """
    side = manifest.geometry.patch_size
    pinned = {"batch_size": config.batch_size, "crop": config.crop, "balance": config.balance}
    spaces: list[SearchSpace] = []
    for model in config.tuned:
        space = search_space(model, config.scale, config.spaces)
        if starts is not None:
            space = starts.surround(space)
        fitted = space.fitting(side, manifest.patches("train"))
        for name in config.spaces.networks.get(model, {}):
            if name in space.fields and name not in fitted.fields:
                raise InvalidFieldError(
                    "spaces", f"have no {name} for {model} that suits the patches ({side} pixels)"
                )
        spaces.append(fitted.fixing(pinned))
        _check_crops(config, spaces[-1], side)
    return spaces


def _check_crops(config: FittedStudy, space: SearchSpace, side: int) -> None:
    draw = space.draw(lambda _, domain: domain.middle)
    crops: list[Any] = [
        v for d in space.fields.get("crop", ()) if isinstance(d, Choice) for v in d.values
    ]
    for crop in crops or [config.crop]:
        replace(config.training(**draw.to_dict()), crop=crop).crop_of(side)


def trial_length(
    config: FittedStudy, parallel: int, before: Sequence[Trial]
) -> Mapping[str, object]:
    """The fields that set the length of each trial; `parallel` run at a time.

    Trials of an earlier process keep theirs, and new ones get it, whatever the cluster is now: of
    unequal length they could not be compared.
    """
    if before and config.steps is None:
        return {"budget": before[0].config.budget}
    return config.trial_length(parallel)


def make_trial(config: FittedStudy, number: int, draw: Draw, length: Mapping[str, object]) -> Trial:
    """The trial of a configuration, with the fields that set its length."""
    settings = {"clean_share": preset(draw.model).recipe.clean_share, **draw.to_dict()}
    training = config.training(**length, **settings)
    return Trial(number, draw, training, count_parameters(draw.model, **draw.arguments))


def parallel_trials(config: FittedStudy) -> int:
    """Number of trials that the cluster runs at a time. Needs a running Ray."""
    import ray

    total = ray.cluster_resources()
    slots = total.get("GPU", 0) / config.gpus if config.gpus else total.get("CPU", 1)
    return max(int(slots / config.workers_per_trial), 1)


@dataclass
class TrialPlan:
    """The trials of a study, those of an interrupted process included."""

    config: FittedStudy
    spaces: Sequence[SearchSpace]
    length: Mapping[str, object]
    """See `trial_length`."""
    before: Sequence[Trial] = ()
    """Trials of an earlier process, ended or not."""
    warm_start: WarmStart = COLD

    def __post_init__(self) -> None:
        self.suggester = Suggester(
            self.spaces,
            algorithm=self.config.search,
            objective=self.config.objective,
            seed=self.config.seed,
            known=len(self.before),
            first=self.warm_start.first,
        )
        for known in self.warm_start.outcomes:
            self.suggester.learn(None, known)
        for trial in self.ended:
            self.suggester.learn(trial.number, outcome(trial, self.config.objective))

    @property
    def ended(self) -> list[Trial]:
        """Trials that have nothing left to do."""
        return [trial for trial in self.before if trial.status in ENDED]

    def queue(self) -> Iterator[Trial]:
        """Return the trials that were interrupted, then new ones, each suggested when it is
        taken.
        """
        yield from (trial for trial in self.before if trial.status not in ENDED)
        known = {trial.number for trial in self.before}
        for number in range(self.config.trials):
            if number not in known:
                draw = self.suggester.suggest(number)
                yield make_trial(self.config, number, draw, self.length)


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
        return Task.for_trial(trial).arguments()

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Do nothing: `_Reporting` has the outcome."""

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: see `__getstate__`."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing: see `__getstate__`."""


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
        return self._trials[Task.of(trial.config).number]

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
        match message_of(result):
            case Failed(error):
                record.error = error
            case Halved(batch_size):
                record.config = replace(record.config, batch_size=batch_size)
                record.halved, record.best, record.curve = True, {}, []
            case Inherited() as message:
                record.inherit(message)
            case None:
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
    config: FittedStudy,
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


def chosen_trials(
    trials: Sequence[Trial], config: FittedStudy, log: Callable[[str], None]
) -> dict[str, Trial]:
    """Return the trials to refit by name: the best of each network, by val PSNR or SSIM.

    By PSNR and speed, they are the ends of the Pareto front over all networks: the best, and the
    fastest that loses at most LARGEST_LOSS_DB.
    """
    usable = [trial for trial in trials if trial.usable]
    if config.objective == "psnr+speed":
        return _ends(front_of(trials), log)
    (metric,) = METRICS[config.objective]
    chosen: dict[str, Trial] = {}
    for model in config.tuned:
        own = [trial for trial in usable if trial.draw.model == model]
        if own:
            chosen[model] = max(own, key=lambda trial: trial.best[metric])
        else:
            log(f"refit: skipping {model}, all its trials failed")
    return chosen


def front_of(trials: Sequence[Trial]) -> list[Trial]:
    """Return the Pareto front of val PSNR and seconds per megapixel, the best PSNR first; empty
    where speeds were not measured.
    """
    psnr, speed = METRICS["psnr+speed"]
    usable = [t for t in trials if t.usable and speed in t.best]
    keys = pareto_front({i: (t.best[psnr], t.best[speed]) for i, t in enumerate(usable)})
    return [usable[key] for key in keys]


def _ends(front: Sequence[Trial], log: Callable[[str], None]) -> dict[str, Trial]:
    log("Pareto front of val PSNR and speed:")
    for trial in front:
        seconds = trial.best["seconds_per_megapixel"]
        log(f"  {trial.name:<24} {trial.best['val_psnr']:.2f} dB  {seconds:.3f} s per megapixel")
    best = front[0]
    fastest = [t for t in front if best.best["val_psnr"] - t.best["val_psnr"] <= LARGEST_LOSS_DB][
        -1
    ]
    if fastest is best:
        return {best.draw.model: best}
    same = fastest.draw.model == best.draw.model
    name = f"{fastest.draw.model}-fastest" if same else fastest.draw.model
    return {best.draw.model: best, name: fastest}
