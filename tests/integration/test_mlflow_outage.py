"""A real MLflow server, killed and started again while metrics are handed over."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from integration.support import MlflowServer, empty_store
from mlflow.entities import Metric

from degrain.storage.location import Storage
from degrain.tracking.config import TrackingConfig
from degrain.tracking.metric_journal import MetricJournal
from degrain.tracking.runs import Tracker

AWAY = range(15, 90)
"""Steps of training during which the server is away."""
AGAIN = "the MLflow server answers again after "


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    folder = tmp_path_factory.mktemp("mlflow")
    (folder / "mlflow.db").write_bytes(empty_store())
    made = MlflowServer(folder, f"sqlite:///{folder / 'mlflow.db'}", str(folder / "mlartifacts"))
    with made.running():
        yield made


@pytest.fixture
def tracker(server: MlflowServer, monkeypatch: pytest.MonkeyPatch) -> Tracker:
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", raising=False)
    return Tracker.open(TrackingConfig(tracking_uri=server.url), Storage())


@pytest.mark.soak
def test_metrics_of_an_outage_arrive_with_their_own_steps_and_times(
    server: MlflowServer, tracker: Tracker, tmp_path: Path
) -> None:
    said: list[str] = []
    handed: list[tuple[float, float]] = []
    with tracker.run("training", "training") as run:
        with MetricJournal(run, Storage().locate(tmp_path / "unsent"), said.append) as journal:
            # The server comes back after so many steps, not seconds: training does not wait for it.
            while len(handed) < AWAY.stop or not said[-1].startswith(AGAIN):
                step, before = len(handed), time.time()
                if step == AWAY.start:
                    server.kill()
                if step == AWAY.stop:
                    server.start()
                journal.metrics({"loss": 1 / (step + 1)}, step)
                handed.append((before, time.time()))
                if step % 20 == 0:
                    journal.files({f"{step:04}.png": b"picture"}, "samples")
                time.sleep(0.2)
        logged = tracker.client.get_metric_history(run.id, "loss")
        pictures = [file.path for file in tracker.client.list_artifacts(run.id, "samples")]
    logged.sort(key=lambda m: m.step)
    assert [m.step for m in logged] == list(range(len(handed)))
    for metric, (before, after) in zip(logged, handed, strict=True):
        assert int(before * 1000) <= metric.timestamp <= after * 1000
    assert [m.value for m in logged] == pytest.approx([1 / (m.step + 1) for m in logged])
    assert pictures == [f"samples/{step:04}.png" for step in range(0, len(handed), 20)]
    assert said[0].startswith("the MLflow server does not answer; training continues, ")
    assert said[-1].startswith(AGAIN)
    assert not (tmp_path / "unsent").exists()
    assert tracker.client.get_run(run.id).info.status == "FINISHED"


@pytest.mark.soak
def test_a_model_is_registered_though_the_server_is_away(
    server: MlflowServer, tracker: Tracker
) -> None:
    name = tracker.config.model
    with tracker.run("training", "training") as run:
        server.kill()
        later = threading.Timer(5, server.start)
        later.start()
        began = time.monotonic()
        run.files({"weights": b"weights"}, "model")
        assert time.monotonic() - began > 5
        later.join()
        server.kill()
        later = threading.Timer(5, server.start)
        later.start()
        tracker.client.create_registered_model(name)
        version = tracker.client.create_model_version(
            name, source=f"{run.artifact_uri}/model", run_id=run.id
        ).version
        run.log([Metric("loss", 0.5, 1234, 7)])
        later.join()
    assert [file.path for file in tracker.client.list_artifacts(run.id, "model")] == [
        "model/weights"
    ]
    assert tracker.client.get_model_version(name, version).run_id == run.id
    assert [(m.timestamp, m.step) for m in tracker.client.get_metric_history(run.id, "loss")] == [
        (1234, 7)
    ]
