"""The two hosts on Ray: a Tune trial that trains in its own process, and one worker of Ray Train."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray.train
import ray.train.torch
import ray.tune
import torch
from ray.util.queue import Queue
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from degrain.data.loader import Patches
from degrain.data.resident import ResidentSplit
from degrain.errors import JobFailedError, UserError
from degrain.training.checkpoint import CHECKPOINT_FILE
from degrain.training.config import TrainingConfig
from degrain.training.loop import train
from degrain.training.session import Metrics

FAILURE = "failure"
"""Key of the report by which a trial says why it fails."""


def _read(checkpoint: Any) -> bytes | None:  # noqa: ANN401 - Ray's checkpoint classes
    if checkpoint is None:
        return None
    with checkpoint.as_directory() as folder:
        return (Path(folder) / CHECKPOINT_FILE).read_bytes()


def _handed_over(report: Callable[..., None], metrics: Metrics, content: bytes | None, **options: object) -> None:
    """Report with the checkpoint as the folder that Ray wants."""
    if content is None:
        report(dict(metrics), checkpoint=None, **options)
        return
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / CHECKPOINT_FILE).write_bytes(content)
        report(dict(metrics), checkpoint=ray.tune.Checkpoint.from_directory(folder), **options)


class TrialSession:
    """The host that is a Tune trial: one worker, trained where the trial runs, because a nested trainer starts slowly."""

    rank = 0
    world_size = 1

    def __init__(self, train: Patches, val: Patches) -> None:
        self.train = train
        self.val = val
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def replicate(self, network: nn.Module) -> nn.Module:
        """The network itself."""
        return network

    def sum(self, values: Tensor) -> Tensor:
        """The values themselves."""
        return values

    def restored(self) -> bytes | None:
        """The trial's checkpoint, if it was interrupted."""
        return _read(ray.tune.get_checkpoint())

    def report(self, metrics: Metrics, checkpoint: bytes | None) -> None:
        """Report to Ray Tune, which may stop the trial here."""
        _handed_over(ray.tune.report, metrics, checkpoint)


class WorkerSession:
    """The host that is one worker of Ray Train; rank 0 also sends its metrics to the driver."""

    def __init__(self, train: Patches, val: Patches, mailbox: Queue) -> None:
        context = ray.train.get_context()
        self.rank = context.get_world_rank()
        self.world_size = context.get_world_size()
        self.device = ray.train.torch.get_device()
        self.train = train
        self.val = val
        self._mailbox = mailbox

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

    def restored(self) -> bytes | None:
        """The run's newest checkpoint, if it was interrupted."""
        return _read(ray.train.get_checkpoint())

    def report(self, metrics: Metrics, checkpoint: bytes | None) -> None:
        """Report to Ray Train (a barrier over all workers), and to the driver."""
        if self.rank == 0:
            self._mailbox.put(dict(metrics))
        _handed_over(ray.train.report, metrics, checkpoint)


def run_trial(arguments: dict[str, Any], *, train_split: ResidentSplit, val_split: ResidentSplit) -> None:
    """The body of a Tune trial; `arguments["trial"]["training"]` is the configuration."""
    config = TrainingConfig(**arguments["trial"]["training"])
    try:
        train(config, TrialSession(train_split.patches(), val_split.patches()))
    except (UserError, JobFailedError, OSError) as error:
        # Tune tells its callbacks that a trial failed, but not why.
        ray.tune.report({FAILURE: str(error)})
        raise


def run_worker(arguments: dict[str, Any]) -> None:
    """The body of a Ray Train worker."""
    session = WorkerSession(arguments["train_split"].patches(), arguments["val_split"].patches(), arguments["mailbox"])
    train(TrainingConfig(**arguments["training"]), session)
