"""Retraining on the shared cluster: what is new, what is promoted, what an interruption leaves."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from integration.support import (
    SCENES,
    SMOKE,
    TEMPLATES,
    client_of,
    json_receiver,
    killed_after_a_validation,
    run_here,
    start_pipeline,
    trial_runs,
    write_pairs,
    write_tracking,
)

from degrain.corpora.config import CorpusOptions
from degrain.patchsets.geometry import PatchGeometry
from degrain.patchsets.ingest.config import IngestConfig
from degrain.retraining.record import RECORD_FILE
from degrain.retraining.run import Retraining
from degrain.storage.lease import LeaseLostError
from degrain.storage.location import Storage
from degrain.tracking.config import load_tracking_config
from degrain.tracking.runs import Tracker
from degrain.tuning.config import StudyConfig

pytestmark = pytest.mark.ray


@pytest.fixture(autouse=True)
def on_shared_cluster(ray_cluster: None) -> None:
    """Commands join the cluster that the tests share."""


@pytest.fixture
def received() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A server, its URL, and the JSON that is posted to it."""
    with json_receiver() as posted:
        yield posted


def options(folder: Path) -> list[object]:
    """The options of a retraining on a folder of pairs."""
    corpus, tracking = write_pairs(folder / "photos", SCENES), write_tracking(folder)
    where = ["--out", folder / "patches", "--studies", folder / "studies", "--mlflow", tracking]
    return ["--corpus", f"pairs={corpus}", *where, "--patch-size", 32, *TEMPLATES]


def add_a_scene(photos: Path) -> None:
    """Add one pair; the other files stay as they are."""
    times = {file: file.stat().st_mtime_ns for file in photos.rglob("*.png")}
    write_pairs(photos, [*SCENES, "fjord"])
    for file, time in times.items():
        os.utime(file, ns=(time, time))


def test_job_that_lost_its_lease_publishes_nothing(tmp_path: Path) -> None:
    class Lost:
        def check(self) -> None:
            raise LeaseLostError("this retraining lost its lock")

    storage = Storage()
    config = IngestConfig(
        corpus=[f"pairs={write_pairs(tmp_path / 'photos', SCENES)}"],
        out=str(tmp_path / "patches"),
        geometry=PatchGeometry(patch_size=32),
        options=CorpusOptions(noisy_name=TEMPLATES[1], clean_name=TEMPLATES[3]),
    )
    tracking = load_tracking_config(write_tracking(tmp_path))
    with pytest.raises(LeaseLostError):
        Retraining(
            config,
            StudyConfig(models=("red10",), trials=1),
            1,
            Tracker.open(tracking, storage),
            storage.locate(tmp_path / "studies"),
            lambda _: None,
            lambda _label, _unit: lambda _done, _total: None,
            lambda: None,
        ).run(Lost())
    assert not list((tmp_path / "patches").glob("*.json"))
    assert not list((tmp_path / "patches").glob("*/manifest.json"))


def test_retraining_promotes_only_a_better_model_and_only_for_new_photos(
    tmp_path: Path,
) -> None:
    argv = [*options(tmp_path), *SMOKE, "--models", "red10", "--trials", 1]
    first = run_here("retrain", argv, tmp_path)
    assert first.status == 0, first.err
    assert first.summary["decision"] == "promoted"
    assert first.summary["champion"] == first.summary["challenger"] == "1"

    idle = run_here("retrain", argv, tmp_path)
    assert idle.status == 0
    assert idle.summary["decision"] == "unchanged"
    assert idle.summary["champion"] == "1"
    client = client_of(tmp_path / "mlflow.yaml")
    assert len(client.search_model_versions("name='degrain-denoiser'")) == 1

    # New photos, and a training too short to learn anything: the challenger is no better than the
    # champion.
    add_a_scene(tmp_path / "photos")
    worse = run_here("retrain", [*argv, "--refit-steps", 1], tmp_path)
    assert worse.status == 0, worse.err
    models = [row["model"] for row in worse.summary["comparison"]]
    assert models == ["noisy", "nlm", "starter", "red10", "degrain-denoiser v1"]
    scores = {row["model"]: row["psnr"] for row in worse.summary["comparison"]}
    assert (scores["red10"] > scores["degrain-denoiser v1"]) == (
        worse.summary["decision"] == "promoted"
    )
    held = str(client.get_model_version_by_alias("degrain-denoiser", "champion").version)
    assert (
        held
        == worse.summary["champion"]
        == ("2" if worse.summary["decision"] == "promoted" else "1")
    )
    assert worse.summary["challenger"] == "2"
    assert worse.summary["new_pairs"] == 1
    assert not (tmp_path / "studies" / RECORD_FILE).exists()


