"""Runs in MLflow: what holds whatever the store is."""

import signal
from types import SimpleNamespace

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from degrain.tracking import store
from degrain.tracking.config import TrackingConfig
from degrain.tracking.runs import Tracker, interrupts_deferred
from degrain.tracking.store import StoreLostError, patient


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_waits_for_the_end_of_the_block(how: signal.Signals) -> None:
    before = signal.getsignal(how)
    done: list[str] = []

    def block() -> None:
        with interrupts_deferred():
            signal.raise_signal(how)
            done.append("all of it")

    with pytest.raises(KeyboardInterrupt):
        block()
    assert done == ["all of it"]
    assert signal.getsignal(how) is before


def test_a_block_that_is_left_alone_raises_nothing() -> None:
    with interrupts_deferred():
        pass


class LostClient(MlflowClient):
    """Makes a run, and is lost before its end."""

    def __init__(self) -> None:
        pass

    def create_run(self, *_: object, **__: object) -> SimpleNamespace:  # type: ignore[override]
        return SimpleNamespace(info=SimpleNamespace(run_id="abc"))

    def set_terminated(self, *_: object, **__: object) -> None:
        raise MlflowException("away")


@pytest.mark.parametrize(
    ("raised", "waits"), [(ValueError("mine"), True), (KeyboardInterrupt(), False), (StoreLostError("lost"), False)]
)
def test_what_a_run_raises_is_not_hidden_by_a_lost_store(
    raised: BaseException, waits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(store, "time", SimpleNamespace(sleep=slept.append))

    def block() -> None:
        with Tracker(TrackingConfig(), patient(LostClient()), "0").run("name", "training"):
            raise raised

    with pytest.raises(type(raised)) as caught:
        block()
    assert caught.value is raised
    assert bool(slept) == waits


def test_a_run_that_cannot_be_marked_as_finished_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "time", SimpleNamespace(sleep=lambda _: None))

    def block() -> None:
        with Tracker(TrackingConfig(), patient(LostClient()), "0").run("name", "training"):
            pass

    with pytest.raises(StoreLostError, match="the MLflow store failed: away"):
        block()
