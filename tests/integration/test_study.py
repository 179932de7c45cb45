"""Studies on the shared cluster: registry, promotion, denoising, retraining."""

import json
from pathlib import Path

import numpy as np
import pytest
from integration.support import SCENES, TEMPLATES, run_here, write_pairs, write_tracking
from mlflow import MlflowClient

from degrain import cli
from degrain.imaging.codecs import decode
from degrain.storage import Storage
from degrain.tracking.config import load_tracking_config
from degrain.tracking.registry import load_registered
from degrain.tracking.runs import connect

pytestmark = pytest.mark.ray
SMOKE = ["--models", "red10,mwcnn", "--trials", 2, "--steps", 8, "--refit-steps", 8, "--batch-size", 2, "--crop", 24]


@pytest.fixture(autouse=True)
def on_shared_cluster(ray_cluster: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "start_ray", lambda *, verbose: None)


def client_of(tracking: Path) -> MlflowClient:
    return connect(load_tracking_config(tracking), Storage())


def test_a_study_tracks_compares_registers_and_its_champion_denoises(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = write_pairs(tmp_path / "photos", SCENES)
    tracking = write_tracking(tmp_path)
    ingest = ["--corpus", f"pairs={corpus}", "--out", tmp_path / "patches", "--patch-size", 32, *TEMPLATES]
    assert run_here("ingest", ingest, capsys, tmp_path).status == 0
    options = ["--data", tmp_path / "patches", "--mlflow", tracking, "--out", tmp_path / "runs"]
    done = run_here("tune", [*options, *SMOKE], capsys, tmp_path)
    assert done.status == 0, done.err
    assert len(done.out.splitlines()) <= 60

    summary = done.summary
    assert {"study_run_id", "trials", "refits", "comparison", "registered"} <= set(summary)
    assert [t["model"] for t in summary["trials"]] == ["red10", "mwcnn"]
    assert all({"model", "params", "val_psnr", "val_ssim", "status"} <= set(t) for t in summary["trials"])
    assert [row["model"] for row in summary["comparison"]] == ["untouched", "nlm", "red10", "mwcnn"]
    columns = {"model", "psnr", "ssim", "psnr_gain", "ssim_gain", "seconds_per_megapixel", "parameters"}
    assert all(columns <= set(row) for row in summary["comparison"])
    assert {a for v in summary["registered"] for a in v["aliases"]} == {"best-psnr", "best-ssim", "champion"}
    assert Path(summary["picture"]).stat().st_size > 10_000

    client = client_of(tracking)
    children = client.search_runs(
        [client.get_experiment_by_name("degrain").experiment_id],
        filter_string=f"tags.`mlflow.parentRunId` = '{summary['study_run_id']}'",
    )
    kinds = sorted(run.data.tags["degrain.kind"] for run in children)
    assert kinds == ["refit", "refit", "trial", "trial"]
    version = json.loads((tmp_path / "patches" / "current.json").read_text())["version"]
    for run in children:
        assert run.info.status == "FINISHED"
        assert run.data.tags["patch_set"] == version
        assert {"model", "learning_rate", "loss"} <= set(run.data.params)
        curve = client.get_metric_history(run.info.run_id, "val_psnr")
        assert [m.step for m in curve] == ([2, 4, 6, 8] if run.data.tags["degrain.kind"] == "trial" else [3, 6, 8])
    artifacts = {a.path for a in client.list_artifacts(summary["study_run_id"])}
    assert artifacts == {"comparison.md", "comparison.png", "summary.json"}

    by_alias, card = load_registered(client, "models:/degrain-denoiser@champion")
    again, _ = load_registered(client, "models:/degrain-denoiser@champion")
    photo = decode(next((corpus / "noisy").iterdir()).read_bytes())
    assert np.array_equal(by_alias(photo), again(photo))
    row = next(r for r in summary["comparison"] if r["model"] == card.model)
    assert card.scores["rgb8"]["psnr"] == row["psnr"]
    assert card.patch_set == version

    noisy = sorted((corpus / "noisy").iterdir())
    (tmp_path / "odd name %.png").write_bytes(noisy[0].read_bytes())
    argv = [tmp_path / "odd name %.png", corpus / "noisy", "--out", tmp_path / "clean", "--mlflow", tracking]
    applied = run_here("denoise", [*argv, "--model", "models:/degrain-denoiser@champion"], capsys, tmp_path)
    assert applied.status == 0, applied.err
    assert applied.summary["files"] == len(noisy) + 1
    assert applied.summary["failed"] == []
    assert np.array_equal(
        decode((tmp_path / "clean" / "odd name %.png").read_bytes()), by_alias(decode(noisy[0].read_bytes()))
    )


def test_retraining_does_nothing_without_new_photos_and_promotes_only_the_better(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = write_pairs(tmp_path / "photos", SCENES)
    tracking = write_tracking(tmp_path)
    argv = ["--corpus", f"pairs={corpus}", "--out", tmp_path / "patches", "--patch-size", 32, *TEMPLATES]
    argv += ["--studies", tmp_path / "studies", "--mlflow", tracking, *SMOKE, "--models", "red10", "--trials", 1]
    first = run_here("retrain", argv, capsys, tmp_path)
    assert first.status == 0, first.err
    assert first.summary["decision"] == "promoted"
    assert first.summary["champion"] == first.summary["challenger"] == "1"

    idle = run_here("retrain", argv, capsys, tmp_path)
    assert idle.status == 0
    assert idle.summary["decision"] == "unchanged"
    assert idle.summary["champion"] == "1"
    client = client_of(tracking)
    assert len(client.search_model_versions("name='degrain-denoiser'")) == 1

    # New photos, and a training too short to learn anything: the challenger is no better than the champion.
    write_pairs(tmp_path / "photos", [*SCENES, "fjord"])
    worse = run_here("retrain", [*argv, "--refit-steps", 1], capsys, tmp_path)
    assert worse.status == 0, worse.err
    models = [row["model"] for row in worse.summary["comparison"]]
    assert models == ["untouched", "nlm", "red10", "degrain-denoiser v1"]
    scores = {row["model"]: row["psnr"] for row in worse.summary["comparison"]}
    assert (scores["red10"] > scores["degrain-denoiser v1"]) == (worse.summary["decision"] == "promoted")
    held = str(client.get_model_version_by_alias("degrain-denoiser", "champion").version)
    assert held == worse.summary["champion"] == ("2" if worse.summary["decision"] == "promoted" else "1")
    assert worse.summary["challenger"] == "2"


def test_a_trial_that_diverges_is_marked_and_the_study_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    from degrain.tuning import study

    draw = study.draw_trials

    def with_one_absurd(*arguments: object) -> list:
        first, *others = draw(*arguments)
        return [replace(first, learning_rate=1e30), *others]

    monkeypatch.setattr(study, "draw_trials", with_one_absurd)
    corpus = write_pairs(tmp_path / "photos", SCENES)
    ingest = ["--corpus", f"pairs={corpus}", "--out", tmp_path / "patches", "--patch-size", 32, *TEMPLATES]
    run_here("ingest", ingest, capsys, tmp_path)
    options = ["--data", tmp_path / "patches", "--mlflow", write_tracking(tmp_path), "--out", tmp_path / "runs"]
    done = run_here("tune", [*options, *SMOKE], capsys, tmp_path)
    assert done.status == 0, done.err
    assert [t["status"] for t in done.summary["trials"]] == ["failed", "finished"]
    assert "training diverged at step" in done.summary["trials"][0]["error"]
    assert [r["model"] for r in done.summary["refits"]] == ["mwcnn"]
