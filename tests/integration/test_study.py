"""Studies on the shared cluster: registry, promotion, denoising."""

import json
import os
import re
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from integration.support import (
    SCENES,
    SMOKE,
    TEMPLATES,
    Outcome,
    client_of,
    killed_after_a_validation,
    run_here,
    start_pipeline,
    trial_runs,
    write_pairs,
    write_tracking,
)

import degrain
from degrain.evaluation.scores import Evaluation
from degrain.imaging.codecs import decode
from degrain.patchsets.patch_set import PatchSet
from degrain.registry.versions import load_registered
from degrain.storage.lease import LeaseLostError
from degrain.storage.location import Storage
from degrain.tracking.config import load_tracking_config
from degrain.tracking.runs import Tracker
from degrain.tuning.config import StudyConfig
from degrain.tuning.space import SpaceChanges
from degrain.tuning.study import run_study

pytestmark = pytest.mark.ray


@pytest.fixture(autouse=True)
def on_shared_cluster(ray_cluster: None) -> None:
    """Commands join the cluster that the tests share."""


@dataclass(frozen=True)
class Study:
    """A finished study, and where it left its parts."""

    folder: Path
    outcome: Outcome

    @property
    def tracking(self) -> Path:
        return self.folder / "mlflow.yaml"

    @property
    def summary(self) -> dict:
        return self.outcome.summary

    @property
    def version(self) -> str:
        return json.loads((self.folder / "patches" / "current.json").read_text())["version"]


