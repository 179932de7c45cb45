"""Retraining on the shared cluster: what is new, what is promoted, what an interruption leaves."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
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
from degrain.errors import JobFailedError, UserError
from degrain.patchsets.geometry import PatchGeometry
from degrain.patchsets.ingest.config import IngestConfig
from degrain.retraining import run as retraining_run
from degrain.retraining.record import MOST_FAILURES, RetrainingRecord
from degrain.retraining.run import IDENTITY_TAG, STUDIED_TAG, Retraining
from degrain.storage.lease import LeaseLostError
from degrain.storage.location import Storage
from degrain.tracking.client import ServerUnavailableError
from degrain.tracking.config import load_tracking_config
from degrain.tracking.runs import Tracker
from degrain.tuning.config import StudyConfig
from degrain.tuning.publish import StudyResult

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


class Held:
    """A lease that nobody takes."""

    def check(self) -> None:
        """Do nothing."""


@pytest.fixture
def tracker(tmp_path: Path) -> Tracker:
    return Tracker.open(load_tracking_config(write_tracking(tmp_path)), Storage())


def product(
    folder: Path, tracker: Tracker, name: str = "a", log: Callable[[str], None] = print
) -> Retraining:
    """The retraining of one product; products share studies, experiment, server and model."""
    storage = Storage()
    config = IngestConfig(
        corpus=[f"pairs={write_pairs(folder / f'photos-{name}', SCENES)}"],
        out=str(folder / f"patches-{name}"),
        geometry=PatchGeometry(patch_size=32),
        options=CorpusOptions(noisy_name=TEMPLATES[1], clean_name=TEMPLATES[3]),
    )
    return Retraining(
        ingest=config,
        study=StudyConfig(models=("red10",), trials=1),
        min_new_pairs=1,
        tracker=tracker,
        studies=storage.locate(folder / "studies"),
        log=log,
        progress=lambda _label, _unit: lambda _done, _total: None,
        start_ray=lambda: None,
    )


def record_of(folder: Path) -> dict[str, Any]:
    """The one record of an interrupted retraining."""
    (file,) = (folder / "studies").glob("retraining-*.json")
    content: dict[str, Any] = json.loads(file.read_text())
    return content


def no_record(folder: Path) -> bool:
    return not list((folder / "studies").glob("retraining-*.json"))


def test_job_that_lost_its_lease_publishes_nothing(tmp_path: Path, tracker: Tracker) -> None:
    class Lost:
        def check(self) -> None:
            raise LeaseLostError("this retraining lost its lock")

    with pytest.raises(LeaseLostError):
        product(tmp_path, tracker).run(Lost())
    assert not list((tmp_path / "patches-a").glob("*.json"))
    assert not list((tmp_path / "patches-a").glob("*/manifest.json"))


def test_products_that_share_studies_and_experiment_are_kept_apart(
    tmp_path: Path, tracker: Tracker
) -> None:
    a, b = product(tmp_path, tracker), product(tmp_path, tracker, "b")
    with tracker.run("retraining", "retraining") as run:
        record = RetrainingRecord("v1", "study-a", run.id, a._options, None, 5)
    record.write(a._record_file)
    assert a._interrupted() == record
    assert b._interrupted() is None
    for one, version in ((a, "version-a"), (b, "version-b")):
        tags = {STUDIED_TAG: version, IDENTITY_TAG: one.identity}
        with tracker.run("retraining", "retraining", tags=tags):
            pass
    assert (a._known_patch_set(), b._known_patch_set()) == ("version-a", "version-b")
    turned = replace(a, ingest=replace(a.ingest, corpus=["noisy=/n", *a.ingest.corpus]))
    again = replace(a, ingest=replace(a.ingest, corpus=[*a.ingest.corpus, "noisy=/n"]))
    assert turned.identity == again.identity != a.identity


@pytest.mark.parametrize(
    ("error", "records"),
    [
        (KeyboardInterrupt(), [0, 0, 0, 0]),
        (OSError("the bucket is away"), [0, 0, 0, 0]),
        (ServerUnavailableError("MLflow is away"), [0, 0, 0, 0]),
        (LeaseLostError("lost"), [0, 0, 0, 0]),
        # Two more attempts, then a new study.
        (JobFailedError("all trials failed"), [1, 2, None, 1]),
        # A new one at once, in the same run.
        (UserError("a photo has changed"), [0, 0, 0, 0]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_a_failure_of_the_study_does_to_the_record(
    tmp_path: Path,
    tracker: Tracker,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    records: list[int | None],
) -> None:
    assert MOST_FAILURES == 3
    said: list[str] = []
    studies: list[str] = []

    def fail(*_: object, name: str, **__: object) -> StudyResult:
        studies.append(name)
        raise error

    monkeypatch.setattr(retraining_run, "run_study", fail)
    monkeypatch.setattr(retraining_run, "new_name", lambda: f"study-{len(studies)}")
    monkeypatch.setattr(retraining_run, "fit_to_cluster", lambda config: config)
    one = product(tmp_path, tracker, log=said.append)
    for failures in records:
        with pytest.raises(type(error)):
            one.run(Held())
        assert (
            no_record(tmp_path) if failures is None else record_of(tmp_path)["failures"] == failures
        )
    if isinstance(error, UserError):
        assert studies == [f"study-{n}" for n in (0, 0, 2, 2, 4, 4, 6)]
        assert any("cannot go on (a photo has changed); a new one begins" in line for line in said)
    elif isinstance(error, JobFailedError) and records[0]:
        assert studies == ["study-0", "study-0", "study-0", "study-3"]
    else:
        assert set(studies) == {"study-0"}


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
    assert no_record(tmp_path)


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


@pytest.mark.soak
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
    record = record_of(tmp_path)
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


@pytest.mark.soak
def test_a_decision_that_is_interrupted_anywhere_is_made_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    argv = [*options(tmp_path), *SMOKE, "--models", "red10"]

    def crash(*_: object) -> None:
        raise RuntimeError("the machine is lost")

    for place in (
        "degrain.registry.aliases.set_champion",
        "degrain.registry.aliases._record",
        "degrain.retraining.run.record_retraining",
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
    assert no_record(tmp_path)
