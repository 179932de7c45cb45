"""The outbox, before a store that fails for a while, for ever, or refuses."""

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException

from degrain.errors import JobFailedError
from degrain.storage import Storage
from degrain.tracking import outbox as module
from degrain.tracking import store
from degrain.tracking.outbox import Outbox
from degrain.tracking.store import StoreLostError, at_once, patient, patiently


class FakeRun:
    """Takes what is logged, unless it is down."""

    id = "abc"

    def __init__(self) -> None:
        self.down = threading.Event()
        self.tried = threading.Semaphore(0)
        """Counts the tries that failed."""
        self.batches: list[list[Metric]] = []
        self.artifacts: list[str] = []

    @property
    def logged(self) -> list[Metric]:
        return [metric for batch in self.batches for metric in batch]

    def _take(self) -> None:
        if self.down.is_set():
            self.tried.release()
            raise StoreLostError("the MLflow store failed")

    def log(self, metrics: Sequence[Metric]) -> None:
        self._take()
        self.batches.append(list(metrics))

    def files(self, contents: Mapping[str, bytes], folder: str) -> None:
        self._take()
        self.artifacts.extend(f"{folder}/{name}" for name in contents)


@pytest.fixture
def run() -> FakeRun:
    return FakeRun()


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def make(run: FakeRun, said: list[str], tmp_path: Path) -> Callable[..., Outbox]:
    def build(**options: object) -> Outbox:
        kept = Storage().locate(tmp_path / "unsent")
        return Outbox(run, kept, said.append, **{"pauses_seconds": (0.01,), **options})

    return build


def kept_steps(folder: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (folder / "unsent" / "abc" / "metrics.jsonl").read_text().splitlines()]


def test_nothing_is_lost_and_order_and_times_are_kept_when_the_store_is_away(
    run: FakeRun, said: list[str], make: Callable[..., Outbox]
) -> None:
    handed: list[float] = []
    with make() as outbox:
        outbox.metrics({"loss": 1.0}, step=0)
        run.down.set()
        for step in range(1, 40):
            handed.append(time.time() * 1000)
            outbox.metrics({"loss": 1.0 / step, "gap": float("nan")}, step=step)
            time.sleep(0.002)
        run.tried.acquire()
        run.tried.acquire()
        recovered = time.time() * 1000
        run.down.clear()
    assert [m.step for m in run.logged] == list(range(40))
    assert {m.key for m in run.logged} == {"loss"}
    assert all(-1 <= m.timestamp - at <= 50 for m, at in zip(run.logged[1:], handed, strict=True))
    assert run.logged[1].timestamp < recovered - 50
    lost, back = said
    assert lost.startswith("the MLflow server does not answer; training goes on, ")
    assert back.startswith("the MLflow server is back after 0 s; ")


def test_what_waits_goes_in_few_calls(run: FakeRun, make: Callable[..., Outbox]) -> None:
    run.down.set()
    with make() as outbox:
        for step in range(2500):
            outbox.metrics({"loss": 0.5}, step)
        run.tried.acquire()
        run.tried.acquire()
        run.down.clear()
    # The first, smaller, may have been chosen before the rest was there.
    assert len(run.batches) <= 4
    assert max(len(batch) for batch in run.batches) == 1000
    assert [m.step for m in run.logged] == list(range(2500))


def test_a_store_that_answers_is_not_spoken_of(run: FakeRun, said: list[str], make: Callable[..., Outbox]) -> None:
    with make() as outbox:
        outbox.metrics({"loss": 1.0})
        outbox.files({"a.png": b"picture"}, "samples")
    assert len(run.logged) == 1
    assert run.artifacts == ["samples/a.png"]
    assert said == []


def test_pauses_grow_to_the_last_and_start_anew(run: FakeRun, make: Callable[..., Outbox]) -> None:
    asked: list[float] = []
    outbox = make(pauses_seconds=(1, 2, 4))

    def pause(seconds: float) -> bool:
        asked.append(seconds)
        if len(asked) in (5, 6):
            run.down.clear()
        return False

    outbox._hurry.wait = pause  # type: ignore[method-assign]
    run.down.set()
    with outbox:
        outbox.metrics({"loss": 1.0})
        while not run.batches:
            time.sleep(0.001)
        run.down.set()
        outbox.metrics({"loss": 1.0})
    assert asked == [1, 2, 4, 4, 4, 1]


