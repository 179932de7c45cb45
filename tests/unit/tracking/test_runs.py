"""Runs in MLflow: what they log, and a server that becomes unavailable."""

from types import SimpleNamespace
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS
from mlflow.utils.validation import _validate_metric, _validate_param

from degrain.registry import versions as registry
from degrain.registry.versions import register
from degrain.storage.location import Storage
from degrain.tracking import runs as module
from degrain.tracking.client import RetryingClient, ServerUnavailableError
from degrain.tracking.config import TrackingConfig
from degrain.tracking.runs import Run, Tracker, stamped, valid_key


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


def test_bookkeeping_and_infinite_values_are_not_logged() -> None:
    values = {"step": 3.0, "progress": 50.0, "seconds_left": 9.0, "val_psnr": 31.0, "seconds": 2.5}
    logged = stamped({**values, "train_loss": float("inf")}, step=3)
    assert {metric.key: metric.value for metric in logged} == {"val_psnr": 31.0, "seconds": 2.5}


def test_scores_are_logged_first() -> None:
    values = {"train_loss": 0.1, "seconds": 2.5, "val_psnr": 31.0, "val_ssim": 0.8, "workers": 1.0}
    logged = [metric.key for metric in stamped(values, step=3)]
    assert logged == ["val_psnr", "val_ssim", "train_loss", "seconds", "workers"]


def test_metrics_have_their_step() -> None:
    logged = stamped({"val_psnr": 31.0}, step=3)
    assert {metric.step for metric in logged} == {3}


class RecordingClient:
    """Records the tags and statuses of a run, and has an experiment with `kind`."""

    def __init__(self, kind: str | None = None) -> None:
        self.tags: dict[str, str] = {}
        self.statuses: list[str] = []
        self.experiment_tags = {} if kind is None else {"mlflow.experimentKind": kind}

    def create_run(self, *_: object, tags: dict[str, str], **__: object) -> SimpleNamespace:
        self.tags.update(tags)
        return SimpleNamespace(info=SimpleNamespace(run_id="abc"))

    def log_batch(self, _: str, tags: list[Any]) -> None:
        self.tags.update({tag.key: tag.value for tag in tags})

    def set_terminated(self, _: str, status: str) -> None:
        self.statuses.append(status)

    def get_experiment_by_name(self, _: str) -> SimpleNamespace:
        return SimpleNamespace(
            lifecycle_stage="active", experiment_id="1", tags=dict(self.experiment_tags)
        )

    def set_experiment_tag(self, _: str, key: str, value: str) -> None:
        self.experiment_tags[key] = value


def described(run: Run, client: RecordingClient) -> str:
    run.add_note("Second.")
    return client.tags["mlflow.note.content"]


def test_the_description_grows_by_sentences() -> None:
    client: Any = RecordingClient()
    with Tracker(TrackingConfig(), client, "0").run("name", "training") as run:
        run.add_note("First.")
        assert described(run, client) == "First. Second."
    assert client.statuses == ["FINISHED"]


@pytest.mark.parametrize(
    ("error", "status", "note"),
    [
        (ValueError("no\nroom"), "FAILED", "Training. It failed: no room"),
        (KeyboardInterrupt(), "KILLED", "Training. It was interrupted."),
    ],
)
def test_the_description_of_a_run_that_failed_names_the_reason(
    error: BaseException, status: str, note: str
) -> None:
    client: Any = RecordingClient()

    def block() -> None:
        with Tracker(TrackingConfig(), client, "0").run("name", "training") as run:
            run.add_note("Training.")
            raise error

    with pytest.raises(type(error)):
        block()
    assert client.statuses == [status]
    assert client.tags["mlflow.note.content"] == note


def test_a_run_names_its_command_and_its_user() -> None:
    client: Any = RecordingClient()
    Tracker(TrackingConfig(), client, "0").start("name", "training")
    assert {"mlflow.source.name", "mlflow.source.type", "mlflow.user"} <= set(client.tags)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, "custom_model_development"),
        ("no_inferred_type", "custom_model_development"),
        ("genai_development_inferred", "custom_model_development"),
        ("genai_development", "genai_development"),
    ],
)
def test_an_experiment_opens_for_model_training_unless_its_user_chose(
    before: str | None, after: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client: Any = RecordingClient(before)
    monkeypatch.setattr("degrain.tracking.runs.connect", lambda *_: client)
    Tracker.open(TrackingConfig(), Storage())
    assert client.experiment_tags == {"mlflow.experimentKind": after}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("val_psnr", "val_psnr"),
        ("arguments.width", "arguments.width"),
        ("test_psnr.degrain-denoiser v3", "test_psnr.degrain-denoiser v3"),
        ("test_psnr..././m", "test_psnr.../m"),
        ("test_psnr.../../models//m", "test_psnr.../models/m"),
        ("test_psnr./data/m", "test_psnr./data/m"),
        ("../m", "m"),
        ("test_psnr.models:/m@champion", "test_psnr.models-/m-champion"),
        (f"test_psnr.{'long/' * 90}m", None),
    ],
)
def test_names_become_ones_that_mlflow_accepts(name: str, expected: str | None) -> None:
    key = valid_key(name)
    _validate_metric(key, 1.0, 1, 0)
    _validate_param(key, "value")
    if expected is None:
        assert key.startswith("test_psnr.long/")
        assert key.endswith("/long/m")
    else:
        assert key == expected
    assert [metric.key for metric in stamped({name: 1.0}, 0)] == [key]


class CrowdedClient:
    """A client before which another job creates each thing."""

    def __init__(self) -> None:
        self.created: list[str] = []

    def get_experiment_by_name(self, name: str) -> SimpleNamespace | None:
        if name not in self.created:
            return None
        tags = {"mlflow.experimentKind": "custom_model_development"}
        return SimpleNamespace(experiment_id="7", lifecycle_stage="active", tags=tags)

    def create_experiment(self, name: str, **_: object) -> str:
        return self._create(name)

    def create_registered_model(self, name: str) -> str:
        return self._create(name)

    def search_model_versions(self, _: str) -> list[object]:
        return []

    def create_model_version(self, name: str, **_: object) -> SimpleNamespace:
        assert name in self.created
        return SimpleNamespace(version="2")

    def _create(self, name: str) -> str:
        self.created.append(name)
        raise MlflowException(f"{name} already exists", error_code=RESOURCE_ALREADY_EXISTS)


def test_what_another_job_creates_at_the_same_time_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    client: Any = CrowdedClient()
    monkeypatch.setattr(module, "connect", lambda *_: client)
    tracker = Tracker.open(TrackingConfig(tracking_uri="http://server"), Storage())
    assert tracker.experiment_id == "7"
    monkeypatch.setattr(registry, "log_model", lambda *_: "digest")
    run: Any = SimpleNamespace(id="run", artifact_uri="mlflow-artifacts:/1")
    card: Any = SimpleNamespace(scores={}, model="red10")
    monkeypatch.setattr(registry, "provenance_tags", lambda _: {})
    assert register(tracker, run, {}, card).version == "2"
