"""The MLflow client retries calls while the server is unavailable."""

from types import SimpleNamespace

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from degrain.tracking.client import (
    RetryingClient,
    ServerUnavailableError,
    no_retry,
    retry,
)


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
