"""The host that is a Ray Tune trial."""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ray.tune
import torch
from torch import Tensor, nn

from degrain.data.resident import Split
from degrain.errors import JobFailedError, UserError
from degrain.training.checkpoint import Snapshot, decode, encode
from degrain.training.config import TrainingConfig
from degrain.training.loop import train
from degrain.training.session import Metrics

FAILURE = "failure"
"""Key of the report by which a trial says why it fails."""
_CHECKPOINT_FILE = "checkpoint.pt"


class TrialSession:
    """The host that is a Tune trial: one worker, trained where the trial runs, because a nested trainer starts slowly."""

    rank = 0
    world_size = 1
    start: Mapping[str, Tensor] | None = None

    def __init__(self, train_split: Split, val_split: Split) -> None:
        self.train = train_split.patches()
        self.val = val_split.patches()
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def replicate(self, network: nn.Module) -> nn.Module:
        """The network itself."""
        return network

    def sum(self, values: Tensor) -> Tensor:
        """The values themselves."""
        return values

    def restored(self) -> Snapshot | None:
        """The trial's checkpoint, if it was interrupted."""
        checkpoint = ray.tune.get_checkpoint()
        if checkpoint is None:
            return None
        with checkpoint.as_directory() as folder:
            return decode((Path(folder) / _CHECKPOINT_FILE).read_bytes())

    def progress(self, metrics: Metrics) -> None:
        """Nothing: a trial is watched by its validations."""

    def usage(self) -> Mapping[str, float]:
        """Nothing, for the same reason."""
        return {}

    def report(self, metrics: Metrics, snapshot: Callable[[], Snapshot], samples: Callable[[], bytes]) -> None:  # noqa: ARG002
        """Report to Ray Tune, which may stop the trial here."""
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / _CHECKPOINT_FILE).write_bytes(encode(snapshot()))
            ray.tune.report(dict(metrics), checkpoint=ray.tune.Checkpoint.from_directory(folder))

    def must_go(self) -> bool:
        """Never: Tune repeats a trial that was lost."""
        return False

    def rescue(self, snapshot: Snapshot) -> None:
        """Nothing."""

    def finish(self) -> None:
        """Nothing: Tune has kept what it was handed."""


def run_trial(arguments: dict[str, Any], *, train_split: Split, val_split: Split) -> None:
    """The body of a Tune trial; `arguments["trial"]["training"]` is the configuration."""
    config = TrainingConfig(**arguments["trial"]["training"])
    try:
        train(config, TrialSession(train_split, val_split))
    except (UserError, JobFailedError, OSError) as error:
        # Tune tells its callbacks that a trial failed, but not why.
        ray.tune.report({FAILURE: str(error)})
        raise
