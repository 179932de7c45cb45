"""A run's lines on the screen and its logged metrics, from its workers' events."""

from collections.abc import Mapping

import pytest

from degrain.monitoring import Metric, TrainingGauges
from degrain.training.distributed.events import (
    PreemptionCheckpoint,
    Progress,
    Started,
    ValidationEvent,
    WarningEvent,
    WorkerEvent,
)
from degrain.training.distributed.progress_log import ProgressLog, duration

METRICS = {
    "step": 40.0,
    "train_loss": 0.0123456,
    "patches_per_second": 123.4,
    "data_wait_share": 0.0123,
    "worker_memory_mib": 511.6,
    "seconds_left": 754.0,
    "workers": 2.0,
}


class Screen:
    """Records printed lines, status lines, metrics and files."""

    def __init__(self) -> None:
        self.printed: list[str] = []
        self.shown: list[str] = []
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.stored: list[tuple[str, dict[str, bytes]]] = []

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        self.logged.append((step, dict(values)))

    def files(self, contents: Mapping[str, bytes], folder: str) -> None:
        self.stored.append((folder, dict(contents)))


def screen_after(*events: WorkerEvent) -> Screen:
    screen = Screen()
    progress_log = ProgressLog(
        400,
        screen,
        TrainingGauges("red10", "quiet-run"),
        log=screen.printed.append,
        status=screen.shown.append,
    )
    for event in events:
        progress_log(event)
    return screen


PROGRESS = "  step 40/400  loss 0.01235  123 patches/s  data 1.2%  512 MiB  13 min left"


def test_progress_is_shown_and_logged() -> None:
    screen = screen_after(Progress(METRICS))
    assert screen.shown == [PROGRESS]
    assert screen.printed == []
    assert screen.logged == [(40, METRICS)]


def test_a_validation_is_printed_and_logged_with_sample_crops() -> None:
    screen = screen_after(
        ValidationEvent({**METRICS, "val_psnr": 31.256, "val_ssim": 0.8123}, b"png")
    )
    assert screen.printed == [f"{PROGRESS}  val PSNR 31.26 dB, SSIM 0.812"]
    assert screen.logged == [(40, {"val_psnr": 31.256, "val_ssim": 0.8123})]
    assert screen.stored == [("samples", {"step-00000040.png": b"png"})]


def test_progress_and_validations_set_the_gauges(monkeypatch: pytest.MonkeyPatch) -> None:
    values: dict[str, float] = {}

    def record(metric: Metric, value: float, labels: Mapping[str, str]) -> None:
        assert labels == {"model": "red10", "run": "quiet-run"}
        values[metric.name] = value

    monkeypatch.setattr("degrain.monitoring._set", record)
    validation = {**METRICS, "val_psnr": 31.25, "val_ssim": 0.8}
    screen_after(Progress(METRICS), ValidationEvent(validation, b"png"))
    assert values == {
        "degrain_patches_per_second": 123.4,
        "degrain_data_wait_share": 0.0123,
        "degrain_train_loss": 0.0123456,
        "degrain_val_psnr_db": 31.25,
        "degrain_val_ssim": 0.8,
    }


def test_the_start_of_a_new_run_prints_nothing() -> None:
    assert screen_after(Started(0, 2)).printed == []


def test_a_resumed_run_prints_its_step_and_workers() -> None:
    assert screen_after(Started(60, 1)).printed == ["  resumed from step 60 with 1 worker"]
    assert screen_after(Started(0, 2), Started(0, 2)).printed == [
        "  training continues from step 0 with 2 workers"
    ]
    assert (
        screen_after(Started(60, 2), Started(80, 3)).printed[1]
        == "  training continues from step 80 with 3 workers"
    )


def test_warnings_and_preemption_checkpoints_are_printed() -> None:
    assert screen_after(WarningEvent("no room"), PreemptionCheckpoint(7)).printed == [
        "  warning: no room",
        "  checkpoint written at step 7, before the workers end",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (89, "89 s"), (91, "2 min"), (3500, "58 min"), (90061, "25 h 1 min")],
)
def test_durations_have_readable_units(seconds: float, text: str) -> None:
    assert duration(seconds) == text
