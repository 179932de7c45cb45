"""`degrain runs` on a real MLflow store, with folders as studies and trainings leave them."""

import json
import os
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest
from integration.support import run_here, write_tracking

from degrain.registry.resolver import Resolver
from degrain.registry.versions import register
from degrain.retraining.record import RetrainingRecord
from degrain.storage.location import Storage
from degrain.tracking.config import load_tracking_config
from degrain.tracking.runs import Run, Tracker

HOUR = 3600


@pytest.fixture
def tracker(tmp_path: Path) -> Tracker:
    return Tracker.open(load_tracking_config(write_tracking(tmp_path)), Storage())


def write_run(folder: Path, name: str, content: dict[str, object], hours_ago: float) -> None:
    """A folder with a checkpoint of 1000 bytes, last written `hours_ago`."""
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "8.pt").write_bytes(b"x" * 1000)
    (folder / name).write_text(json.dumps(content))
    when = time.time() - hours_ago * HOUR
    for file in (folder / "checkpoints" / "8.pt", folder / name):
        os.utime(file, (when, when))


def write_training(
    tracker: Tracker, folder: Path, hours_ago: float, status: str | None = "FINISHED"
) -> Run:
    run = tracker.start(folder.name, "training")
    if status is not None:
        run.finish(status)
    write_run(folder, "run.json", {"run_id": run.id}, hours_ago)
    return run


def is_deleted(tracker: Tracker, run: Run) -> bool:
    return str(tracker.client.get_run(run.id).info.lifecycle_stage) == "deleted"


def runs(tmp_path: Path, *argv: str) -> dict[str, dict[str, object]]:
    """The runs that are left, by name."""
    argv = (str(tmp_path / "runs"), "--mlflow", str(tmp_path / "mlflow.yaml"), *argv)
    done = run_here("runs", argv, tmp_path)
    assert done.status == 0, done.err
    return {run["name"]: run for run in done.summary["runs"]}


def test_runs_have_their_state_and_size(tracker: Tracker, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "train"
    for name, status in (("a", "FINISHED"), ("b", "KILLED"), ("c", "FAILED"), ("d", None)):
        write_training(tracker, folder / name, 1, status)
    write_run(folder / "e", "run.json", {"run_id": "0" * 32}, 2)
    # Neither is a run, whatever its name.
    (folder / "f").mkdir()
    (folder / "f" / "run.json").write_text("[1]")
    (folder / "g").mkdir()
    (folder / "g" / "run.json").write_text("{")
    found = runs(tmp_path)
    assert {name: run["state"] for name, run in found.items()} == {
        "a": "finished",
        "b": "interrupted",
        "c": "failed",
        "d": "running",
        "e": "not in MLflow",
    }
    assert next(iter(found)) == "e"
    assert found["a"]["bytes"] == 1000 + len('{"run_id": ""}') + 32


def test_a_study_is_removed_with_its_trials_but_not_with_its_version(
    tracker: Tracker, tmp_path: Path
) -> None:
    denoiser, card = Resolver(None, Storage()).load("starter")
    study = tracker.start("study", "study")
    trial = tracker.start("trial", "trial", parent=study)
    decision = tracker.start("champion kept", "promotion", parent=study)
    refits = [tracker.start(f"refit-{n}", "refit", parent=study) for n in range(2)]
    version = register(tracker, refits[1], denoiser.weights, card)
    for run in (study, trial, *refits, decision):
        run.finish()
    content = {"run_id": study.id, "refits": {f"refit-{n}": r.id for n, r in enumerate(refits)}}
    folder = tmp_path / "runs" / "studies" / "study-1"
    write_run(folder, "study.json", content, 1)
    other = write_training(tracker, tmp_path / "runs" / "train" / "a", 1)

    assert runs(tmp_path)["study-1"]["versions"] == [version.version]
    assert list(runs(tmp_path, "--remove", "study-1")) == ["a"]
    assert not folder.exists()
    assert [is_deleted(tracker, r) for r in (trial, refits[0])] == [True, True]
    assert not any(is_deleted(tracker, r) for r in (study, refits[1], decision, other))
    assert Resolver(tmp_path / "mlflow.yaml", Storage()).load(version.uri)[1].model == card.model


def test_what_is_old_and_has_ended_is_removed(tracker: Tracker, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "train"
    old = write_training(tracker, folder / "old", 49)
    write_training(tracker, folder / "new", 47)
    write_training(tracker, folder / "runs-yet", 49, None)
    assert set(runs(tmp_path, "--older-than", "2d")) == {"new", "runs-yet"}
    assert is_deleted(tracker, old)
    # Nothing has been written to it for so long that it was killed.
    assert set(runs(tmp_path, "--remove", "runs-yet")) == {"new"}


def test_a_folder_that_does_not_exist_is_named_and_nothing_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run_here("runs", ["nowhere"], tmp_path)
    assert (done.status, f"there is no folder '{tmp_path}/nowhere'" in done.err) == (2, True)
    assert list(tmp_path.iterdir()) == []


def test_what_runs_or_goes_on_is_not_removed(tracker: Tracker, tmp_path: Path) -> None:
    write_training(tracker, tmp_path / "runs" / "train" / "busy", 0, None)
    write_training(tracker, tmp_path / "runs" / "train" / "other", 50)
    study = tracker.start("study", "study")
    study.finish("KILLED")
    studies = tmp_path / "runs" / "studies"
    write_run(studies / "study-1", "study.json", {"run_id": study.id}, 50)
    record = RetrainingRecord("patches", "study-1", "", {}, None, 3)
    replace(record, run_id=study.id).write(Storage().locate(studies / "retraining-1f.json"))
    mlflow = ["--mlflow", str(tmp_path / "mlflow.yaml")]
    for name, message in (
        ("busy", r"'busy' wrote a file \d+ s ago and has not ended"),
        ("study-1", "'study-1' belongs to a retraining that was interrupted"),
        ("buzy", "unknown run 'buzy'; did you mean 'busy'"),
    ):
        argv = [tmp_path / "runs", *mlflow, "--remove", f"other,{name}"]
        done = run_here("runs", argv, tmp_path)
        assert done.status == 2
        assert re.search(message, done.err)
    assert set(runs(tmp_path, "--older-than", "1d")) == {"busy", "study-1"}
