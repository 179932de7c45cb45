"""Training in a Ray Tune trial: in its own process, or by several workers of Ray Train."""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import ray.tune
import torch
from torch import Tensor

from degrain.errors import JobFailedError, OutOfMemoryError, UserError
from degrain.loading.resident import Split
from degrain.storage.location import Location
from degrain.training.checkpoint import Snapshot
from degrain.training.checkpoint_store import CheckpointStore
from degrain.training.config import TrainingConfig
from degrain.training.distributed.events import ValidationEvent, WorkerEvent
from degrain.training.distributed.job import TrainingJob
from degrain.training.distributed.splits import TrainingSplits
from degrain.training.distributed.worker_groups import WorkerGroups
from degrain.training.distributed.workers import WorkerRange, Workers, has_gpu
from degrain.training.loop import train
from degrain.training.session import Metrics, SingleProcess
from degrain.tuning.stopping import Inheritance, Population
from degrain.tuning.trial import Failed, Halved, Task, to_report
from denoisenets import create_model

_SPEED_SIDE = 256
_SPEED_TURNS = 3
_STOP_TIMEOUT_S = 600
"""Ray Tune's own is 2 s. A process that a stopped trial has not left by then fails the next one."""


class _InheritedError(Exception):
    """The trial goes on from another one's checkpoint; `seconds` of its budget are used."""

    def __init__(self, inheritance: Inheritance, seconds: float) -> None:
        super().__init__()
        self.inheritance = inheritance
        self.seconds = seconds


class TrialSession(SingleProcess):
    """A session in the trial's own process: for one worker, Ray Train would start slowly."""

    def __init__(
        self,
        train_split: Split,
        val_split: Split,
        start: Mapping[str, Tensor] | None,
        store: CheckpointStore,
        constants: Metrics,
        population: "_Member | None" = None,
    ) -> None:
        self.start = start
        self.train = train_split.patches()
        self.val = val_split.patches()
        self.started = time.time()
        self.device = trial_device()
        self._store = store
        self._constants = constants
        """Metrics that are the same at each validation."""
        self._population = population
        self._done = 0.0
        """Share of the run at the last validation."""

    def restored(self) -> Snapshot | None:
        """Return the trial's checkpoint, if its study was interrupted.

        The seconds that it had used are not available again. The driver may have missed the report
        of the last validation.
        """
        snapshot = self._store.newest()
        if snapshot is not None:
            self.started -= snapshot["seconds"]
            self._done = snapshot["metrics"]["progress"] / 100
            ray.tune.report({**snapshot["metrics"], **self._constants})
        return snapshot

    def report(
        self,
        metrics: Metrics,
        snapshot: Callable[[], Snapshot],
        samples: Callable[[], bytes],  # noqa: ARG002 - a trial shows no pictures
    ) -> None:
        """Report to Ray Tune, which may end the process here to stop the trial."""
        content = {**snapshot(), "seconds": time.time() - self.started}
        self._store.save(content)
        # A report that the driver knows of is in a checkpoint.
        self._store.flush()
        ray.tune.report({**metrics, **self._constants})
        if self._population is not None:
            before, self._done = self._done, metrics["progress"] / 100
            found = self._population.at(before, self._done, metrics, content)
            if found is not None:
                raise _InheritedError(found, content["seconds"])


@dataclass(frozen=True)
class _Member:
    """A trial as one of a population."""

    population: Population
    objective: str
    """Metric by which trials are ranked."""
    draw: Mapping[str, Any]
    """Its hyperparameters, which go with its checkpoints."""

    def at(
        self, before: float, now: float, metrics: Metrics, content: Snapshot
    ) -> Inheritance | None:
        """What to go on with after a validation."""
        left = {**content, "draw": dict(self.draw)}
        return self.population.at(before, now, metrics[self.objective], left)


