"""A study's configuration is checked where it is built, and completed by the cluster."""

import pytest

from degrain.errors import InvalidFieldError, UserError
from degrain.tuning.config import StudyConfig


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"models": ()}, "name at least one model with `models`"),
        ({"models": ("red10", "red10")}, "`models` has duplicates: red10, red10"),
        ({"models": ("red1O",)}, "unknown model 'red1O'; did you mean 'red10'"),
        ({"trials": 1}, "2 models need at least as many trials, got 1"),
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
        ({"workers": 0}, "workers must be at least 1, got 0"),
        ({"gpus": -1}, "gpus must be a number that is not negative, got -1"),
        ({"seed": -1}, "seed must be a number that is not negative, got -1"),
        ({"scale": "huge"}, "scale must be one of small, paper, got 'huge'"),
        ({"sampling": "even"}, "sampling must be one of uniform, balanced, got 'even'"),
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


def test_gpus_choose_the_scale() -> None:
    assert StudyConfig().fit_to(8, 0).scale == "small"
    assert StudyConfig().fit_to(8, 1).scale == "paper"
    assert StudyConfig(scale="small").fit_to(8, 1).scale == "small"
