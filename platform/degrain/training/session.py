"""What the training loop asks of its host, and the simplest host: this process."""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, TypeAlias

import torch
from torch import Tensor, nn

from degrain.data.loader import Patches

Metrics: TypeAlias = Mapping[str, float]


class Session(Protocol):
    """The host of a training run: a plain process, a Tune trial, or one worker of Ray Train."""

    rank: int
    world_size: int
    device: torch.device
    train: Patches
    val: Patches

    def replicate(self, network: nn.Module) -> nn.Module:
        """What the forward pass goes through: on several workers, DistributedDataParallel around the network."""
        ...

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all workers of a float64 tensor."""
        ...

    def restored(self) -> bytes | None:
        """The checkpoint to go on from, if there is one."""
        ...

    def report(self, metrics: Metrics, checkpoint: bytes | None) -> None:
        """Hand over metrics (the same on all workers) and a checkpoint (rank 0's; None elsewhere)."""
        ...


class LocalSession:
    """The host that is a plain process with one worker; checkpoints go to a file, metrics to a list."""

    rank = 0
    world_size = 1

    def __init__(self, train: Patches, val: Patches, *, checkpoint: Path | None = None, device: str = "cpu") -> None:
        self.train = train
        self.val = val
        self.device = torch.device(device)
        self.checkpoint = checkpoint
        self.history: list[Metrics] = []

    def replicate(self, network: nn.Module) -> nn.Module:
        """The network itself."""
        return network

    def sum(self, values: Tensor) -> Tensor:
        """The values themselves."""
        return values

    def restored(self) -> bytes | None:
        """The content of the checkpoint file, if it is there."""
        if self.checkpoint is None or not self.checkpoint.exists():
            return None
        return self.checkpoint.read_bytes()

    def report(self, metrics: Metrics, checkpoint: bytes | None) -> None:
        """Keep the metrics; replace the checkpoint file in one move."""
        self.history.append(metrics)
        if self.checkpoint is not None and checkpoint is not None:
            part = self.checkpoint.with_suffix(".part")
            part.write_bytes(checkpoint)
            part.replace(self.checkpoint)
