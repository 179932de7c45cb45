"""A trial that runs out of memory is started anew with half the batch, once."""

from pathlib import Path

import pytest

from degrain.errors import OutOfMemoryError
from degrain.storage.location import Storage
from degrain.training.config import TrainingConfig
from degrain.training.distributed.splits import TrainingSplits
from degrain.training.distributed.workers import WorkerRange, Workers
from degrain.training.session import Session
from degrain.tuning import trial_process as trial
from degrain.tuning.trial import Failed, Halved, Message, Task, message_of


class NoPatches:
    def patches(self) -> None:
        return None


class NoGroups:
    """No workers have been left, and none are listed."""

    def free(self, trial: int) -> None:
        pass

    def add(self, trial: int, group: object) -> None:
        pass


def run(
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    batch: int,
    fits: int,
    *,
    halved: bool = False,
    several: bool = False,
) -> tuple[list[int], list[Message | None]]:
    """Run a trial on a machine where batches of at most `fits` fit; returns batches, reports."""
    batches: list[int] = []
    reports: list[dict] = []

    def train(config: TrainingConfig, session: Session) -> None:
        batches.append(config.batch_size)
        if config.batch_size > fits:
            raise OutOfMemoryError("the GPU ran out of memory")

    class Job:
        """Stands for the training by several workers."""

        started = 0.0

        def __init__(self, config: TrainingConfig, *_: object, **__: object) -> None:
            self.config = config

        def run(self) -> None:
            train(self.config, None)  # type: ignore[arg-type]

    monkeypatch.setattr(trial, "train", train)
    monkeypatch.setattr(trial, "TrainingJob", Job)
    monkeypatch.setattr(trial.ray.tune, "report", reports.append)
    training = TrainingConfig(batch_size=batch).to_dict()
    task = Task(0, "trial-00", halved, 0, draw={}, training=training)
    body = trial.TrialBody(
        TrainingSplits(NoPatches(), NoPatches()),  # type: ignore[arg-type]
        {},
        Storage().locate(folder),
        Workers(workers=WorkerRange(2, 2) if several else WorkerRange(), cpus_per_worker=1),
        measures_speed=False,
        groups=NoGroups(),  # type: ignore[arg-type]
    )
    body(task.arguments())
    return batches, [message_of(report) for report in reports]


def test_a_batch_that_fits_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert run(monkeypatch, tmp_path, 8, 8) == ([8], [])


@pytest.mark.parametrize("several", [False, True])
def test_the_batch_is_halved_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, several: bool
) -> None:
    halved = run(monkeypatch, tmp_path, 8, 4, several=several)
    assert halved == ([8, 4], [Halved(4)])


@pytest.mark.parametrize(("batch", "fits", "halved"), [(8, 3, False), (1, 0, False), (4, 3, True)])
def test_a_trial_fails_with_its_reason_if_that_is_not_enough(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, batch: int, fits: int, *, halved: bool
) -> None:
    _, reports = run(monkeypatch, tmp_path, batch, fits, halved=halved)
    # It ends without an error, of which Tune would start it again.
    failed = reports[-1]
    assert isinstance(failed, Failed)
    assert "out of memory" in failed.error


def test_speed_is_measured_in_seconds_per_megapixel() -> None:
    assert trial.measure_speed(TrainingConfig(model="red10", arguments={"width": 2})) > 0
