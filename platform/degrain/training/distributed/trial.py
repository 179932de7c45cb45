"""Training in a Ray Tune trial."""

import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ray.tune
import torch
from torch import Tensor

from degrain.errors import JobFailedError, UserError
from degrain.loading.resident import Split
from degrain.training.checkpoint import Snapshot, decode, encode
from degrain.training.config import TrainingConfig
from degrain.training.loop import train
from degrain.training.session import Metrics, SingleProcess

FAILURE = "failure"
"""Key of the error text in the report of a failed trial."""
_CHECKPOINT_FILE = "checkpoint.pt"


class TrialSession(SingleProcess):
    """A session in the trial's own process, because a nested Ray Train trainer starts slowly."""

    def __init__(
        self, train_split: Split, val_split: Split, start: Mapping[str, Tensor] | None
    ) -> None:
        self.start = start
        self.train = train_split.patches()
        self.val = val_split.patches()
        self.started = time.time()
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def restored(self) -> Snapshot | None:
        """Return the trial's checkpoint, if it was interrupted."""
        checkpoint = ray.tune.get_checkpoint()
        if checkpoint is None:
            return None
        with checkpoint.as_directory() as folder:
            return decode((Path(folder) / _CHECKPOINT_FILE).read_bytes())

    def report(
        self,
        metrics: Metrics,
        snapshot: Callable[[], Snapshot],
        samples: Callable[[], bytes],  # noqa: ARG002 - a trial shows no pictures
    ) -> None:
        """Report to Ray Tune, which may end the process here to stop the trial."""
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / _CHECKPOINT_FILE).write_bytes(encode(snapshot()))
            ray.tune.report(dict(metrics), checkpoint=ray.tune.Checkpoint.from_directory(folder))


def run_trial(
    arguments: dict[str, Any],
    *,
    train_split: Split,
    val_split: Split,
    starts: Mapping[str, Mapping[str, Tensor]],
) -> None:
    """The body of a Tune trial; `arguments["trial"]["training"]` is the configuration.

    `starts` has the weights of each model that trials start from.
    """
    config = TrainingConfig(**arguments["trial"]["training"])
    start = None if config.start is None else starts[config.start]
    try:
        train(config, TrialSession(train_split, val_split, start))
    except (UserError, JobFailedError, OSError) as error:
        # Tune's callbacks receive no error, so it is reported as a metric.
        ray.tune.report({FAILURE: str(error)})
        raise
