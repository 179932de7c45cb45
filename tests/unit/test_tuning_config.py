"""The lengths of trials and refits in a study."""

import pytest

from degrain.durations import Duration
from degrain.tuning.config import StudyConfig


def test_a_budget_is_shared_out_between_search_and_refits() -> None:
    config = StudyConfig(models=("red10", "mwcnn"), trials=6, budget=Duration(800))
    # Six trials, two at a time: three rounds in a quarter of the time.
    assert config.trial_length(parallel=2)["budget"] == pytest.approx(200 / 3)
    assert config.refit_length()["budget"] == pytest.approx(300)


def test_numbers_of_steps_replace_the_budget() -> None:
    config = StudyConfig(steps=40, refit_steps=90)
    assert config.trial_length(parallel=2) == {"steps": 40, "validate_every": 10}
    assert config.refit_length() == {"steps": 90, "budget": None, "validate_every": 30}
