"""The file of a study: complete after each event."""

import json
from pathlib import Path

import pytest

from degrain.storage import json_file
from degrain.storage.location import Storage
from degrain.tuning import state as state_module
from degrain.tuning.config import StudyConfig
from degrain.tuning.space import Draw
from degrain.tuning.state import StudyState, new_name, read_state
from degrain.tuning.trial import Trial

CONFIG = StudyConfig(models=("red10",), trials=3).fit_to(2, 0)


def trial(number: int, status: str = "running") -> Trial:
    return Trial(number, Draw("red10", {}, {}, {}), CONFIG.training(model="red10"), 5, status)


def new_state(folder: Path) -> StudyState:
    return StudyState(Storage().locate(folder) / "s", CONFIG, "patches", "run")


def test_studies_that_start_within_one_second_have_names_of_their_own() -> None:
    """Two retrainings that shared a folder ran trials of one name, and each failed the other's."""
    assert len({new_name() for _ in range(20)}) > 15


def test_a_study_is_read_as_it_was_written(tmp_path: Path) -> None:
    state = new_state(tmp_path)
    state.write()
    assert read_state(Storage().locate(tmp_path), "s") == state
    first, second = trial(1), trial(0, "finished")
    first.curve.append((50.0, float("nan")))
    for each in (first, second):
        state.record(each)
    # A change that no event has recorded yet.
    first.halved, first.curve = True, [(50.0, 20.0)]
    state.record_refit("refit-red10", "run-2")
    assert read_state(Storage().locate(tmp_path), "s") == state
    assert list(read_state(Storage().locate(tmp_path), "s").trials) == [0, 1]


def test_an_ended_trial_is_encoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[int] = []

    def encode(content: dict[str, int]) -> str:
        encoded.append(content["number"])
        return json_file.json_line(content)

    monkeypatch.setattr(state_module, "json_line", encode)
    state = new_state(tmp_path)
    for number in range(3):
        state.record(trial(number, "stopped"))
    assert encoded == [0, 1, 2]
    again = trial(1, "finished")
    state.record(again)
    assert encoded == [0, 1, 2, 1]
    written = json.loads((tmp_path / "s" / "study.json").read_text())
    assert [t["status"] for t in written["trials"]] == ["stopped", "finished", "stopped"]
