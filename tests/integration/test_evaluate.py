"""`degrain evaluate` with models whose names MLflow refuses, and with a store that fails."""

import shutil
from pathlib import Path

import pytest
from integration.support import SCENES, TEMPLATES, client_of, run_here, write_pairs, write_tracking
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

from degrain.registry.files import STARTER_FOLDER

pytestmark = pytest.mark.ray


def test_scores_are_printed_and_logged_under_names_that_mlflow_accepts(
    ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    shutil.copytree(STARTER_FOLDER, tmp_path / "m*1")
    tracking = write_tracking(tmp_path)
    argv = ["--pairs", f"pairs={write_pairs(tmp_path / 'photos', SCENES)}", *TEMPLATES]
    argv += ["--models", "noisy,.././m*1", "--out", tmp_path / "page", "--mlflow", tracking]
    done = run_here("evaluate", argv, tmp_path)
    assert done.status == 0, done.err
    score = {row["model"]: row["psnr"] for row in done.summary["comparison"]}["m*1"]
    metrics = client_of(tracking).get_run(done.summary["run_id"]).data.metrics
    assert pytest.approx(score) in metrics.values()

    def refuse(*_: object, **__: object) -> None:
        raise MlflowException("it is full", error_code=INVALID_PARAMETER_VALUE)

    monkeypatch.setattr(MlflowClient, "log_batch", refuse)
    done = run_here("evaluate", argv, tmp_path)
    assert done.status == 0, done.err
    assert "| m*1 |" in done.out
    (warning,) = [line for line in done.out.splitlines() if line.startswith("warning: ")]
    assert warning.startswith(f"warning: the scores are in '{tmp_path}/page', but not in MLflow: ")
    assert "it is full" in warning
    assert done.summary["run_id"] is None
    assert done.summary["comparison"]