def test_too_few_new_pairs_wait_and_a_dry_run_does_nothing(tmp_path: Path) -> None:
    argv = options(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    planned = run_here("retrain", [*argv, "--dry-run", "--min-new-pairs", 5], tmp_path)
    assert (planned.status, planned.summary["decision"]) == (0, "planned"), planned.err
    assert planned.summary["new_pairs"] == 5
    assert planned.summary["reason"] == "5 new pairs: 5 of unknown camera"
    assert "planned: 5 new pairs" in planned.out
    few = run_here("retrain", [*argv, "--min-new-pairs", 6], tmp_path)
    assert (few.status, few.summary["decision"]) == (0, "unchanged"), few.err
    assert few.summary["reason"].endswith("; at least 6 are needed")
    left = [p for p in tmp_path.rglob("*") if p not in before and p.suffix in (".parquet", ".json")]
    assert [p.name for p in left] == ["retrain-summary.json"]


def test_a_killed_retraining_goes_on_with_its_study_and_posts_its_decision(
    tmp_path: Path, received: tuple[str, list[dict[str, Any]]]
) -> None:
    url, posts = received
    # Long enough that the first trials are validated but not finished when the driver is killed.
    study = ["--models", "red10", "--trials", 3, "--steps", 400, "--refit-steps", 4]
    argv = [*options(tmp_path), *study, "--batch-size", 2, "--crop", 24, "--notify", url]
    process = start_pipeline("retrain", argv, cwd=tmp_path)
    try:
        file = killed_after_a_validation(process, tmp_path / "studies")
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=300)
    record = json.loads((tmp_path / "studies" / RECORD_FILE).read_text())
    assert record["study"] == file.parent.name
    # New photos do not change what was begun.
    add_a_scene(tmp_path / "photos")
    planned = run_here("retrain", [*argv, "--dry-run"], tmp_path)
    assert "was interrupted and would go on" in planned.summary["reason"]
    done = run_here("retrain", argv, tmp_path)
    assert done.status == 0, done.err
    assert f"the retraining of study {record['study']} was interrupted and goes on" in done.out
    assert done.summary["decision"] == "promoted"
    assert [p.parent.name for p in (tmp_path / "studies").glob("*/study.json")] == [record["study"]]
    client = client_of(tmp_path / "mlflow.yaml")
    assert len(trial_runs(client, json.loads(file.read_text())["run_id"])) == 3
    experiment = client.get_experiment_by_name("degrain").experiment_id
    retrainings = client.search_runs([experiment], "tags.`degrain.kind` = 'retraining'")
    assert [run.info.run_id for run in retrainings] == [record["run_id"]]
    assert len(client.search_model_versions("name='degrain-denoiser'")) == 1
    assert [(p["event"], p["format"], p["decision"]) for p in posts] == [
        ("degrain.retraining", 1, "promoted")
    ]
    assert posts[0]["champion"] == "1"
    # The photo that came meanwhile is the news of the next one.
    after = run_here("retrain", [*argv, "--dry-run"], tmp_path)
    assert after.summary["new_pairs"] == 1


def test_a_decision_that_is_interrupted_anywhere_is_made_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    argv = [*options(tmp_path), *SMOKE, "--models", "red10"]

    def crash(*_: object) -> None:
        raise RuntimeError("the machine is lost")

    for place in (
        "degrain.evaluation.aliases.set_champion",
        "degrain.evaluation.aliases._record",
        "degrain.retraining.run.remove_record",
    ):
        with monkeypatch.context() as patch:
            patch.setattr(place, crash)
            assert run_here("retrain", argv, tmp_path).status == 1
    done = run_here("retrain", argv, tmp_path)
    assert (done.status, done.summary["decision"]) == (0, "unchanged"), done.err
    client = client_of(tmp_path / "mlflow.yaml")
    versions = client.search_model_versions("name='degrain-denoiser'")
    assert [str(v.version) for v in versions] == ["1"]
    assert client.get_model_version_by_alias("degrain-denoiser", "champion").version == 1
    listed = run_here("history", ["--mlflow", tmp_path / "mlflow.yaml"], tmp_path)
    entries = [(e["action"], e["before"], e["version"]) for e in listed.summary["decisions"]]
    assert entries == [("promoted", "none", "1")]
    experiment = client.get_experiment_by_name("degrain").experiment_id
    (run,) = client.search_runs([experiment], "tags.`degrain.kind` = 'retraining'")
    assert run.data.tags["decision"] == "promoted"


def test_a_retraining_that_fails_posts_its_reason(
    tmp_path: Path, received: tuple[str, list[dict[str, Any]]]
) -> None:
    url, posts = received
    argv = [*options(tmp_path), *SMOKE, "--max-refused", 0, "--notify", url]
    (tmp_path / "photos" / "noisy" / f"{SCENES[0]}_0.png").write_bytes(b"not a photo")
    failed = run_here("retrain", argv, tmp_path)
    assert failed.status == 2
    assert [post["decision"] for post in posts] == ["failed"]
    assert "pairs were refused" in str(posts[0]["reason"])
    assert not (tmp_path / "studies" / RECORD_FILE).exists()
