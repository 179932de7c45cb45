"""The metric journal with a server that is unavailable or rejects calls."""

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from mlflow.entities import Metric

from degrain.errors import JobFailedError
from degrain.storage.location import Storage
from degrain.tracking import metric_journal as module
from degrain.tracking.client import ServerUnavailableError
from degrain.tracking.metric_journal import MetricJournal


class FakeRun:
    """Records metrics and files; unavailable while `down` is set."""

    id = "abc"

    def __init__(self) -> None:
        self.down = threading.Event()
        self.tried = threading.Semaphore(0)
        """Counts the failed attempts."""
        self.batches: list[list[Metric]] = []
        self.artifacts: list[str] = []

    @property
    def logged(self) -> list[Metric]:
        return [metric for batch in self.batches for metric in batch]

    def _check_available(self) -> None:
        if self.down.is_set():
            self.tried.release()
            raise ServerUnavailableError("the MLflow store failed")

    def log(self, metrics: Sequence[Metric]) -> None:
        self._check_available()
        self.batches.append(list(metrics))

    def files(self, contents: Mapping[str, bytes], folder: str) -> None:
        self._check_available()
        self.artifacts.extend(f"{folder}/{name}" for name in contents)


@pytest.fixture
def run() -> FakeRun:
    return FakeRun()


@pytest.fixture
def messages() -> list[str]:
    return []


@pytest.fixture
def make(run: FakeRun, messages: list[str], tmp_path: Path) -> Callable[..., MetricJournal]:
    def build(**options: object) -> MetricJournal:
        unsent = Storage().locate(tmp_path / "unsent")
        options = {"retry_delays_seconds": (0.01,), **options}
        return MetricJournal(run, unsent, messages.append, **options)

    return build


def saved_steps(folder: Path) -> list[int]:
    return [
        json.loads(line)["step"]
        for line in (folder / "unsent" / "abc" / "metrics.jsonl").read_text().splitlines()
    ]


def test_an_outage_loses_no_metrics_and_keeps_their_order_and_times(
    run: FakeRun, messages: list[str], make: Callable[..., MetricJournal]
) -> None:
    queued: list[tuple[float, float]] = []
    with make() as journal:
        journal.metrics({"loss": 1.0}, step=0)
        run.down.set()
        for step in range(1, 40):
            before = time.time()
            journal.metrics({"loss": 1.0 / step, "gap": float("nan")}, step=step)
            queued.append((before, time.time()))
            time.sleep(0.002)
        run.tried.acquire()
        run.tried.acquire()
        run.down.clear()
    assert [m.step for m in run.logged] == list(range(40))
    assert {m.key for m in run.logged} == {"loss"}
    for metric, (before, after) in zip(run.logged[1:], queued, strict=True):
        assert int(before * 1000) <= metric.timestamp <= after * 1000
    outage, recovery = messages
    assert outage.startswith("the MLflow server does not answer; training continues, ")
    assert recovery.startswith("the MLflow server answers again after 0 s; ")


def test_pending_metrics_are_sent_in_batches(
    run: FakeRun, make: Callable[..., MetricJournal]
) -> None:
    run.down.set()
    with make() as journal:
        for step in range(2500):
            journal.metrics({"loss": 0.5}, step)
        run.tried.acquire()
        run.tried.acquire()
        run.down.clear()
    # The first batch may be smaller: it was taken while metrics were being queued.
    assert len(run.batches) <= 4
    assert max(len(batch) for batch in run.batches) == 1000
    assert [m.step for m in run.logged] == list(range(2500))


def test_nothing_is_printed_while_the_server_answers(
    run: FakeRun, messages: list[str], make: Callable[..., MetricJournal]
) -> None:
    with make() as journal:
        journal.metrics({"loss": 1.0})
        journal.files({"a.png": b"picture"}, "samples")
    assert len(run.logged) == 1
    assert run.artifacts == ["samples/a.png"]
    assert messages == []