def test_the_end_of_the_block_cuts_a_pause_short(run: FakeRun, make: Callable[..., Outbox]) -> None:
    run.down.set()
    began = time.monotonic()
    with make(pauses_seconds=(60,)) as outbox:
        outbox.metrics({"loss": 1.0})
        run.tried.acquire()
        run.down.clear()
    assert len(run.logged) == 1
    assert time.monotonic() - began < 5


def test_patience_at_the_end_is_said_and_what_is_left_is_kept(
    run: FakeRun, said: list[str], make: Callable[..., Outbox], tmp_path: Path
) -> None:
    run.down.set()
    began = time.monotonic()

    def block() -> None:
        with make(patience_seconds=0.2) as outbox:
            outbox.metrics({"loss": 0.5, "psnr": 30.0}, step=7)
            outbox.files({"a.png": b"picture"}, "samples")
            run.tried.acquire()

    with pytest.raises(StoreLostError) as caught:
        block()
    assert 0.2 <= time.monotonic() - began < 1
    assert said[1:] == ["waiting up to 0.2 s for the MLflow server: 2 metrics and 1 files wait"]
    line = str(caught.value)
    assert line.startswith(
        "2 metrics and 1 files of run abc are not in MLflow, the server does not answer; they are kept in "
    )
    assert str(tmp_path / "unsent" / "abc") in line
    assert len(line.splitlines()) == 1
    folder = tmp_path / "unsent" / "abc"
    entries = [json.loads(entry) for entry in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [(e["key"], e["value"], e["step"]) for e in entries] == [("loss", 0.5, 7), ("psnr", 30.0, 7)]
    assert abs(entries[0]["timestamp"] / 1000 - time.time()) < 5
    assert (folder / "samples" / "a.png").read_bytes() == b"picture"


def test_a_call_under_way_at_the_end_is_not_waited_for(run: FakeRun, make: Callable[..., Outbox], tmp_path: Path) -> None:
    under_way, answer = threading.Event(), threading.Event()

    def hang(metrics: Sequence[Metric]) -> None:
        under_way.set()
        answer.wait(10)

    run.log = hang  # type: ignore[method-assign]
    outbox = make(patience_seconds=0.1)

    def block() -> None:
        with outbox:
            outbox.metrics({"loss": 0.5}, step=3)
            under_way.wait(10)

    began = time.monotonic()
    with pytest.raises(StoreLostError):
        block()
    assert time.monotonic() - began < 5
    assert kept_steps(tmp_path) == [3]
    answer.set()
    outbox._working.result(timeout=10)


@pytest.mark.parametrize("raised", [ValueError("mine"), KeyboardInterrupt()])
def test_what_the_block_raises_is_raised_on_after_a_short_wait(
    raised: BaseException,
    run: FakeRun,
    said: list[str],
    make: Callable[..., Outbox],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_HASTY_SECONDS", 0.1)
    run.down.set()

    def block() -> None:
        with make() as outbox:
            outbox.metrics({"loss": 0.5}, step=1)
            run.tried.acquire()
            raise raised

    began = time.monotonic()
    with pytest.raises(type(raised)) as caught:
        block()
    assert caught.value is raised
    assert time.monotonic() - began < 2
    assert kept_steps(tmp_path) == [1]
    assert "they are kept in" in said[-1]


def test_what_the_block_raises_leaves_nothing_unsent_if_the_store_answers(
    run: FakeRun, said: list[str], make: Callable[..., Outbox]
) -> None:
    def block() -> None:
        with make() as outbox:
            for step in range(100):
                outbox.metrics({"loss": 0.5}, step)
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        block()
    assert len(run.logged) == 100
    assert said == []


def test_an_interrupt_of_the_last_wait_keeps_what_is_left(
    run: FakeRun, said: list[str], make: Callable[..., Outbox], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "wait_for", interrupted)
    run.down.set()

    def block() -> None:
        with make() as outbox:
            outbox.metrics({"loss": 0.5}, step=4)

    with pytest.raises(KeyboardInterrupt):
        block()
    assert kept_steps(tmp_path) == [4]
    assert "they are kept in" in said[-1]


def test_the_newest_fifty_files_wait(run: FakeRun, said: list[str], make: Callable[..., Outbox]) -> None:
    run.down.set()
    with make() as outbox:
        for number in range(70):
            outbox.files({f"{number}.png": b""}, "samples")
        outbox.metrics({"loss": 0.5})
        run.tried.acquire()
        run.down.clear()
    assert run.artifacts == [f"samples/{number}.png" for number in range(20, 70)]
    assert len(run.logged) == 1


def test_what_is_refused_holds_up_nothing_and_is_kept(
    run: FakeRun, said: list[str], make: Callable[..., Outbox], tmp_path: Path
) -> None:
    take = run.log

    def log(metrics: Sequence[Metric]) -> None:
        if metrics[0].step == 0:
            raise JobFailedError("no such run")
        take(metrics)

    run.log = log  # type: ignore[method-assign]

    def block() -> None:
        with make() as outbox:
            outbox.metrics({"loss": 0.5}, step=0)
            while not said:
                time.sleep(0.001)
            outbox.metrics({"loss": 0.5}, step=1)

    with pytest.raises(JobFailedError, match="1 metrics of run abc are not in MLflow, it refused them: no such run"):
        block()
    assert said == ["MLflow refuses what is logged; training goes on: no such run"]
    assert [m.step for m in run.logged] == [1]
    assert kept_steps(tmp_path) == [0]


def test_files_that_cannot_go_hold_up_no_metrics(run: FakeRun, said: list[str], make: Callable[..., Outbox]) -> None:
    away = threading.Event()
    away.set()

    def files(contents: Mapping[str, bytes], folder: str) -> None:
        if away.is_set():
            raise StoreLostError("no bucket")
        run.artifacts.extend(contents)

    run.files = files  # type: ignore[method-assign]
    with make() as outbox:
        outbox.files({"a.png": b""}, "samples")
        while not said:
            time.sleep(0.001)
        outbox.metrics({"loss": 0.5})
        while not run.logged:
            time.sleep(0.001)
        away.clear()
    assert run.artifacts == ["a.png"]
    assert said[0] == "MLflow's store of artifacts does not answer; training goes on, 0 metrics and 1 files wait"


def test_an_error_nobody_foresaw_comes_out_at_the_end(run: FakeRun, make: Callable[..., Outbox], tmp_path: Path) -> None:
    def log(metrics: Sequence[Metric]) -> None:
        raise ZeroDivisionError

    run.log = log  # type: ignore[method-assign]

    def block() -> None:
        with make() as outbox:
            outbox.metrics({"loss": 0.5}, step=5)

    with pytest.raises(ZeroDivisionError):
        block()
    assert kept_steps(tmp_path) == [5]


def test_a_place_that_cannot_be_written_is_told(run: FakeRun, make: Callable[..., Outbox], tmp_path: Path) -> None:
    (tmp_path / "unsent").write_text("a file")
    run.down.set()

    def block() -> None:
        with make(patience_seconds=0.05) as outbox:
            outbox.metrics({"loss": 0.5})

    with pytest.raises(JobFailedError, match="nor can they be written"):
        block()


class FakeClient:
    """Fails as MLflow does, so many times."""

    def __init__(self, failures: int, code: str) -> None:
        self.failures = failures
        self.code = code

    def get_run(self, name: str) -> str:
        self.failures -= 1
        if self.failures >= 0:
            error = MlflowException("away")
            error.error_code = self.code
            raise error
        return f"run {name}"


def patient_fake(failures: int, code: str = "INTERNAL_ERROR") -> MlflowClient:
    return patient(FakeClient(failures, code))  # type: ignore[arg-type]


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    pauses: list[float] = []
    monkeypatch.setattr(store, "time", SimpleNamespace(sleep=pauses.append))
    return pauses


def test_a_patient_client_outlasts_more_than_a_minute(slept: list[float]) -> None:
    assert patient_fake(8).get_run("a") == "run a"
    assert slept == [1, 2, 4, 8, 15, 15, 15, 15]
    assert sum(slept) > 60


def test_patience_ends(slept: list[float]) -> None:
    with pytest.raises(StoreLostError, match="the MLflow store failed: away; make sure"):
        patient_fake(1000).get_run("a")
    assert 100 < sum(slept) <= 120


def test_a_refusal_is_final(slept: list[float]) -> None:
    with pytest.raises(MlflowException, match="away"):
        patient_fake(1, "RESOURCE_DOES_NOT_EXIST").get_run("a")
    assert slept == []


def test_in_a_hurry_nothing_is_tried_again(slept: list[float]) -> None:
    with at_once(), pytest.raises(StoreLostError):
        patient_fake(1).get_run("a")
    assert slept == []
    with at_once(hurried=False):
        assert patient_fake(1).get_run("a") == "run a"
    assert patiently(lambda: 3) == 3
