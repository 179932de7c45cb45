"""Runs in MLflow, with a server that becomes unavailable."""

from types import SimpleNamespace

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from degrain.tracking.client import RetryingClient, ServerUnavailableError
from degrain.tracking.config import TrackingConfig
from degrain.tracking.runs import Tracker


class UnavailableClient(MlflowClient):
    """A client whose server becomes unavailable before the run ends."""

    def __init__(self) -> None:
        pass

    def create_run(self, *_: object, **__: object) -> SimpleNamespace:  # type: ignore[override]
        return SimpleNamespace(info=SimpleNamespace(run_id="abc"))

    def set_terminated(self, *_: object, **__: object) -> None:
        raise MlflowException("unavailable")


@pytest.mark.parametrize(
    ("raised", "retries"),
    [
        (ValueError("mine"), True),
        (KeyboardInterrupt(), False),
        (ServerUnavailableError("lost"), False),
    ],
)
def test_an_error_in_a_run_propagates_if_the_server_is_unavailable(
    raised: BaseException, retries: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    delays: list[float] = []
    monkeypatch.setattr("tenacity.nap.time", SimpleNamespace(sleep=delays.append))

    def block() -> None:
        with Tracker(TrackingConfig(), RetryingClient(UnavailableClient()), "0").run(
            "name", "training"
        ):
            raise raised

    with pytest.raises(type(raised)) as caught:
        block()
    assert caught.value is raised
    assert bool(delays) == retries


def test_a_run_whose_status_cannot_be_set_raises_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tenacity.nap.time", SimpleNamespace(sleep=lambda _: None))

    def block() -> None:
        with Tracker(TrackingConfig(), RetryingClient(UnavailableClient()), "0").run(
            "name", "training"
        ):
            pass

    with pytest.raises(ServerUnavailableError, match="the MLflow store failed: unavailable"):
        block()