def test_retry_delays_grow_to_the_last_and_restart_after_a_success(
    run: FakeRun, make: Callable[..., MetricJournal]
) -> None:
    delays: list[float] = []
    journal = make(retry_delays_seconds=(1, 2, 4))

    def wait(seconds: float) -> bool:
        delays.append(seconds)
        if len(delays) in (5, 6):
            run.down.clear()
        return False

    journal._retry_now.wait = wait  # type: ignore[method-assign]
    run.down.set()
    with journal:
        journal.metrics({"loss": 1.0})
        while not run.batches:
            time.sleep(0.001)
        run.down.set()
        journal.metrics({"loss": 1.0})
    assert delays == [1, 2, 4, 4, 4, 1]


def test_the_end_of_the_block_ends_a_retry_delay_early(
    run: FakeRun, make: Callable[..., MetricJournal]
) -> None:
    run.down.set()
    with make(retry_delays_seconds=(10_000,)) as journal:
        journal.metrics({"loss": 1.0})
        run.tried.acquire()
        run.down.clear()
    assert len(run.logged) == 1


def test_ctrl_c_while_the_thread_starts_ends_the_thread(
    make: Callable[..., MetricJournal], monkeypatch: pytest.MonkeyPatch
) -> None:
    start, started = threading.Thread.start, list[threading.Thread]()

    def interrupted(thread: threading.Thread) -> None:
        start(thread)
        started.append(thread)
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt), make():
        pass
    (thread,) = started
    thread.join(60)
    assert not thread.is_alive()