@dataclass(frozen=True)
class TrialBody:
    """The body of a Tune trial, called with the arguments of its `Task`."""

    splits: TrainingSplits
    starts: Mapping[str, Mapping[str, Tensor]]
    """Weights of each model that trials start from."""
    folder: Location
    """Checkpoints are written below it."""
    workers: Workers
    """Several run under Ray Train, not more than the batch has patches."""
    measures_speed: bool
    population: str | None = None
    """Metric of population-based training, if the study uses it."""
    groups: WorkerGroups | None = None
    """Where trials of several workers list them."""

    def __call__(self, arguments: dict[str, Any]) -> None:
        """Train. If memory runs out, the batch is halved once, and the trial starts anew."""
        task = Task.of(arguments)
        config = TrainingConfig(**task.training)
        constants = {"seconds_per_megapixel": measure_speed(config)} if self.measures_speed else {}
        train_it = partial(self._train, task, constants)
        try:
            if task.halved:
                train_it(config)
            elif _runs_out_of_memory(train_it, config):
                config = replace(config, batch_size=config.batch_size // 2)
                ray.tune.report(to_report(Halved(config.batch_size)))
                train_it(config)
        except (UserError, JobFailedError, OSError, MemoryError) as error:
            # It would recur, so that Tune, which repeats trials that it has lost, gets no error.
            ray.tune.report(to_report(Failed(str(error) or type(error).__name__)))

    def _train(self, task: Task, constants: Metrics, config: TrainingConfig) -> None:
        count = min(self.workers.workers.maximum, config.batch_size)
        if count > 1:
            self._train_by_workers(task, constants, config, WorkerRange(count, count))
        else:
            self._train_here(task, constants, config)

    def _place(self, task: Task, config: TrainingConfig, inherited: int) -> str:
        """Name of the folder of checkpoints."""
        place = f"{task.name}-batch-{config.batch_size}"
        return f"{place}-inherited-{inherited}" if inherited else place

    def _start(self, config: TrainingConfig) -> Mapping[str, Tensor] | None:
        return None if config.start is None else self.starts[config.start]

    def _train_by_workers(
        self,
        task: Task,
        constants: Metrics,
        config: TrainingConfig,
        count: WorkerRange,
    ) -> None:
        """Train by DDP, or continue from the checkpoints; reports each validation to Ray Tune."""

        def report(event: WorkerEvent) -> None:
            if isinstance(event, ValidationEvent):
                ray.tune.report({**event.metrics, **constants})

        place = self.folder / self._place(task, config, 0)
        workers, start = replace(self.workers, workers=count), self._start(config)
        assert self.groups is not None
        number = task.number
        # Of an earlier process of this trial.
        self.groups.free(number)
        job = TrainingJob(
            config,
            self.splits,
            place,
            "workers",
            workers,
            start=start,
            on_event=report,
            on_workers=partial(self.groups.add, number),
        )
        before = CheckpointStore(place / "checkpoints", warn=lambda _: None).newest()
        if before is not None and before["metrics"]:
            ray.tune.report({**before["metrics"], **constants})
        job.run()

    def _train_here(self, task: Task, constants: Metrics, config: TrainingConfig) -> None:
        """Train in this process; in a population, go on from other trials' checkpoints."""
        draw, inherited = task.draw, task.inherited
        while True:
            store = self._store(self._place(task, config, inherited))
            session = TrialSession(
                self.splits.train,
                self.splits.val,
                self._start(config),
                store,
                constants,
                self._member(task.number, draw, config),
            )
            try:
                train(config, session)
            except _InheritedError as error:
                found, seconds = error.inheritance, error.seconds
            else:
                return
            config, draw, inherited = found.config, found.snapshot["draw"], inherited + 1
            store = self._store(self._place(task, config, inherited))
            store.save({**found.snapshot, "seconds": seconds})
            store.flush()
            ray.tune.report(to_report(found.message()))

    def _store(self, name: str) -> CheckpointStore:
        return CheckpointStore(self.folder / name, warn=lambda _: None)

    def _member(
        self, number: int, draw: Mapping[str, Any], config: TrainingConfig
    ) -> _Member | None:
        if self.population is None:
            return None
        shared = self.folder / "population" / config.model
        return _Member(Population(shared, number, config.seed), self.population, draw)


def trial_device() -> torch.device:
    """The device of a trial in its own process."""
    return torch.device("cuda" if has_gpu() else "cpu")


def run_trial(arguments: dict[str, Any], *, body: TrialBody) -> None:
    """Run a trial; Ray Tune wants a function.

    Trials run one after another in the same process.
    """
    os.environ.setdefault("TUNE_FUNCTION_THREAD_TIMEOUT_S", str(_STOP_TIMEOUT_S))
    body(arguments)


def _runs_out_of_memory(attempt: Callable[[TrainingConfig], None], config: TrainingConfig) -> bool:
    """Train; returns whether memory ran out with a batch that can be halved.

    The error is not returned: its traceback would keep the memory.
    """
    try:
        attempt(config)
    except (OutOfMemoryError, MemoryError):
        if config.batch_size < 2:
            raise
    else:
        return False
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return True


def measure_speed(config: TrainingConfig) -> float:
    """Return the seconds per megapixel of the network, by the fastest of three passes."""
    device = trial_device()
    network = create_model(config.model, **config.arguments).to(device).eval()
    photo = torch.rand(1, 3, _SPEED_SIDE, _SPEED_SIDE, device=device)
    seconds = []
    with torch.inference_mode():
        for _ in range(_SPEED_TURNS):
            began = time.perf_counter()
            # Reading a value waits for the device.
            network(photo).sum().item()
            seconds.append(time.perf_counter() - began)
    return min(seconds) / (_SPEED_SIDE**2 / 1e6)
