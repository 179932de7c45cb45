"""Training in a Ray Tune trial: in its own process, or by several workers of Ray Train."""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
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
from degrain.training.distributed.workers import WorkerRange, Workers
from degrain.training.loop import train
from degrain.training.session import Metrics, SingleProcess
from denoisenets import create_model

FAILURE = "failure"
"""Key of the error text in the report of a failed trial."""
HALVED = "halved_batch_size"
"""Key of the new batch size in the report of a trial that ran out of memory."""
_SPEED_SIDE = 256
_SPEED_TURNS = 3


class TrialSession(SingleProcess):
    """A session in the trial's own process: for one worker, Ray Train would start slowly."""

    def __init__(
        self,
        train_split: Split,
        val_split: Split,
        start: Mapping[str, Tensor] | None,
        store: CheckpointStore,
        constants: Metrics,
    ) -> None:
        self.start = start
        self.train = train_split.patches()
        self.val = val_split.patches()
        self.started = time.time()
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._store = store
        self._constants = constants
        """Metrics that are the same at each validation."""

    def restored(self) -> Snapshot | None:
        """Return the trial's checkpoint, if its study was interrupted.

        The seconds that it had used are not available again. The driver may have missed the report
        of the last validation.
        """
        snapshot = self._store.newest()
        if snapshot is not None:
            self.started -= snapshot["seconds"]
            ray.tune.report({**snapshot["metrics"], **self._constants})
        return snapshot

    def report(
        self,
        metrics: Metrics,
        snapshot: Callable[[], Snapshot],
        samples: Callable[[], bytes],  # noqa: ARG002 - a trial shows no pictures
    ) -> None:
        """Report to Ray Tune, which may end the process here to stop the trial."""
        self._store.save({**snapshot(), "seconds": time.time() - self.started})
        # A report that the driver knows of is in a checkpoint.
        self._store.flush()
        ray.tune.report({**metrics, **self._constants})


def run_trial(
    arguments: dict[str, Any],
    *,
    splits: TrainingSplits,
    starts: Mapping[str, Mapping[str, Tensor]],
    folder: Location,
    workers: Workers,
    measures_speed: bool,
) -> None:
    """The body of a Tune trial; `arguments["trial"]["training"]` is the configuration.

    `starts` has the weights of each model that trials start from; checkpoints are written below
    `folder`. Several workers run under Ray Train, not more than the batch has patches. If memory
    runs out, the batch is halved once, and the trial starts anew.
    """
    described = arguments["trial"]
    config = TrainingConfig(**described["training"])
    start = None if config.start is None else starts[config.start]
    constants = {"seconds_per_megapixel": measure_speed(config)} if measures_speed else {}

    def attempt(config: TrainingConfig) -> None:
        place = folder / f"{described['name']}-batch-{config.batch_size}"
        count = min(workers.workers.maximum, config.batch_size)
        if count > 1:
            several = replace(workers, workers=WorkerRange(count, count))
            _train_by_workers(config, splits, start, several, place, constants)
            return
        store = CheckpointStore(place, warn=lambda _: None)
        train(config, TrialSession(splits.train, splits.val, start, store, constants))

    try:
        if described["halved"]:
            attempt(config)
        elif _runs_out_of_memory(attempt, config):
            config = replace(config, batch_size=config.batch_size // 2)
            ray.tune.report({HALVED: config.batch_size})
            attempt(config)
    except (UserError, JobFailedError, OSError, MemoryError) as error:
        # Tune's callbacks receive no error, so it is reported as a metric.
        ray.tune.report({FAILURE: str(error) or type(error).__name__})
        raise


def _train_by_workers(
    config: TrainingConfig,
    splits: TrainingSplits,
    start: Mapping[str, Tensor] | None,
    workers: Workers,
    place: Location,
    constants: Metrics,
) -> None:
    """Train by DDP, or continue from the checkpoints in `place`; reports each validation to Ray
    Tune.
    """

    def report(event: WorkerEvent) -> None:
        if isinstance(event, ValidationEvent):
            ray.tune.report({**event.metrics, **constants})

    job = TrainingJob(config, splits, place, "workers", workers, start=start, on_event=report)
    before = CheckpointStore(place / "checkpoints", warn=lambda _: None).newest()
    if before is not None:
        job.started -= before["seconds"]
        if before["metrics"]:
            ray.tune.report({**before["metrics"], **constants})
    job.run()


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
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
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
