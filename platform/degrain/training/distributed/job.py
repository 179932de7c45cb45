"""The driver of distributed training: starts the workers and processes their events."""

import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import ray
import ray.train
import ray.train.torch
from ray.train.v2._internal.execution.callback import ControllerCallback, WorkerGroupCallback
from ray.train.v2._internal.execution.worker_group import WorkerGroup
from ray.util.placement_group import PlacementGroup
from torch import Tensor

from degrain.cluster import RAY_THREAD, files_of_ray
from degrain.errors import JobFailedError, find_cause
from degrain.storage.location import Location
from degrain.training.checkpoint_store import CheckpointStore
from degrain.training.config import TrainingConfig
from degrain.training.distributed.events import (
    EventChannel,
    PreemptionCheckpoint,
    Started,
    WarningEvent,
    WorkerEvent,
)
from degrain.training.distributed.result import TrainingResult
from degrain.training.distributed.splits import TrainingSplits
from degrain.training.distributed.worker import WorkerConfig, run_worker
from degrain.training.distributed.workers import Workers
from degrain.training.teacher import Teacher

_CHECKPOINT_SECONDS = 20.0
"""Seconds that an interrupted job waits for its last checkpoint."""
_SHORTAGE_SECONDS = 30.0
"""Seconds that workers may take to start before the driver reports missing resources."""


class _Introduction(ControllerCallback, WorkerGroupCallback):  # type: ignore[misc]
    """Introduces Ray's controller of a training, which alone can end the workers at once and free
    their resources: Ray has no public way to stop a training that runs in a thread. Runs in the
    controller's process.
    """

    def __init__(
        self, events: EventChannel, on_workers: Callable[[PlacementGroup], None] | None
    ) -> None:
        self._events = events
        self._on_workers = on_workers

    def after_controller_start(self, train_run_context: object) -> None:  # noqa: ARG002
        """Called once."""
        self._events.introduce(ray.get_runtime_context().current_actor)

    def after_worker_group_start(self, worker_group: WorkerGroup) -> None:
        """Called for each group of workers."""
        if self._on_workers is not None:
            state = worker_group.get_worker_group_state()
            self._on_workers(state.placement_group_handle.placement_group)


