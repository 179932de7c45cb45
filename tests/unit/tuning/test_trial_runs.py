"""The runs of trials in MLflow: metrics, and a description that names the outcome."""

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Metric
from unit.patchset_support import ROW, STORAGE, publish_rows

from degrain.errors import JobFailedError
from degrain.patchsets.patch_set import PatchSet
from degrain.tuning.config import StudyConfig
from degrain.tuning.sampler import OUTCOME_TAG, EarlierTrial
from degrain.tuning.search import TrialPlan, spaces_of
from degrain.tuning.state import StudyState
from degrain.tuning.trial_runs import TrialRuns

METRICS = {"step": 2.0, "progress": 25.0, "val_psnr": 31.216, "val_ssim": 0.8}


class Recorder:
    """Stands for the tracker and for its one run."""

    def __init__(self) -> None:
        self.params_: dict[str, Any] = {}
        self.logged: dict[str, float] = {}
        self.tags_: dict[str, str] = {}
        self.notes: list[str] = []
        self.status = ""
        self.id = "run"

    def start(self, *_: object, **__: object) -> "Recorder":
        return self

    def params(self, values: dict[str, Any]) -> None:
        self.params_ = values

    def describe(self, note: str, _: PatchSet) -> None:
        self.notes.append(note)

    def log(self, metrics: Sequence[Metric]) -> None:
        assert {metric.step for metric in metrics} == {2}
        self.logged = {metric.key: metric.value for metric in metrics}

    def tags(self, values: dict[str, str]) -> None:
        self.tags_.update(values)

    def finish(self, status: str, note: str) -> None:
        self.status = status
        self.notes.append(note)


def recorded(
    tmp_path: Path, status: str, error: str | None = None, kind: type[Recorder] = Recorder
) -> Recorder:
    """What a trial that was validated once logs, if it ends with `status`."""
    recorder: Any = kind()
    patch_set, _ = publish_rows(STORAGE.locate(tmp_path), [ROW])
    config = StudyConfig(models=("red10",), trials=3).fit_to(2, 0)
    state = StudyState(STORAGE.locate(tmp_path / "study"), config, patch_set.uri, "study")
    plan = TrialPlan(config, spaces_of(config, patch_set.manifest), config.trial_length(2))
    _, trial, _ = plan.queue()
    with (
        contextlib.suppress(KeyboardInterrupt),
        TrialRuns(3, recorder, recorder, patch_set, {}, lambda _: None, state) as runs,
    ):
        runs.started(trial)
        trial.status, trial.best = "running", METRICS
        trial.curve = [(METRICS["progress"], METRICS["val_psnr"])]
        runs.reported(trial, METRICS)
        trial.status, trial.error = status, error
        if status == "running":
            raise KeyboardInterrupt
        runs.ended(trial)
    assert isinstance(recorder, Recorder)
    return recorder


@pytest.mark.parametrize(
    ("status", "error", "ending", "in_mlflow"),
    [
        (
            "stopped",
            None,
            "It was stopped early, after 25% of its length, at 31.22 dB on the val split.",
            "FINISHED",
        ),
        ("finished", None, "It finished at 31.22 dB on the val split.", "FINISHED"),
        ("failed", "it diverged", "It failed: it diverged", "FAILED"),
        ("running", None, "The study was interrupted.", "KILLED"),
    ],
)
def test_a_trial_says_what_it_is_and_how_it_ended(
    tmp_path: Path, status: str, error: str | None, ending: str, in_mlflow: str
) -> None:
    recorder = recorded(tmp_path, status, error)
    began, ended = recorder.notes
    assert began.startswith("One of 3 trials: red10, width ")
    assert (ended, recorder.status) == (ending, in_mlflow)


def test_a_trial_sets_gauges_and_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gauges: dict[str, list[float]] = {}
    counted: list[dict[str, str]] = []
    monkeypatch.setattr(
        "degrain.monitoring._set",
        lambda metric, value, _: gauges.setdefault(metric.name, []).append(value),
    )
    monkeypatch.setattr(
        "degrain.monitoring._increase", lambda metric, labels: counted.append(labels)
    )
    recorded(tmp_path, "stopped")
    assert gauges["degrain_val_psnr_db"] == [METRICS["val_psnr"]]
    # After its end a trial has no throughput.
    assert gauges["degrain_patches_per_second"][-1] == 0
    assert counted == [{"model": "red10", "status": "stopped"}]


def test_a_trial_keeps_its_outcome_for_later_studies(tmp_path: Path) -> None:
    kept = EarlierTrial.read(recorded(tmp_path, "stopped").tags_[OUTCOME_TAG])
    assert kept.draw.model == "red10"
    assert (kept.best, kept.stopped_at) == ({"val_psnr": 31.216, "val_ssim": 0.8}, 25.0)


def test_a_trial_logs_scores_against_seconds_and_no_bookkeeping(tmp_path: Path) -> None:
    logged = recorded(tmp_path, "finished").logged
    assert set(logged) == {"seconds", "val_psnr", "val_ssim"}
    assert logged["seconds"] >= 0


def test_each_searched_value_and_argument_is_a_parameter(tmp_path: Path) -> None:
    params = recorded(tmp_path, "finished").params_
    assert {"model", "learning_rate", "loss", "batch_size", "crop"} <= set(params)
    assert set(params["arguments"]) == {"width"}


class RejectsStarts(Recorder):
    """Stands for a server that rejects new runs."""

    def start(self, *_: object, **__: object) -> "Recorder":
        raise JobFailedError("rejected")


class RejectsEnds(Recorder):
    """Stands for a server that rejects the end of a run."""

    def finish(self, status: str, note: str) -> None:
        raise JobFailedError("rejected")


def test_the_state_file_has_no_more_than_mlflow(tmp_path: Path) -> None:
    with pytest.raises(JobFailedError, match="rejected"):
        recorded(tmp_path, "finished", kind=RejectsStarts)
    assert not (tmp_path / "study" / "study.json").exists()
    with pytest.raises(JobFailedError, match="rejected"):
        recorded(tmp_path, "finished", kind=RejectsEnds)
    [trial] = json.loads((tmp_path / "study" / "study.json").read_text())["trials"]
    assert (trial["run_id"], trial["status"]) == ("run", "running")
    assert trial["curve"] == [[25.0, 31.216]]
