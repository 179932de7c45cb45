"""Promotion by hand, rollback and history, on a real MLflow store."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from integration.support import SCENES, TEMPLATES, run_here, write_pairs, write_tracking

from degrain.errors import JobFailedError, UserError
from degrain.evaluation.scores import DenoiserScores, EvaluatedPhoto, Evaluation, PhotoScore
from degrain.patchsets.patch_set import PatchSet
from degrain.registry import aliases
from degrain.registry.card import ModelCard
from degrain.registry.files import STARTER_FOLDER, write_model
from degrain.registry.gates import Check
from degrain.registry.promotion import Decision
from degrain.registry.resolver import Resolver, lost_champion
from degrain.registry.versions import alias_holders, log_model, register
from degrain.storage.location import Storage
from degrain.tracking.config import load_tracking_config
from degrain.tracking.runs import Tracker
from degrain.tracking.training_photos import TrainingPhotos
from denoisenets import create_model, full_arguments, model_contract

ARGUMENTS = {"width": 4}
SCORE = PhotoScore(
    psnr=30,
    ssim=0.8,
    seconds=1,
    megapixels=1,
    shift=(0.0, 0.0, 0.0),
    cast=(0.0, 0.0, 0.0),
    detail=1.0,
    clean_psnr=40,
)
EVALUATION = Evaluation(
    photos=(EvaluatedPhoto(id="c/a", scene="c/a", corpus="c", content="x y"),),
    denoisers=(DenoiserScores(name="noisy", scores=(SCORE,)),),
)


@pytest.fixture
def tracker(tmp_path: Path) -> Tracker:
    """A store with three versions of a model, none of which holds an alias."""
    made = Tracker.open(load_tracking_config(write_tracking(tmp_path)), Storage())
    network = create_model("red10", **ARGUMENTS)
    contract = model_contract("red10", **ARGUMENTS)
    card = ModelCard(
        model="red10",
        arguments=full_arguments("red10", ARGUMENTS),
        patch_set=None,
        training={},
        crop=32,
        size_multiple=contract.size.multiple,
        halo=contract.receptive_radius,
    )
    for _ in range(3):
        with made.run("training", "training") as run:
            register(made, run, network.state_dict(), card)
    return made


def decided(version: str | None, *, moved: bool, **passed: bool) -> list[Decision]:
    """A decision on the champion; `passed` has the outcome of versions v1, v2, ..."""
    checks = {name[1:]: [Check("gain", fine, "text")] for name, fine in passed.items()}
    return [Decision("champion", version, moved, "because", checks)]


def held(tracker: Tracker) -> dict[str, str]:
    versions = alias_holders(tracker.client, tracker.config.model)
    return {alias: v.version for alias, v in versions.items()}


def test_a_life_of_promotions(tracker: Tracker, tmp_path: Path) -> None:
    aliases.publish(tracker, decided("1", moved=True, v1=True), EVALUATION, before=None)
    assert held(tracker) == {"champion": "1"}
    aliases.publish(tracker, decided("1", moved=False, v2=False), EVALUATION, before="1")
    assert held(tracker) == {"champion": "1", "challenger": "2"}
    with pytest.raises(UserError, match=r"version 2 has not passed the gates \(failed: gain\)"):
        aliases.promote(tracker, None)
    aliases.publish(
        tracker, decided("3", moved=True, v3=True), EVALUATION, before="1", approval=True
    )
    assert held(tracker) == {"champion": "1", "challenger": "3"}

    mlflow = ["--mlflow", tmp_path / "mlflow.yaml"]
    promoted = run_here("promote", mlflow, tmp_path)
    assert promoted.status == 0, promoted.err
    assert held(tracker) == {"champion": "3", "previous": "1", "challenger": "3"}
    assert run_here("promote", mlflow, tmp_path).status == 2

    rolled_back = run_here("rollback", mlflow, tmp_path)
    assert "champion: version 1 (before: 3)" in rolled_back.out
    assert held(tracker)["champion"] == "1"
    assert held(tracker)["previous"] == "3"

    refused = run_here("promote", ["2", *mlflow], tmp_path)
    assert (refused.status, held(tracker)["champion"]) == (2, "1")
    forced = run_here("promote", ["2", *mlflow, "--without-gates", "trial"], tmp_path)
    assert forced.status == 0, forced.err

    listed = run_here("history", mlflow, tmp_path).summary["decisions"]
    assert [(e["action"], e["before"], e["version"]) for e in listed] == [
        ("promoted", "1", "2"),
        ("rolled back", "3", "1"),
        ("promoted", "1", "3"),
        ("waits for approval", "1", "1"),
        ("kept", "1", "1"),
        ("promoted", "none", "1"),
    ]
    assert listed[0]["reason"] == "without gates: trial"


def test_gates_against_another_champion_do_not_count(tracker: Tracker) -> None:
    aliases.publish(tracker, decided("1", moved=True, v1=True), EVALUATION, before=None)
    aliases.publish(
        tracker, decided("2", moved=True, v2=True), EVALUATION, before="1", approval=True
    )
    aliases.promote(tracker, "3", override="trial")
    with pytest.raises(UserError, match="compared with version 1, but the champion is version 3"):
        aliases.promote(tracker, "2")
    assert held(tracker)["champion"] == "3"


def test_a_version_that_waits_is_not_displaced_by_one_that_failed(tracker: Tracker) -> None:
    waits = {"evaluation": EVALUATION, "approval": True}
    aliases.publish(tracker, decided("1", moved=True, v1=True), EVALUATION, before=None)
    aliases.publish(tracker, decided("2", moved=True, v2=True), before="1", **waits)
    aliases.publish(tracker, decided("1", moved=False, v3=False), before="1", **waits)
    assert held(tracker) == {"champion": "1", "challenger": "2"}
    assert aliases.promote(tracker, None).version == "2"
    # It waits no longer.
    aliases.publish(tracker, decided("2", moved=False, v3=False), before="2", **waits)
    assert held(tracker) == {"champion": "2", "challenger": "3", "previous": "1"}


def test_a_version_that_does_not_exist_is_one_line(tracker: Tracker, tmp_path: Path) -> None:
    argv = ["9", "--mlflow", tmp_path / "mlflow.yaml"]
    for more in ([], ["--without-gates", "trial"]):
        done = run_here("promote", [*argv, *more], tmp_path)
        assert done.status == 2
        assert "'models:/degrain-denoiser/9' does not exist in the registry" in done.err


def test_of_two_promotions_at_once_the_later_one_changes_nothing(tracker: Tracker) -> None:
    aliases.publish(tracker, decided("1", moved=True, v1=True), EVALUATION, before=None)
    aliases.set_champion(tracker, "2", "1")
    before = held(tracker)
    best = Decision("best-psnr", "3", True, "it is better")
    decisions = [best, *decided("3", moved=True, v3=True)]
    with pytest.raises(JobFailedError, match="become version 2 meanwhile"):
        aliases.publish(tracker, decisions, EVALUATION, before="1")
    assert held(tracker) == before


def test_without_a_previous_champion_there_is_no_rollback(tracker: Tracker) -> None:
    with pytest.raises(UserError, match="no previous champion"):
        aliases.rollback(tracker)
    with pytest.raises(UserError, match="there is no challenger"):
        aliases.promote(tracker, None)


def test_a_champion_that_was_deleted_is_named_when_the_starter_replaces_it(
    tracker: Tracker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tracking = tmp_path / "mlflow.yaml"
    assert lost_champion(tracker.client, tracker.config) is None
    assert Resolver(tracking, Storage()).load(None)[0].name == "starter"
    aliases.promote(tracker, "2", override="test")
    tracker.client.delete_model_version(tracker.config.model, "2")
    assert Resolver(tracking, Storage()).load(None)[0].name == "starter"
    (warning,) = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert warning.startswith(f"the champion was {tracker.config.model} v2, which was deleted")
    assert "degrain promote" in warning


def test_a_champion_whose_files_are_gone_is_named(tracker: Tracker, tmp_path: Path) -> None:
    aliases.promote(tracker, "2", override="test")
    shutil.rmtree(tmp_path / "mlartifacts")
    with pytest.raises(UserError, match=r"the files of \S+ v2 cannot be read from .*; restore"):
        Resolver(tmp_path / "mlflow.yaml", Storage()).load(None)


def test_versions_that_do_not_exist_are_not_promoted(tracker: Tracker) -> None:
    aliases.promote(tracker, "1", override="test")
    tracker.client.delete_model_version(tracker.config.model, "2")
    for version in ("2", "99"):
        with pytest.raises(UserError, match=f"/{version}' does not exist in the registry"):
            aliases.promote(tracker, version, override="test")
    assert held(tracker) == {"champion": "1"}


@pytest.mark.ray
def test_any_model_is_put_forward_through_the_gates(
    ray_cluster: None, tracker: Tracker, tmp_path: Path
) -> None:
    mlflow = ["--mlflow", tmp_path / "mlflow.yaml"]
    corpus = f"pairs={write_pairs(tmp_path / 'photos', SCENES)}"
    argv = ["--corpus", corpus, *TEMPLATES, "--out", tmp_path / "set", "--patch-size", 32]
    assert run_here("ingest", argv, tmp_path).status == 0
    data = ["--data", tmp_path / "set"]
    aliases.promote(tracker, "1", override="it has random weights")
    shutil.copytree(STARTER_FOLDER, tmp_path / "better")

    unknown = run_here("promote", [tmp_path / "better", *mlflow], tmp_path)
    assert (unknown.status, held(tracker)["champion"]) == (2, "1")
    assert "was never compared with the champion; name a patch set with --data" in unknown.err

    better = run_here("promote", [tmp_path / "better", *mlflow, *data], tmp_path)
    assert better.status == 0, better.err
    assert held(tracker) == {
        "champion": "4",
        "previous": "1",
        "best-psnr": "4",
        "best-ssim": "4",
        "fastest-within": "4",
    }
    scores = {row["model"]: row["psnr"] for row in better.summary["comparison"]}
    (proposed,) = [name for name in scores if name.endswith(" (proposed)")]
    version = tracker.client.get_model_version(tracker.config.model, "4")
    assert float(version.tags["rgb8.psnr"]) == pytest.approx(scores[proposed], rel=1e-5)

    again = run_here("promote", ["4", *mlflow, *data], tmp_path)
    assert (again.status, "version 4 is the champion already" in again.err) == (2, True)

    # The run of the second version, which is not registered once more.
    run_id = tracker.client.get_model_version(tracker.config.model, "2").run_id
    worse = run_here("promote", [f"runs:/{run_id}", *mlflow, *data], tmp_path)
    assert (worse.status, held(tracker)["champion"]) == (1, "4")
    assert "error: the champion stays, version 2: gain: " in worse.err
    assert (worse.summary["version"], worse.summary["champion"]) == ("2", "4")
    assert len(tracker.client.search_model_versions(f"name='{tracker.config.model}'")) == 4
    newest = aliases.history(tracker)[0]
    assert (newest.action, newest.version) == ("kept", "4")


def test_a_run_becomes_a_version_once(tracker: Tracker, tmp_path: Path) -> None:
    denoiser, card = Resolver(None, Storage()).load("starter")
    with tracker.run("training", "training") as run:
        log_model(run, denoiser.weights, card)
    mlflow = ["--mlflow", tmp_path / "mlflow.yaml", "--without-gates", "trial"]
    done = run_here("promote", [f"runs:/{run.id}", *mlflow], tmp_path)
    assert done.status == 0, done.err
    assert tracker.client.get_model_version(tracker.config.model, "4").run_id == run.id
    again = run_here("promote", [f"runs:/{run.id}", *mlflow], tmp_path)
    assert "version 4 is the champion already" in again.err


@pytest.mark.ray
def test_a_model_that_has_seen_the_test_photos_is_refused_before_the_comparison(
    ray_cluster: None, tracker: Tracker, tmp_path: Path
) -> None:
    corpus = f"pairs={write_pairs(tmp_path / 'photos', SCENES)}"
    argv = ["--corpus", corpus, *TEMPLATES, "--out", tmp_path / "set", "--patch-size", 32]
    assert run_here("ingest", argv, tmp_path).status == 0
    denoiser, card = Resolver(None, Storage()).load("starter")
    photos = PatchSet.open(str(tmp_path / "set"), Storage()).photos("test")
    seen = replace(card, training_photos=TrainingPhotos.of(photos).to_text())
    (tmp_path / "seen").mkdir()
    write_model(tmp_path / "seen", denoiser.weights, seen)
    argv = [tmp_path / "seen", "--mlflow", tmp_path / "mlflow.yaml", "--data", tmp_path / "set"]
    done = run_here("promote", argv, tmp_path)
    assert (done.status, held(tracker)) == (2, {})
    assert "was trained on 1 of the 1 test photos of patch set" in done.err


def test_gates_and_a_reason_to_leave_them_out_are_not_combined(tmp_path: Path) -> None:
    done = run_here("promote", ["1", "--data", "set", "--without-gates", "trial"], tmp_path)
    assert (done.status, "leave one of them out" in done.err) == (2, True)
    done = run_here("promote", ["--data", "set"], tmp_path)
    assert (done.status, "name the model that is to be compared" in done.err) == (2, True)
