"""A study's configuration is checked where it is built, and completed by the cluster."""

import json
from dataclasses import replace

import pytest

from degrain.durations import Duration
from degrain.errors import InvalidFieldError, UserError
from degrain.tuning.config import EMBEDDED_MODELS, MODELS_FROM_BUDGET, FittedStudy, StudyConfig
from degrain.tuning.sampler import Suggester
from degrain.tuning.search import make_trial
from degrain.tuning.space import SpaceChanges, search_space


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"models": ()}, "name at least one model with `models`"),
        ({"models": ("red10", "red10")}, "`models` has duplicates: red10, red10"),
        ({"models": ("red1O",)}, "unknown model 'red1O'; did you mean 'red10'"),
        (
            {"models": EMBEDDED_MODELS, "trials": 1},
            "4 models need at least as many trials, got 1",
        ),
    ],
)
def test_wrong_models_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        StudyConfig(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"refit_steps": 0}, "refit_steps must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"crop": 3}, "crop must be at least 16 pixels, got 3"),
        ({"validation_patches": 0}, "validation_patches must be at least 1, got 0"),
        ({"test_photos": 0}, "test_photos must be at least 1, got 0"),
        ({"trials": 0}, "trials must be at least 1, got 0"),
        ({"workers": 0}, "workers must be at least 1, got 0"),
        ({"gpus": -1}, "gpus must be a number that is not negative, got -1"),
        ({"seed": -1}, "seed must be a number that is not negative, got -1"),
        ({"scale": "huge"}, "scale must be one of small, paper, got 'huge'"),
        ({"balance": 2.0}, "balance must be a share between 0 and 1, got 2.0"),
        ({"budget": Duration(-5)}, "budget must be a positive number"),
        ({"batch_size": 2, "workers": 3}, "batch_size 2 leaves some of 3 workers without a patch"),
    ],
)
def test_wrong_fields_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(InvalidFieldError, match=message) as caught:
        StudyConfig(**changes)
    assert caught.value.field == message.partition(" ")[0]


@pytest.mark.parametrize(
    ("changes", "cpus", "gpus", "workers"),
    [
        ({}, 8, 0, 2),
        ({}, 1, 0, 1),
        ({}, 8, 1, 1),
        ({}, 8, 4, 2),
        ({"gpus": 2}, 8, 3, 1),
        ({"gpus": 0.5}, 8, 4, 1),
        ({"batch_size": 1}, 8, 0, 1),
        ({"workers": 4}, 2, 0, 4),
    ],
)
def test_default_workers_fit_the_cluster_and_the_batch(
    changes: dict, cpus: float, gpus: float, workers: int
) -> None:
    assert StudyConfig(**changes).fit_to(cpus, gpus).refit_workers.workers.maximum == workers


@pytest.mark.parametrize(("budget", "models"), MODELS_FROM_BUDGET.items())
def test_the_budget_chooses_the_models_that_are_not_named(
    budget: float, models: tuple[str, ...]
) -> None:
    study = StudyConfig(budget=Duration(budget + 1))
    assert study.fit_to(2, 0).models == models
    assert replace(study, trials=1).fit_to(2, 0).models == models[:1]
    assert replace(study, models=("red10",)).fit_to(2, 0).models == ("red10",)


def test_gpus_choose_the_scale() -> None:
    assert StudyConfig().fit_to(8, 0).scale == "small"
    assert StudyConfig().fit_to(8, 1).scale == "paper"
    assert StudyConfig(scale="small").fit_to(8, 1).scale == "small"


@pytest.mark.parametrize(("cpus", "gpus", "workers"), [(2, 0, 2), (8, 4, 4), (8, 0, 8)])
def test_workers_of_a_trial_that_fit_are_taken(cpus: float, gpus: float, workers: int) -> None:
    config = StudyConfig(workers_per_trial=workers).fit_to(cpus, gpus)
    assert config.trial_workers.workers.maximum == workers
    with pytest.raises(UserError, match=f"workers_per_trial {workers + 1} need {workers + 1} "):
        StudyConfig(workers_per_trial=workers + 1).fit_to(cpus, gpus)


def test_several_workers_of_a_trial_need_whole_gpus() -> None:
    StudyConfig(gpus=0.5)
    with pytest.raises(UserError, match="gpus must be whole where a trial has several workers"):
        StudyConfig(gpus=0.5, workers_per_trial=2)


def test_a_budget_is_shared_out_between_search_and_refits() -> None:
    config = StudyConfig(models=("red10", "mwcnn"), trials=6, budget=Duration(800))
    # Six trials, two at a time: three rounds in a quarter of the time.
    assert config.trial_length(parallel=2)["budget"] == pytest.approx(200 / 3)
    assert config.refit_length(2)["budget"] == pytest.approx(300)


def test_numbers_of_steps_replace_the_budget() -> None:
    config = StudyConfig(steps=40, refit_steps=90)
    assert config.trial_length(parallel=2) == {"steps": 40, "validate_every": 10}
    assert config.refit_length(2) == {"steps": 90, "budget": None, "validate_every": 30}


def test_all_trials_of_the_default_study_accept_its_crops() -> None:
    config = StudyConfig(models=EMBEDDED_MODELS).fit_to(2, 0)
    suggester = Suggester([search_space(model, "small") for model in config.tuned])
    for number in range(config.trials):
        trial = make_trial(config, number, suggester.suggest(number), config.trial_length(2))
        assert trial.config.crop_of(128) in (64, 96)
        assert trial.config.clean_share == 0.05


def test_a_refit_has_no_more_workers_than_its_batch_has_patches() -> None:
    config = StudyConfig().fit_to(8, 0)
    assert config.workers_for(8).workers.maximum == 2
    assert config.workers_for(1).workers.maximum == 1


def test_a_study_is_read_as_it_was_written() -> None:
    changes = SpaceChanges({"red10": {"crop": [64, 96], "learning_rate": {"uniform": [0.1, 1.0]}}})
    config = StudyConfig(models=("red10",), budget=Duration(90), spaces=changes).fit_to(2, 0)
    assert FittedStudy.from_dict(json.loads(json.dumps(config.to_dict()))) == config
