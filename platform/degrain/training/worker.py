"""The host that is one worker of Ray Train."""

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

from degrain.data.resident import Split
from degrain.errors import JobFailedError, find_cause
from degrain.storage import Location
from degrain.training.checkpoint import Snapshot
from degrain.training.config import TrainingConfig
from degrain.training.loop import train
from degrain.training.mailbox import Began, Mailbox, Progress, Rescued, Validated, Warned
from degrain.training.session import Metrics
from degrain.training.store import CheckpointStore
from degrain.training.usage import process_usage

_ASK_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """What each worker of a run is told."""

    config: TrainingConfig
    train_split: Split
    val_split: Split
    start: ray.ObjectRef | None
    """Weights to start from, by name."""
    checkpoints: Location
    keep_best: int
    mailbox: Mailbox


class WorkerSession:
    """The host that is one worker of Ray Train; rank 0 writes checkpoints and letters to the driver."""

    def __init__(self, assignment: Assignment) -> None:
        context = ray.train.get_context()
        self.rank = context.get_world_rank()
        self.world_size = context.get_world_size()
        self.device = ray.train.torch.get_device()
        self.train = assignment.train_split.patches()
        self.val = assignment.val_split.patches()
        self.start = None if assignment.start is None else ray.get(assignment.start)
        self._mailbox = assignment.mailbox
        self._store = CheckpointStore(assignment.checkpoints, keep_best=assignment.keep_best, warn=self._warn)
        self._asked = threading.Event()
        if self.rank == 0:
            logging.getLogger("degrain").addHandler(_Letters(self._warn))
            threading.Thread(target=self._listen, daemon=True, name="mailbox").start()

    def replicate(self, network: nn.Module) -> nn.Module:
        """DistributedDataParallel around the network, where there are several workers."""
        if self.world_size == 1:
            return network
        ids = [self.device] if self.device.type == "cuda" else None
        return DistributedDataParallel(network, device_ids=ids, gradient_as_bucket_view=True)

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all workers."""
        if self.world_size == 1:
            return values
        total = values.to(self.device)
        torch.distributed.all_reduce(total)
        return total.cpu()

    def restored(self) -> Snapshot | None:
        """The run's newest whole checkpoint, which rank 0 reads for all."""
        found = [self._store.newest() if self.rank == 0 else None]
        if self.world_size > 1:
            torch.distributed.broadcast_object_list(found, device=self.device)
        snapshot = found[0]
        if self.rank == 0:
            self._mailbox.put(Began(snapshot["step"] if snapshot else 0, self.world_size))
        return snapshot

    def progress(self, metrics: Metrics) -> None:
        """Write to the driver."""
        if self.rank == 0:
            self._mailbox.put(Progress(dict(metrics)))

    def usage(self) -> Mapping[str, float]:
        """Memory and load."""
        return process_usage(self.device)

    def report(self, metrics: Metrics, snapshot: Callable[[], Snapshot], samples: Callable[[], bytes]) -> None:
        """Write to the driver, and have a checkpoint written."""
        if self.rank == 0:
            self._mailbox.put(Validated(dict(metrics), samples()))
            self._store.save(snapshot())

    def must_go(self) -> bool:
        """Whether the driver has heard that a node is to go, or is to go itself."""
        if self._asked.is_set():
            self._asked.clear()
            return True
        return False

    def rescue(self, snapshot: Snapshot) -> None:
        """Write a checkpoint, and tell the driver when it is written."""
        self._store.save(snapshot)
        try:
            self._store.flush()
        except JobFailedError as error:
            self._warn(str(error))
        else:
            self._mailbox.put(Rescued(snapshot["step"]))

    def finish(self) -> None:
        """Wait for the last checkpoint."""
        self._store.flush()

    def _warn(self, text: str) -> None:
        self._mailbox.put(Warned(text))

    def _listen(self) -> None:
        """Ask, until the process ends, whether the driver wants a checkpoint."""
        stop = threading.Event()
        while not stop.wait(_ASK_SECONDS):
            try:
                if self._mailbox.rescue_wanted():
                    self._asked.set()
            except ray.exceptions.RayError:
                return


class _Letters(logging.Handler):
    """Tells the driver what is logged as a warning, such as that the network is not compiled and why."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._warn = warn

    def emit(self, record: logging.LogRecord) -> None:
        """Send the message."""
        self._warn(record.getMessage())


def run_worker(arguments: dict[str, Any]) -> None:
    """The body of a Ray Train worker.

    What is lost with a worker or a node comes back with the group that Ray starts anew; an error of ours would come again,
    so it is noted, and the new group ends at once.
    """
    assignment: Assignment = arguments["assignment"]
    if assignment.mailbox.failure() is not None:
        return
    try:
        train(assignment.config, WorkerSession(assignment))
    except Exception as error:
        if (known := find_cause(error)) is not None:
            assignment.mailbox.fail(known)
        raise
