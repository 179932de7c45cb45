"""Training in a Ray Train worker."""

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from degrain.errors import JobFailedError, find_cause
from degrain.loading.resident import Split
from degrain.storage.location import Location
from degrain.training.checkpoint import Snapshot
from degrain.training.checkpoint_store import CheckpointStore
from degrain.training.config import TrainingConfig
from degrain.training.distributed.events import (
    EventChannel,
    Planned,
    PreemptionCheckpoint,
    Progress,
    Started,
    ValidationEvent,
    WarningEvent,
)
from degrain.training.distributed.resource_usage import process_usage
from degrain.training.distributed.workers import has_gpu
from degrain.training.loop import train
from degrain.training.session import Metrics
from degrain.training.teacher import Teacher

_POLL_SECONDS = 1.0
"""Seconds between checks whether the driver requested a checkpoint."""


@dataclass(frozen=True, kw_only=True)
class WorkerConfig:
    """The arguments of every worker of a run."""

    config: TrainingConfig
    train_split: Split
    val_split: Split
    start: ray.ObjectRef | None
    """Weights to start from, by name."""
    teacher: ray.ObjectRef | None
    started: float
    """When the budget of time began, seconds since the epoch."""
    checkpoints: Location
    keep_best: int
    events: EventChannel


class WorkerSession:
    """One worker of Ray Train; rank 0 writes checkpoints and sends events."""

    def __init__(self, worker_config: WorkerConfig) -> None:
        context = ray.train.get_context()
        self.rank = context.get_world_rank()
        self.world_size = context.get_world_size()
        self.device = ray.train.torch.get_device() if has_gpu() else torch.device("cpu")
        self.train = worker_config.train_split.patches()
        self.val = worker_config.val_split.patches()
        self.start = None if worker_config.start is None else ray.get(worker_config.start)
        teacher = worker_config.teacher
        self.teacher: Teacher | None = None if teacher is None else ray.get(teacher)
        self.started = worker_config.started
        self._events = worker_config.events
        self._store = CheckpointStore(
            worker_config.checkpoints, keep_best=worker_config.keep_best, warn=self._warn
        )
        self._requested = threading.Event()
        if self.rank == 0:
            logging.getLogger("degrain").addHandler(_WarningHandler(self._warn))
            threading.Thread(target=self._poll, daemon=True, name="checkpoint-requests").start()

    def wrap_ddp(self, network: nn.Module) -> nn.Module:
        """Wrap the network in DistributedDataParallel if the run has several workers."""
        if self.world_size == 1:
            return network
        ids = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(network, device_ids=ids, gradient_as_bucket_view=True)

    def sum(self, values: Tensor) -> Tensor:
        """Sum over all workers."""
        if self.world_size == 1:
            return values
        total = values.to(self.device)
        torch.distributed.all_reduce(total)
        return total.cpu()

    def restored(self) -> Snapshot | None:
        """Return the run's newest undamaged checkpoint, which rank 0 reads and broadcasts."""
        found = [self._store.newest() if self.rank == 0 else None]
        if self.world_size > 1:
            torch.distributed.broadcast_object_list(found, device=self.device)
        snapshot = found[0]
        if self.rank == 0:
            self._events.put(Started(snapshot["step"] if snapshot else 0, self.world_size))
        return snapshot

    def planned(self, steps: int) -> None:
        """Send the number to the driver."""
        if self.rank == 0:
            self._events.put(Planned(steps))

    def usage(self) -> Mapping[str, float]:
        """Measure memory and load."""
        return process_usage(self.device)

    def progress(self, metrics: Metrics) -> None:
        """Send the metrics to the driver."""
        if self.rank == 0:
            self._events.put(Progress(dict(metrics)))

    def report(
        self,
        metrics: Metrics,
        snapshot: Callable[[], Snapshot],
        samples: Callable[[], bytes],
    ) -> None:
        """Send the validation to the driver, and write a checkpoint."""
        if self.rank == 0:
            self._events.put(ValidationEvent(dict(metrics), samples()))
            self._store.save(snapshot())

    def preempted(self) -> bool:
        """Whether the driver requested a checkpoint: a node is preempted, or the driver ends."""
        if self._requested.is_set():
            self._requested.clear()
            return True
        return False

    def save_checkpoint_now(self, snapshot: Snapshot) -> None:
        """Write a checkpoint, and send an event when it is written."""
        self._store.save(snapshot)
        try:
            self._store.flush()
        except JobFailedError as error:
            self._warn(str(error))
        else:
            self._events.put(PreemptionCheckpoint(snapshot["step"]))

    def finish(self) -> None:
        """Wait for the last checkpoint."""
        self._store.flush()

    def _warn(self, text: str) -> None:
        self._events.put(WarningEvent(text))

    def _poll(self) -> None:
        """Check for requests until the process or the driver's actor ends; the body of a thread."""
        stop = threading.Event()
        while not stop.wait(_POLL_SECONDS):
            try:
                if self._events.checkpoint_requested():
                    self._requested.set()
            except ray.exceptions.RayError:
                return


class _WarningHandler(logging.Handler):
    """Forwards logged warnings to the driver, such as why the network is not compiled."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._warn = warn

    def emit(self, record: logging.LogRecord) -> None:
        """Forward the message."""
        self._warn(record.getMessage())


def run_worker(arguments: dict[str, Any]) -> None:
    """The body of a Ray Train worker.

    Ray restarts a group that lost a worker or a node. A UserError or JobFailedError would recur
    after a restart, so it is recorded, and the restarted group ends at once.
    """
    worker_config: WorkerConfig = arguments["worker_config"]
    if worker_config.events.failure() is not None:
        return
    try:
        train(worker_config.config, WorkerSession(worker_config))
    except Exception as error:
        if (known := find_cause(error)) is not None:
            worker_config.events.fail(known)
        raise
