"""What a user sees of a run, made of the letters of its workers."""

from collections.abc import Mapping

import pytest

from degrain.training.mailbox import Began, Letter, Progress, Rescued, Validated, Warned
from degrain.training.watch import Watch, duration

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
    """Keeps what is said, and is the log as well."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.shown: list[str] = []
        self.logged: list[tuple[int, dict[str, float]]] = []
        self.stored: list[tuple[str, dict[str, bytes]]] = []

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        self.logged.append((step, dict(values)))

    def files(self, contents: Mapping[str, bytes], folder: str) -> None:
        self.stored.append((folder, dict(contents)))


def told(*letters: Letter) -> Screen:
    screen = Screen()
    watch = Watch(400, screen, say=screen.said.append, status=screen.shown.append)
    for letter in letters:
        watch(letter)
    return screen


PACE = "  step 40/400  loss 0.01235  123 patches/s  data 1.2%  512 MiB  13 min left"


def test_progress_is_shown_and_logged() -> None:
    screen = told(Progress(METRICS))
    assert screen.shown == [PACE]
    assert screen.said == []
    assert screen.logged == [(40, METRICS)]


def test_a_validation_is_a_line_that_stays_a_point_and_a_picture() -> None:
    screen = told(Validated({**METRICS, "val_psnr": 31.256, "val_ssim": 0.8123}, b"png"))
    assert screen.said == [f"{PACE}  val PSNR 31.26 dB, SSIM 0.812"]
    assert screen.logged == [(40, {"val_psnr": 31.256, "val_ssim": 0.8123})]
    assert screen.stored == [("samples", {"step-00000040.png": b"png"})]


def test_a_run_that_simply_begins_says_nothing_of_it() -> None:
    assert told(Began(0, 2)).said == []


def test_a_run_says_where_it_goes_on() -> None:
    assert told(Began(60, 1)).said == ["  resumed from step 60 with 1 worker"]
    assert told(Began(0, 2), Began(0, 2)).said == ["  training goes on from step 0 with 2 workers"]
    assert told(Began(60, 2), Began(80, 3)).said[1] == "  training goes on from step 80 with 3 workers"


def test_warnings_and_rescues_are_told() -> None:
    assert told(Warned("no room"), Rescued(7)).said == [
        "  warning: no room",
        "  checkpoint written at step 7, before the workers go",
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (89, "89 s"), (91, "2 min"), (3500, "58 min"), (90061, "25 h 1 min")],
)
def test_times_are_as_a_user_reads_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text
