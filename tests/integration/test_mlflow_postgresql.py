"""A study of four trials with an MLflow server on PostgreSQL and artifacts in a bucket."""

import contextlib
import json
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from integration.support import (
    NO_GATES,
    SCENES,
    TEMPLATES,
    MlflowServer,
    start_pipeline,
    write_pairs,
)
from mlflow import MlflowClient
from mlflow.entities import Run
from postgresql_server import postgresql, programs, uri
from programs import needs

from degrain.registry.versions import load_registered
from degrain.storage.location import Storage
from degrain.tracking.client import connect
from degrain.tracking.config import load_tracking_config
from degrain.tuning.state import StudyState, read_state

pytestmark = [
    pytest.mark.ray,
    needs(programs(), "postgresql"),
]
TRIALS, STEPS = 4, 8


@pytest.fixture
def server(bucket: str, tmp_path: Path) -> Iterator[MlflowServer]:
    """An MLflow server on PostgreSQL that stores artifacts in the bucket."""
    pytest.importorskip("psycopg2", reason="PostgreSQL needs psycopg2-binary")
    with postgresql() as port:
        made = MlflowServer(tmp_path, uri(port), f"s3://{bucket}/artifacts")
        with made.running():
            yield made


@dataclass(frozen=True)
class Study:
    """A finished study and what MLflow has of it."""

    state: StudyState
    client: MlflowClient

    def run(self, run_id: str | None) -> Run:
        assert run_id is not None
        return self.client.get_run(run_id)

    def points(self, run: Run, metric: str) -> list[tuple[int, float]]:
        """Step and value of each point of a metric, by step."""
        history = self.client.get_metric_history(run.info.run_id, metric)
        return sorted((point.step, point.value) for point in history)


@pytest.fixture
def study(server: MlflowServer, tmp_path: Path) -> Study:
    """A study of up to four trials at once, of a retraining, which ingests the photos as well."""
    corpus = write_pairs(tmp_path / "photos", SCENES)
    tracking = tmp_path / "mlflow.yaml"
    tracking.write_text(f"tracking_uri: {server.url}\npromotion: {NO_GATES}\n")
    options = ["--corpus", f"pairs={corpus}", *TEMPLATES, "--patch-size", 32]
    options += ["--out", tmp_path / "patches", "--studies", tmp_path / "studies"]
    options += ["--mlflow", tracking, "--models", "red10", "--trials", TRIALS]
    options += ["--steps", STEPS, "--refit-steps", 3, "--batch-size", 2, "--crop", 24]
    # A cluster of its own, with more CPUs than the machine may have.
    cpus = {"RAY_OVERRIDE_RESOURCES": json.dumps({"CPU": TRIALS})}
    process = start_pipeline("retrain", options, cpus, tmp_path)
    try:
        _, errors = process.communicate()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, errors
    storage = Storage.from_environment()
    (file,) = (tmp_path / "studies").rglob("study.json")
    state = read_state(storage.locate(file.parent.parent), file.parent.name)
    return Study(state, connect(load_tracking_config(tracking), storage))


@pytest.mark.soak
def test_a_study_of_four_trials_is_complete_in_postgresql_and_s3(study: Study, bucket: str) -> None:
    trials = study.state.in_order()
    assert len(trials) == TRIALS
    runs = [study.run(trial.run_id) for trial in trials]
    assert len({run.info.run_id for run in runs}) == TRIALS
    for trial, run in zip(trials, runs, strict=True):
        curve = [(round(progress * STEPS / 100), score) for progress, score in trial.curve]
        assert curve
        assert study.points(run, "val_psnr") == curve
        assert {"val_ssim", "train_loss", "learning_rate", "seconds"} <= set(run.data.metrics)
        for metric in run.data.metrics:
            assert [step for step, _ in study.points(run, metric)] == [step for step, _ in curve]
        expected = {**trial.config.tracked_parameters(), "parameters": trial.parameters}
        assert {name: run.data.params[name] for name in flat(expected)} == flat(expected)

    refit = study.run(study.state.refits["refit-red10"])
    assert [step for step, _ in study.points(refit, "val_psnr")] == [1, 2, 3]
    (version,) = study.client.search_model_versions("name='degrain-denoiser'")
    assert version.run_id == refit.info.run_id
    denoiser, card = load_registered(study.client, "models:/degrain-denoiser@champion")
    assert card.model == "red10"
    assert denoiser.parameters == int(refit.data.params["parameters"])
    stored = Storage.from_environment().locate(f"s3://{bucket}/artifacts").files()
    assert any(name.endswith("model/weights.safetensors") for name in stored)


def flat(values: dict[str, object], prefix: str = "") -> dict[str, str]:
    """The parameters as MLflow has them: text, nested ones as `outer.inner`."""
    found: dict[str, str] = {}
    for name, value in values.items():
        nested = flat(value, f"{prefix}{name}.") if isinstance(value, dict) else None
        found |= {f"{prefix}{name}": str(value)} if nested is None else nested
    return found
