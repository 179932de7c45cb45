"""What the training loop asks of its host, and the simplest host: this process."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol, TypeAlias

import torch
from torch import Tensor, nn

from degrain.data.loader import Patches
from degrain.training.checkpoint import Snapshot

if TYPE_CHECKING:
    # Networks train where nothing but torch is installed; there nothing is stored.
    from degrain.training.store import CheckpointStore

Metrics: TypeAlias = Mapping[str, float]


class Session(Protocol):
    """The host of a training run: a plain process, a Tune trial, or one worker of Ray Train."""

    rank: int
    world_size: int
    device: torch.device
    train: Patches
    val: Patches
    start: Mapping[str, Tensor] | None
    """The weights that training starts from; None: random ones."""

    def replicate(self, network: nn.Module) -> nn.Module:
        """What the forward pass goes through: on several workers, DistributedDataParallel around the network."""
        ...

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all workers of a float64 tensor."""
        ...

    def restored(self) -> Snapshot | None:
        """The checkpoint to go on from, if there is one; the same on all workers."""
        ...

    def progress(self, metrics: Metrics) -> None:
        """Hand over what is measured between validations (the same on all workers)."""
        ...

    def usage(self) -> Mapping[str, float]:
        """What this worker takes of its machine, by the names of metrics; the same names on all workers."""
        ...

    def report(self, metrics: Metrics, snapshot: Callable[[], Snapshot], samples: Callable[[], bytes]) -> None:
        """Hand over a validation (the same on all workers); rank 0 may take a snapshot, and a picture of sample crops."""
        ...

    def must_go(self) -> bool:
        """Whether this process is about to be taken away, so that a snapshot should be kept now; true once a notice."""
        ...

    def rescue(self, snapshot: Snapshot) -> None:
        """Keep a snapshot before this process goes."""
        ...

    def finish(self) -> None:
        """Wait until all that was handed over is kept. Raises JobFailedError if the last snapshot could not be."""
        ...


class LocalSession:
    """The host that is a plain process with one worker; checkpoints go to a store, metrics to lists."""

    rank = 0
    world_size = 1

    def __init__(
        self,
        train: Patches,
        val: Patches,
        *,
        store: "CheckpointStore | None" = None,
        start: Mapping[str, Tensor] | None = None,
        device: str = "cpu",
    ) -> None:
        self.train = train
        self.val = val
        self.start = start
        self.device = torch.device(device)
        self.store = store
        self.history: list[Metrics] = []
        """All validations."""
        self.curve: list[Metrics] = []
        """All progress."""

    def replicate(self, network: nn.Module) -> nn.Module:
        """The network itself."""
        return network

    def sum(self, values: Tensor) -> Tensor:
        """The values themselves."""
        return values

    def restored(self) -> Snapshot | None:
        """The newest checkpoint of the store."""
        return self.store.newest() if self.store else None

    def progress(self, metrics: Metrics) -> None:
        """Keep the metrics."""
        self.curve.append(metrics)

    def usage(self) -> Mapping[str, float]:
        """Nothing: nobody watches."""
        return {}

    def report(self, metrics: Metrics, snapshot: Callable[[], Snapshot], samples: Callable[[], bytes]) -> None:  # noqa: ARG002
        """Keep the metrics, and write a checkpoint."""
        self.history.append(metrics)
        if self.store is not None:
            self.store.save(snapshot())

    def must_go(self) -> bool:
        """Never: nobody tells a plain process."""
        return False

    def rescue(self, snapshot: Snapshot) -> None:
        """Write a checkpoint."""
        if self.store is not None:
            self.store.save(snapshot)

    def finish(self) -> None:
        """Wait for the last checkpoint."""
        if self.store is not None:
            self.store.flush()