@dataclass
class TrainingJob:
    """Training of one network by several workers, with its checkpoints in `folder`/checkpoints.

    A job whose folder has checkpoints resumes from the newest. `on_event` is called, in the driver,
    with each event of the workers.
    """

    config: TrainingConfig
    splits: TrainingSplits
    folder: Location
    name: str
    workers: Workers
    start: Mapping[str, Tensor] | None = None
    teacher: Teacher | None = None
    keep_best: int = 1
    started: float = field(default_factory=time.time)
    """When the budget of time began, seconds since the epoch."""
    on_event: Callable[[WorkerEvent], None] = lambda _: None
    on_workers: Callable[[PlacementGroup], None] | None = None
    """Called, in another process, with the resources of each group of workers; can be pickled."""
    _events: EventChannel = field(init=False, repr=False)
    _draining: set[str] = field(default_factory=set, init=False, repr=False)
    """Nodes whose preemption was announced."""
    _nodes: set[str] = field(default_factory=set, init=False, repr=False)
    """Nodes of the cluster, of an elastic run."""
    _started: bool = field(default=False, init=False, repr=False)
    """Whether workers have started to train."""
    _groups_before: frozenset[str] = field(default=frozenset(), init=False, repr=False)
    """Placement groups that existed before the job."""

    def run(self) -> TrainingResult:
        """Train to the end. Raises UserError if the cluster is too small, JobFailedError if
        training fails.

        On Ctrl-C the workers write a checkpoint before the interrupt is raised.
        """
        self.workers.check_cluster()
        self._subtract_used_time()
        self._groups_before = frozenset(ray.util.placement_group_table())
        self._events = EventChannel.open()
        outcome: list[BaseException] = []
        # In the main thread Ray would handle Ctrl-C by ending the process with status 0.
        files = files_of_ray()
        training = threading.Thread(
            target=self._fit, args=(files.name, outcome), daemon=True, name=RAY_THREAD
        )
        try:
            training.start()
            self._wait_for_workers(training)
            while training.is_alive():
                self._process_events(seconds=0.5)
            self._process_events(seconds=0)
            failure = self._events.failure()
        except KeyboardInterrupt:
            self._save_before_exit(training)
            self._events.abort_training()
            raise
        except SystemExit:
            # Ray Tune stops the trial that this job is. The next one needs the workers' resources.
            self._events.abort_training()
            training.join()
            raise
        finally:
            self._events.close()
            files.cleanup()
        if failure is not None:
            raise failure
        if outcome:
            raise JobFailedError(
                f"training '{self.name}' failed: {_last_line(outcome[0])}"
            ) from outcome[0]
        return self._result()

    def _subtract_used_time(self) -> None:
        """Let the budget of a resumed run begin earlier, by the time that was used."""
        if self.config.budget is None:
            return
        before = CheckpointStore(self.folder / "checkpoints", warn=lambda _: None).newest()
        if before is not None:
            self.started -= before["seconds"]

    def _wait_for_workers(self, training: threading.Thread) -> None:
        """Process events until workers start; report missing resources at intervals."""
        due = time.monotonic() + _SHORTAGE_SECONDS
        while training.is_alive() and not self._started:
            self._process_events(seconds=0.5)
            if time.monotonic() > due:
                # Workers that are placed but still starting have their resources.
                lacking = None if self._workers_placed() else self.workers.shortage()
                if lacking is not None:
                    self.on_event(WarningEvent(f"still waiting for {lacking}"))
                due = time.monotonic() + 4 * _SHORTAGE_SECONDS

    def _workers_placed(self) -> bool:
        """Whether Ray has reserved the resources of this job's workers."""
        each = self.workers.resources
        return any(
            group["state"] == "CREATED"
            and key not in self._groups_before
            and all(bundle == each for bundle in group["bundles"].values())
            for key, group in ray.util.placement_group_table().items()
        )

    def _fit(self, files: str, outcome: list[BaseException]) -> None:
        """Run Ray Train, whose files are in the folder `files`; the body of a thread."""
        # With the default, Ray notices a finished group only after two seconds.
        os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
        # `_process_events` checks for preemptions, so Ray's watcher actor is not needed.
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
        # Ray may schedule on a node that was just lost; shorten the wait for its next attempt.
        os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "20")
        try:
            ray.train.torch.TorchTrainer(
                run_worker,
                train_loop_config={"worker_config": self._worker_config()},
                scaling_config=self.workers.scaling(),
                run_config=ray.train.RunConfig(
                    name=self.name,
                    storage_path=files,
                    callbacks=[_Introduction(self._events, self.on_workers)],
                    failure_config=ray.train.FailureConfig(max_failures=self.workers.restarts),
                ),
            ).fit()
        except Exception as error:  # noqa: BLE001 - `run` raises it in the main thread
            outcome.append(error)

    def _worker_config(self) -> WorkerConfig:
        return WorkerConfig(
            config=self.config,
            train_split=self.splits.train,
            val_split=self.splits.val,
            start=None if self.start is None else ray.put(dict(self.start)),
            teacher=None if self.teacher is None else ray.put(self.teacher),
            started=self.started,
            checkpoints=self.folder / "checkpoints",
            keep_best=self.keep_best,
            events=self._events,
        )

    def _process_events(self, seconds: float) -> list[WorkerEvent]:
        """Call `on_event` for new events; request a checkpoint before the workers are restarted:
        for a preemption that was announced, or for a node that joins an elastic run.
        """
        draining = _draining_nodes()
        if draining - self._draining:
            self.on_event(WarningEvent("a node is being preempted; its workers continue elsewhere"))
            self._events.request_checkpoint()
        self._draining = draining
        nodes = _nodes() if self.workers.workers.elastic else set()
        if self._started and nodes - self._nodes:
            self._events.request_checkpoint()
        self._nodes = nodes
        events = self._events.take(seconds)
        for event in events:
            self._started = self._started or isinstance(event, Started)
            self.on_event(event)
        return events

    def _save_before_exit(self, training: threading.Thread) -> None:
        """Request a checkpoint and wait for it, unless a second Ctrl-C arrives."""
        if not self._started:
            return
        self._events.request_checkpoint()
        deadline = time.monotonic() + _CHECKPOINT_SECONDS
        while training.is_alive() and time.monotonic() < deadline:
            events = self._process_events(seconds=0.5)
            if any(isinstance(event, PreemptionCheckpoint) for event in events):
                return

    def _result(self) -> TrainingResult:
        store = CheckpointStore(
            self.folder / "checkpoints", warn=lambda text: self.on_event(WarningEvent(text))
        )
        best, newest = store.best(), store.newest()
        if best is None or newest is None:
            raise JobFailedError(
                f"training '{self.name}' ended, but '{store.folder}' has no undamaged checkpoint; "
                "run it again"
            )
        config = replace(self.config, steps=newest["config"]["steps"])
        return TrainingResult(config, best["ema"], best["metrics"])


def _draining_nodes() -> set[str]:
    """Nodes that an autoscaler or `ray drain-node` will end; Ray has no public API for them."""
    return set(ray._private.state.state.get_draining_nodes())


def _nodes() -> set[str]:
    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}


def _last_line(error: BaseException) -> str:
    lines = [line for line in str(find_cause(error) or error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
