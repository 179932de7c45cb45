"""The interface between the training loop and its host, and its single-process version."""

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol, TypeAlias

import torch
from torch import Tensor, nn

from degrain.loading.patches import Patches
from degrain.training.checkpoint import Snapshot
from degrain.training.teacher import Teacher

if TYPE_CHECKING:
    # The loop must run with torch alone installed; only stored checkpoints need more.
    from degrain.training.checkpoint_store import CheckpointStore

Metrics: TypeAlias = Mapping[str, float]


class Session(Protocol):
    """The host of a training run: a plain process, a Tune trial, or one worker of Ray Train."""

    rank: int
    world_size: int
    device: torch.device
    train: Patches
    val: Patches
    start: Mapping[str, Tensor] | None
    """Weights that training starts from; None: random ones."""
    teacher: Teacher | None
    """The network of `TrainingConfig.teacher`."""
    started: float
    """When the budget of time began, seconds since the epoch."""

    def wrap_ddp(self, network: nn.Module) -> nn.Module:
        """Return the module of the forward pass: on several workers, DistributedDataParallel."""
        ...

    def sum(self, values: Tensor) -> Tensor:
        """Sum a float64 tensor over all workers."""
        ...

    def restored(self) -> Snapshot | None:
        """Return the checkpoint to resume from, or None; the same on all workers."""
        ...

    def planned(self, steps: int) -> None:
        """Publish the number of steps that fit into the budget (the same on all workers), when the
        run begins and when it changes.
        """
        ...

    def usage(self) -> Mapping[str, float]:
        """Return this worker's memory and load by metric name; the same names on all workers."""
        ...

    def progress(self, metrics: Metrics) -> None:
        """Publish metrics measured between validations (the same on all workers)."""
        ...

    def report(
        self,
        metrics: Metrics,
        snapshot: Callable[[], Snapshot],
        samples: Callable[[], bytes],
    ) -> None:
        """Publish a validation (the same on all workers); rank 0 may take a snapshot and a PNG."""
        ...

    def preempted(self) -> bool:
        """Whether a checkpoint was requested before a preemption; True once per request."""
        ...

    def save_checkpoint_now(self, snapshot: Snapshot) -> None:
        """Write a checkpoint before this process ends."""
        ...

    def finish(self) -> None:
        """Wait for all writes. Raises JobFailedError if the last checkpoint was not written."""
        ...


class SingleProcess:
    """Base class of single-process sessions: no DDP, no preemption, no progress display."""

    rank = 0
    world_size = 1
    start: Mapping[str, Tensor] | None = None
    teacher: Teacher | None = None
    started: float

    def wrap_ddp(self, network: nn.Module) -> nn.Module:
        """Return the network itself."""
        return network

    def sum(self, values: Tensor) -> Tensor:
        """Return the values themselves."""
        return values

    def planned(self, steps: int) -> None:
        """Do nothing: the state has the number of steps."""

    def usage(self) -> Mapping[str, float]:
        """Return no metrics."""
        return {}

    def progress(self, metrics: Metrics) -> None:
        """Do nothing: only validations are reported."""

    def preempted(self) -> bool:
        """Return False: no checkpoints are requested."""
        return False

    def save_checkpoint_now(self, snapshot: Snapshot) -> None:
        """Do nothing."""

    def finish(self) -> None:
        """Do nothing: `report` has stored everything."""


class LocalSession(SingleProcess):
    """A plain process: checkpoints are written to a store, metrics are kept in lists."""

    def __init__(
        self,
        train: Patches,
        val: Patches,
        *,
        store: "CheckpointStore | None" = None,
        start: Mapping[str, Tensor] | None = None,
        teacher: Teacher | None = None,
        device: str = "cpu",
    ) -> None:
        self.train = train
        self.val = val
        self.start = start
        self.teacher = teacher
        self.started = time.time()
        self.device = torch.device(device)
        self.store = store
        self.history: list[Metrics] = []
        """Metrics of all validations."""
        self.curve: list[Metrics] = []
        """Metrics measured between validations."""

    def restored(self) -> Snapshot | None:
        """Return the newest checkpoint; the time that it took is not available again."""
        found = self.store.newest() if self.store else None
        if found is not None:
            self.started -= found["seconds"]
        return found

    def progress(self, metrics: Metrics) -> None:
        """Keep the metrics."""
        self.curve.append(metrics)

    def report(
        self,
        metrics: Metrics,
        snapshot: Callable[[], Snapshot],
        samples: Callable[[], bytes],  # noqa: ARG002 - no place to show pictures
    ) -> None:
        """Keep the metrics, and write a checkpoint."""
        self.history.append(metrics)
        if self.store is not None:
            self.store.save(snapshot())

    def save_checkpoint_now(self, snapshot: Snapshot) -> None:
        """Write a checkpoint."""
        if self.store is not None:
            self.store.save(snapshot)

    def finish(self) -> None:
        """Wait for the last checkpoint."""
        if self.store is not None:
            self.store.flush()
