"""The MLflow client retries calls while the server is unavailable."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from degrain.storage.location import Storage
from degrain.tracking import client as module
from degrain.tracking.client import (
    RetryingClient,
    ServerUnavailableError,
    connect,
    no_retry,
    retry,
)
from degrain.tracking.config import TrackingConfig


class FakeClient:
    """Raises MLflow's error `code` in its first `failures` calls."""

    def __init__(self, failures: int, code: str) -> None:
        self.failures = failures
        self.code = code

    def get_run(self, name: str) -> str:
        self.failures -= 1
        if self.failures >= 0:
            error = MlflowException("unavailable")
            error.error_code = self.code
            raise error
        return f"run {name}"


def fake(failures: int, code: str = "INTERNAL_ERROR") -> MlflowClient:
    return RetryingClient(FakeClient(failures, code))  # type: ignore[arg-type]


@pytest.fixture
def delays(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    recorded: list[float] = []
    monkeypatch.setattr("tenacity.nap.time", SimpleNamespace(sleep=recorded.append))
    return recorded


def test_calls_are_retried_for_more_than_a_minute(delays: list[float]) -> None:
    assert fake(8).get_run("a") == "run a"
    assert delays == [1, 2, 4, 8, 15, 15, 15, 15]
    assert sum(delays) > 60


def test_retries_end_after_two_minutes(delays: list[float]) -> None:
    with pytest.raises(
        ServerUnavailableError, match="the MLflow store failed: unavailable; check the server"
    ):
        fake(1000).get_run("a")
    assert 100 < sum(delays) <= 120


def test_a_rejected_call_is_not_retried(delays: list[float]) -> None:
    with pytest.raises(MlflowException, match="unavailable"):
        fake(1, "RESOURCE_DOES_NOT_EXIST").get_run("a")
    assert delays == []


def test_no_retry_disables_retries(delays: list[float]) -> None:
    with no_retry(), pytest.raises(ServerUnavailableError):
        fake(1).get_run("a")
    assert delays == []
    with no_retry(enabled=False):
        assert fake(1).get_run("a") == "run a"
    assert retry(lambda: 3) == 3


def embedded(folder: Path) -> TrackingConfig:
    return TrackingConfig(tracking_uri=f"sqlite:///{folder}/mlflow.db")


def change_creation(patch: pytest.MonkeyPatch, before: Callable[[], None]) -> None:
    """Have `before` called while a store is created."""
    real = module.SqlAlchemyStore

    def create(*arguments: str) -> object:
        made = real(*arguments)
        before()
        return made

    patch.setattr(module, "SqlAlchemyStore", create)


def test_an_interrupted_creation_leaves_no_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    change_creation(monkeypatch, interrupt)
    with pytest.raises(KeyboardInterrupt):
        connect(embedded(tmp_path), Storage())
    assert list(tmp_path.iterdir()) == []


def test_of_two_processes_that_create_a_store_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow's own creation by two processes at once leaves a store that neither can use."""
    code = (
        "import sys; from degrain.storage.location import Storage; "
        "from degrain.tracking.client import connect; "
        "from degrain.tracking.config import TrackingConfig; "
        "connect(TrackingConfig(tracking_uri=sys.argv[1]), Storage()).create_experiment('other')"
    )
    config = embedded(tmp_path)

    def other() -> None:
        subprocess.run([sys.executable, "-c", code, config.tracking_uri], check=True)

    change_creation(monkeypatch, other)
    client = connect(config, Storage())
    assert client.get_experiment_by_name("other")
    assert [path.name for path in tmp_path.iterdir()] == ["mlflow.db"]