@pytest.fixture(scope="module")
def study(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A small study of two networks."""
    folder = tmp_path_factory.mktemp("study")
    corpus = write_pairs(folder / "photos", SCENES)
    write_tracking(folder)
    out = folder / "patches"
    ingest = ["--corpus", f"pairs={corpus}", "--out", out, "--patch-size", 32, *TEMPLATES]
    assert run_here("ingest", ingest, folder).status == 0
    options = ["--data", out, "--mlflow", folder / "mlflow.yaml", "--out", folder / "runs"]
    done = run_here("tune", [*options, *SMOKE], folder)
    assert done.status == 0, done.err
    return Study(folder, done)


def test_study_prints_at_most_a_page(study: Study) -> None:
    assert len(study.outcome.out.splitlines()) <= 60


def test_summary_lists_trials_refits_comparison_and_models(study: Study) -> None:
    summary = study.summary
    assert {"study_run_id", "trials", "refits", "comparison", "registered"} <= set(summary)
    assert [t["model"] for t in summary["trials"]] == ["red10", "mwcnn"]
    keys = {"model", "params", "val_psnr", "val_ssim", "status"}
    assert all(keys <= set(t) for t in summary["trials"])


def test_comparison_has_the_baselines_the_starter_and_the_refits(study: Study) -> None:
    rows = study.summary["comparison"]
    assert [row["model"] for row in rows] == ["noisy", "nlm", "starter", "red10", "mwcnn"]
    columns = {"model", "psnr", "ssim", "psnr_gain", "ssim_gain", "seconds_per_megapixel"}
    assert all(columns | {"parameters"} <= set(row) for row in rows)


def test_registered_models_hold_the_aliases(study: Study) -> None:
    held = {a for v in study.summary["registered"] for a in v["aliases"]}
    assert held == {"best-psnr", "best-ssim", "fastest-within", "champion"}


def test_picture_of_crops_is_written(study: Study) -> None:
    assert Path(study.summary["picture"]).stat().st_size > 10_000


def test_trials_and_refits_are_child_runs_with_their_curves(study: Study) -> None:
    client = client_of(study.tracking)
    children = client.search_runs(
        [client.get_experiment_by_name("degrain").experiment_id],
        filter_string=f"tags.`mlflow.parentRunId` = '{study.summary['study_run_id']}'",
    )
    kinds = sorted(run.data.tags["degrain.kind"] for run in children)
    assert kinds == ["promotion", "refit", "refit", "trial", "trial"]
    for run in children:
        if run.data.tags["degrain.kind"] == "promotion":
            continue
        assert run.info.status == "FINISHED"
        assert run.data.tags["patch_set"] == study.version
        assert {"model", "learning_rate", "loss"} <= set(run.data.params)
        curve = client.get_metric_history(run.info.run_id, "val_psnr")
        steps = [2, 4, 6, 8] if run.data.tags["degrain.kind"] == "trial" else [3, 6, 8]
        assert [m.step for m in curve] == steps


def test_report_is_logged_to_the_study(study: Study) -> None:
    listed = client_of(study.tracking).list_artifacts(study.summary["study_run_id"])
    assert {a.path for a in listed} == {"comparison.md", "comparison.png", "summary.json"}


def test_registered_model_loads_the_same_every_time_with_its_score(study: Study) -> None:
    client = client_of(study.tracking)
    by_alias, card = load_registered(client, "models:/degrain-denoiser@champion")
    again, _ = load_registered(client, "models:/degrain-denoiser@champion")
    photo = decode(next((study.folder / "photos" / "noisy").iterdir()).read_bytes())
    assert np.array_equal(by_alias(photo), again(photo))
    row = next(r for r in study.summary["comparison"] if r["model"] == card.model)
    assert card.scores["rgb8"]["psnr"] == row["psnr"]
    assert card.patch_set == study.version


def test_the_decision_on_the_champion_is_kept_with_its_gates(study: Study) -> None:
    done = run_here("history", ["--mlflow", study.tracking], study.folder)
    assert done.status == 0, done.err
    (entry,) = done.summary["decisions"]
    assert (entry["action"], entry["before"]) == ("promoted", "none")
    local = client_of(study.tracking).download_artifacts(entry["run_id"], "promotion")
    gates = Path(local, "promotion.md").read_text()
    assert "| fresh process | passed | it loads and denoises" in gates
    scores = Evaluation.from_json(Path(local, "evaluation.json").read_bytes())
    assert [d.name for d in scores.denoisers] == ["noisy", "nlm", "starter", "red10", "mwcnn"]
    assert all(d.origin_known and not d.leaked for d in scores.denoisers)


def test_evaluate_scores_models_of_any_origin(study: Study, tmp_path: Path) -> None:
    # Those that were not registered, too.
    refits = {r["model"]: f"runs:/{r['run_id']}" for r in study.summary["refits"]}
    models = ",".join(["noisy,median,starter,models:/degrain-denoiser@champion", *refits.values()])
    argv = ["--data", study.folder / "patches", "--out", tmp_path / "page", "--models", models]
    done = run_here("evaluate", [*argv, "--mlflow", study.tracking], tmp_path)
    assert done.status == 0, done.err
    rows = {row["model"]: row for row in done.summary["comparison"]}
    assert list(rows)[:3] == ["noisy", "median", "starter"]
    before = {row["model"]: row["psnr"] for row in study.summary["comparison"]}
    assert list(refits) == ["red10", "mwcnn"]
    for model in refits:
        assert rows[f"refit-{model}"]["psnr"] == pytest.approx(before[model])
    page = (tmp_path / "page" / "evaluation.html").read_text()
    assert re.findall(r'(?:src|href)="(?!data:image/png;base64,|#)', page) == []
    for text in ("Slices", "Side effects", "Quality and speed", "<td>corpus</td><td>pairs</td>"):
        assert text in page
    metrics = client_of(study.tracking).get_run(done.summary["run_id"]).data.metrics
    assert metrics["test_psnr.starter"] == pytest.approx(rows["starter"]["psnr"])

    train = run_here(
        "evaluate",
        [*argv, "--mlflow", study.tracking, "--models", "noisy,nothing"],
        tmp_path,
    )
    assert train.status == 2
    assert "'nothing' is no filter" in train.err


def test_evaluate_scores_pairs_without_a_patch_set_and_finds_leaks(
    study: Study, tmp_path: Path
) -> None:
    corpus = shutil.copytree(study.folder / "photos", tmp_path / "moved")
    for kind in ("noisy", "clean"):
        shutil.copy(corpus / kind / "attic_0.png", corpus / kind / "zebra_0.png")
    (corpus / "noisy" / "lonely_0.png").write_bytes((corpus / "noisy/attic_0.png").read_bytes())
    refit = study.summary["refits"][0]
    argv = ["--pairs", f"pairs={corpus}", *TEMPLATES, "--out", tmp_path / "page"]
    argv += ["--models", f"noisy,runs:/{refit['run_id']}", "--mlflow", study.tracking]
    done = run_here("evaluate", argv, tmp_path)
    assert done.status == 0, done.err
    assert "zebra_0.png: it has the pixels of" in done.out
    assert "not scored: 1 photos that belong to no pair" in done.out
    scores = Evaluation.from_json((tmp_path / "page" / "evaluation.json").read_bytes())
    patch_set = PatchSet.open(str(study.folder / "patches"), Storage())
    ids = {split: {row.id for row in patch_set.photos(split)} for split in ("train", "test")}
    assert [photo.scene for photo in scores.photos] == [f"pairs/{scene}" for scene in SCENES]
    assert ids["train"] <= set(scores.denoisers[1].leaked)
    assert not ids["test"] & set(scores.denoisers[1].leaked)
    assert "was trained on" in done.out
    before = {row["model"]: row["psnr"] for row in study.summary["comparison"]}
    for name, denoiser in zip(("noisy", refit["model"]), scores.denoisers, strict=True):
        psnr = [
            score.psnr
            for photo, score in zip(scores.photos, denoiser.scores, strict=True)
            if photo.id in ids["test"]
        ]
        assert np.mean(psnr) == pytest.approx(before[name])
    run = client_of(study.tracking).get_run(done.summary["run_id"])
    assert run.data.tags["pairs"] == f"pairs={corpus}"
    assert "patch_set" not in run.data.tags
    assert run.data.tags["mlflow.note.content"].endswith("on pairs of pairs.")
    (used,) = run.inputs.dataset_inputs
    assert json.loads(used.dataset.profile) == {"pairs": 5, "scenes": 5}
    mean = np.mean([score.psnr for score in scores.denoisers[0].scores])
    assert run.data.metrics["pairs_psnr.noisy"] == pytest.approx(mean)


def test_champion_denoises_files_and_folders(study: Study, tmp_path: Path) -> None:
    noisy = sorted((study.folder / "photos" / "noisy").iterdir())
    odd = tmp_path / "odd name %.png"
    odd.write_bytes(noisy[0].read_bytes())
    argv = [odd, noisy[0].parent, "--out", tmp_path / "clean", "--mlflow", study.tracking]
    model = "models:/degrain-denoiser@champion"
    applied = run_here("denoise", [*argv, "--model", model], tmp_path)
    assert applied.status == 0, applied.err
    assert applied.summary["files"] == len(noisy) + 1
    assert applied.summary["failed"] == []
    denoiser, _ = load_registered(client_of(study.tracking), model)
    written = decode((tmp_path / "clean" / "odd name %.png").read_bytes())
    assert np.array_equal(written, denoiser(decode(noisy[0].read_bytes())))


def test_api_loads_the_champion(study: Study) -> None:
    photo = decode(next((study.folder / "photos" / "noisy").iterdir()).read_bytes())
    denoiser = degrain.load(mlflow=study.tracking)
    expected, _ = load_registered(client_of(study.tracking), "models:/degrain-denoiser@champion")
    assert np.array_equal(denoiser(photo), expected(photo))


def test_a_warm_study_begins_with_the_best_trial_and_without_its_lease_registers_nothing(
    study: Study, tmp_path: Path
) -> None:
    def lost() -> None:
        raise LeaseLostError("this retraining lost its lock")

    storage, lines = Storage(), []
    tracker = Tracker.open(load_tracking_config(study.tracking), storage)
    before = len(tracker.client.search_model_versions("name='degrain-denoiser'"))
    config = StudyConfig(
        models=("red10",),
        trials=1,
        steps=8,
        refit_steps=4,
        batch_size=2,
        crop=24,
        # The range has the default of the earlier study, but another default.
        spaces=SpaceChanges({"red10": {"learning_rate": {"log_uniform": [1e-5, 1e-1]}}}),
        warm_start=True,
    )
    with pytest.raises(LeaseLostError):
        run_study(
            config.fit_to(2, 0),
            PatchSet.open(str(study.folder / "patches"), storage),
            tracker,
            folder=storage.locate(tmp_path / "studies"),
            log=lines.append,
            progress=lambda _label, _unit: lambda _done, _total: None,
            before_publishing=lost,
        )
    assert len(tracker.client.search_model_versions("name='degrain-denoiser'")) == before
    warm = next(line for line in lines if line.startswith("warm start: 1 networks begin"))
    assert not warm.endswith(" 0 are of this length")
    state = json.loads(next((tmp_path / "studies").glob("*/study.json")).read_text())
    earlier = [t for t in study.summary["trials"] if t["model"] == "red10"]
    best = max(earlier, key=lambda t: t["val_psnr"])["params"]["learning_rate"]
    assert state["trials"][0]["config"]["learning_rate"] == best


@pytest.mark.soak
def test_study_of_trials_with_two_workers_continues_after_one_diverged(tmp_path: Path) -> None:
    corpus = write_pairs(tmp_path / "photos", SCENES)
    ingest = [
        "--corpus",
        f"pairs={corpus}",
        "--out",
        tmp_path / "patches",
        "--patch-size",
        32,
        *TEMPLATES,
    ]
    run_here("ingest", ingest, tmp_path)
    options = [
        "--data",
        tmp_path / "patches",
        "--mlflow",
        write_tracking(tmp_path),
        "--out",
        tmp_path / "runs",
    ]
    spaces = ["--spaces", '{"red10": {"learning_rate": [1e30]}}']
    workers = ["--workers-per-trial", 2]
    done = run_here("tune", [*options, *SMOKE, *spaces, *workers], tmp_path)
    assert done.status == 0, done.err
    assert [t["status"] for t in done.summary["trials"]] == ["failed", "finished"]
    assert "training diverged at step" in done.summary["trials"][0]["error"]
    assert [r["model"] for r in done.summary["refits"]] == ["mwcnn"]


@pytest.mark.soak
def test_stopped_trials_of_two_workers_leave_their_resources(study: Study, tmp_path: Path) -> None:
    """Else the next trial, and the refit, would wait for ever: the cluster has two CPUs."""
    where = ["--data", study.folder / "patches", "--out", tmp_path / "runs"]
    options = ["--models", "red10", "--search", "random", "--trials", 3, "--steps", 400]
    options += ["--refit-steps", 4, "--batch-size", 2, "--crop", 24, "--test-photos", 1]
    options += ["--workers-per-trial", 2, "--seed", 2]
    rates = ["--spaces", '{"red10": {"learning_rate": [1e-3, 1e-9], "width": [4]}}']
    tracking = write_tracking(tmp_path)
    done = run_here("tune", [*where, *options, *rates, "--mlflow", tracking], tmp_path)
    assert done.status == 0, done.err
    assert "stopped" in [t["status"] for t in done.summary["trials"]]
    assert len(done.summary["refits"]) == 1
    # Four steps beside a trial's 400.
    assert "refit-red10 ended below its trial (" in done.out


@pytest.mark.soak
def test_bad_trials_of_a_population_go_on_from_good_ones(study: Study, tmp_path: Path) -> None:
    where = ["--data", study.folder / "patches", "--out", tmp_path / "runs"]
    options = ["--search", "pbt", "--models", "red10", "--trials", 8, "--steps", 4]
    options += ["--refit-steps", 4, "--batch-size", 2, "--crop", 24, "--test-photos", 1]
    # With this seed the sixth trial draws a rate of 0.13 and all others at most 0.0006, so that it
    # is the lowest of all that reach a rung before it, whatever their order.
    rates = ["--spaces", '{"red10": {"learning_rate": {"log_uniform": [1e-6, 0.3]}}}']
    rates += ["--seed", 231]
    tracking = write_tracking(tmp_path)
    done = run_here("tune", [*where, *options, *rates, "--mlflow", tracking], tmp_path)
    assert done.status == 0, done.err
    assert all(t["status"] in ("finished", "failed") for t in done.summary["trials"])
    state = json.loads(next((tmp_path / "runs" / "studies").glob("*/study.json")).read_text())
    replaced = [t for t in state["trials"] if t["inherited"]]
    assert replaced
    for trial in replaced:
        first, *_ = trial["inherited"]
        shares = [each["progress"] / 100 for each in trial["inherited"]]
        changes = [c.split(":") for c in trial["config"]["rate_changes"].split(",")]
        assert set(shares) <= {float(share) for share, _ in changes}
        parent = state["trials"][int(first["number"])]
        assert parent["config"]["rate_changes"] or parent["draw"] == trial["draw"]
    notes = [
        run.data.tags["mlflow.note.content"]
        for run in trial_runs(client_of(tracking), state["run_id"])
    ]
    assert sum("it went on from trial" in note for note in notes) == len(replaced)


@pytest.mark.soak
def test_a_killed_study_is_resumed_with_each_trial_once(study: Study, tmp_path: Path) -> None:
    tracking = write_tracking(tmp_path)
    where = ["--out", tmp_path / "runs", "--mlflow", tracking]
    # Long enough that the first trials are validated but not finished when the driver is killed.
    options = ["--models", "red10", "--trials", 3, "--steps", 400, "--refit-steps", 4]
    options += ["--batch-size", 2, "--crop", 24, "--data", study.folder / "patches"]
    process = start_pipeline("tune", [*where, *options], cwd=tmp_path)
    try:
        file = killed_after_a_validation(process, tmp_path / "runs" / "studies")
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=300)
    before = json.loads(file.read_text())
    name = file.parent.name
    refused = run_here("tune", [*where, "--resume", name, "--steps", 8], tmp_path)
    assert refused.status == 2
    assert "--steps cannot be changed on the way" in refused.err
    # The patch set has been moved meanwhile.
    moved = shutil.copytree(study.folder / "patches", tmp_path / "moved")
    done = run_here("tune", [*where, "--resume", name, "--data", moved], tmp_path)
    assert done.status == 0, done.err
    assert done.summary["study_run_id"] == before["run_id"]
    runs = trial_runs(client_of(tracking), before["run_id"])
    assert len(runs) == 3
    assert {t["run_id"] for t in before["trials"]} <= {run.info.run_id for run in runs}
    after = json.loads(file.read_text())
    assert after["data"] == str(moved / Path(before["data"]).name)
    for old, new in zip(before["trials"], after["trials"], strict=False):
        assert new["curve"][: len(old["curve"])] == old["curve"]