def test_metrics_unsent_at_the_flush_timeout_are_saved_to_files_and_reported(
    run: FakeRun, messages: list[str], make: Callable[..., MetricJournal], tmp_path: Path
) -> None:
    run.down.set()
    before, began = time.time(), time.monotonic()

    def block() -> None:
        with make(flush_timeout_seconds=0.2) as journal:
            journal.metrics({"loss": 0.5, "psnr": 30.0}, step=7)
            journal.files({"a.png": b"picture"}, "samples")
            run.tried.acquire()

    with pytest.raises(ServerUnavailableError) as caught:
        block()
    assert time.monotonic() - began >= 0.2
    assert messages[1:] == [
        "waiting up to 0.2 s for the MLflow server: 2 metrics and 1 files pending"
    ]
    line = str(caught.value)
    assert line.startswith(
        "2 metrics and 1 files of run abc are not in MLflow, the server does not answer; they are "
        "saved in "
    )
    assert str(tmp_path / "unsent" / "abc") in line
    assert len(line.splitlines()) == 1
    folder = tmp_path / "unsent" / "abc"
    entries = [json.loads(entry) for entry in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [(e["key"], e["value"], e["step"]) for e in entries] == [
        ("loss", 0.5, 7),
        ("psnr", 30.0, 7),
    ]
    assert int(before * 1000) <= entries[0]["timestamp"] <= time.time() * 1000
    assert (folder / "samples" / "a.png").read_bytes() == b"picture"


def test_a_call_in_progress_does_not_delay_the_end_beyond_the_timeout(
    run: FakeRun, make: Callable[..., MetricJournal], tmp_path: Path
) -> None:
    in_progress, answer = threading.Event(), threading.Event()

    def hang(metrics: Sequence[Metric]) -> None:
        in_progress.set()
        answer.wait()

    run.log = hang  # type: ignore[method-assign]
    journal = make(flush_timeout_seconds=0.1)

    def block() -> None:
        with journal:
            journal.metrics({"loss": 0.5}, step=3)
            in_progress.wait()

    with pytest.raises(ServerUnavailableError):
        block()
    assert saved_steps(tmp_path) == [3]
    answer.set()
    journal._worker.result(timeout=300)


@pytest.mark.parametrize("raised", [ValueError("mine"), KeyboardInterrupt()])
def test_an_error_in_the_block_propagates_after_a_short_flush(
    raised: BaseException,
    run: FakeRun,
    messages: list[str],
    make: Callable[..., MetricJournal],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_FLUSH_AFTER_ERROR_SECONDS", 0.1)
    run.down.set()

    def block() -> None:
        with make(flush_timeout_seconds=10_000) as journal:
            journal.metrics({"loss": 0.5}, step=1)
            run.tried.acquire()
            raise raised

    with pytest.raises(type(raised)) as caught:
        block()
    assert caught.value is raised
    assert saved_steps(tmp_path) == [1]
    assert "they are saved in" in messages[-1]


def test_all_metrics_are_sent_after_an_error_in_the_block_if_the_server_answers(
    run: FakeRun, messages: list[str], make: Callable[..., MetricJournal]
) -> None:
    def block() -> None:
        with make() as journal:
            for step in range(100):
                journal.metrics({"loss": 0.5}, step)
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        block()
    assert len(run.logged) == 100
    assert messages == []


def test_an_interrupted_flush_saves_unsent_metrics_to_files(
    run: FakeRun,
    messages: list[str],
    make: Callable[..., MetricJournal],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "wait_for", interrupted)
    run.down.set()

    def block() -> None:
        with make() as journal:
            journal.metrics({"loss": 0.5}, step=4)

    with pytest.raises(KeyboardInterrupt):
        block()
    assert saved_steps(tmp_path) == [4]
    assert "they are saved in" in messages[-1]


def test_a_full_queue_keeps_the_newest_fifty_files(
    run: FakeRun, messages: list[str], make: Callable[..., MetricJournal]
) -> None:
    run.down.set()
    with make() as journal:
        for number in range(70):
            journal.files({f"{number}.png": b""}, "samples")
        journal.metrics({"loss": 0.5})
        run.tried.acquire()
        run.down.clear()
    assert run.artifacts == [f"samples/{number}.png" for number in range(20, 70)]
    assert len(run.logged) == 1


def test_rejected_metrics_are_saved_and_do_not_block_later_ones(
    run: FakeRun, messages: list[str], make: Callable[..., MetricJournal], tmp_path: Path
) -> None:
    accept = run.log

    def log(metrics: Sequence[Metric]) -> None:
        if metrics[0].step == 0:
            raise JobFailedError("no such run")
        accept(metrics)

    run.log = log  # type: ignore[method-assign]

    def block() -> None:
        with make() as journal:
            journal.metrics({"loss": 0.5}, step=0)
            while not messages:
                time.sleep(0.001)
            journal.metrics({"loss": 0.5}, step=1)

    with pytest.raises(
        JobFailedError,
        match="1 metrics of run abc are not in MLflow, it rejected them: no such run",
    ):
        block()
    assert messages == ["MLflow rejects metrics or files; training continues: no such run"]
    assert [m.step for m in run.logged] == [1]
    assert saved_steps(tmp_path) == [0]


def test_files_that_cannot_be_sent_do_not_block_metrics(
    run: FakeRun, messages: list[str], make: Callable[..., MetricJournal]
) -> None:
    unavailable = threading.Event()
    unavailable.set()

    def files(contents: Mapping[str, bytes], folder: str) -> None:
        if unavailable.is_set():
            raise ServerUnavailableError("no bucket")
        run.artifacts.extend(contents)

    run.files = files  # type: ignore[method-assign]
    with make() as journal:
        journal.files({"a.png": b""}, "samples")
        while not messages:
            time.sleep(0.001)
        journal.metrics({"loss": 0.5})
        while not run.logged:
            time.sleep(0.001)
        unavailable.clear()
    assert run.artifacts == ["a.png"]
    assert (
        messages[0]
        == "MLflow's artifact store does not answer; training continues, 0 metrics and 1 "
        "files pending"
    )


def test_an_unexpected_error_of_the_worker_is_raised_at_the_end(
    run: FakeRun, make: Callable[..., MetricJournal], tmp_path: Path
) -> None:
    def log(metrics: Sequence[Metric]) -> None:
        raise ZeroDivisionError

    run.log = log  # type: ignore[method-assign]

    def block() -> None:
        with make() as journal:
            journal.metrics({"loss": 0.5}, step=5)

    with pytest.raises(ZeroDivisionError):
        block()
    assert saved_steps(tmp_path) == [5]


def test_an_error_reports_that_unsent_metrics_cannot_be_saved(
    run: FakeRun, make: Callable[..., MetricJournal], tmp_path: Path
) -> None:
    (tmp_path / "unsent").write_text("a file")
    run.down.set()

    def block() -> None:
        with make(flush_timeout_seconds=0.05) as journal:
            journal.metrics({"loss": 0.5})

    with pytest.raises(JobFailedError, match=r"they are lost, because .* cannot be written"):
        block()
