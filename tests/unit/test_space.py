"""Search spaces: every network has one, and a seed determines the trials."""

from typing import get_args

import pytest

from degrain.inference.config import STARTER
from degrain.storage.location import Storage
from degrain.tracking.registry import load_model
from degrain.training.config import TrainingConfig
from degrain.tuning.config import Scale
from degrain.tuning.space import draw_trials, search_space
from denoisenets import full_arguments, list_models


@pytest.mark.parametrize("scale", get_args(Scale))
@pytest.mark.parametrize("name", list_models())
def test_every_network_has_a_search_space(name: str, scale: Scale) -> None:
    space = search_space(name, scale)
    assert space.start == STARTER or len(space.arguments["width"]) > 1
    for draw in draw_trials([name], 4, scale, seed=0):
        config = TrainingConfig(**draw.to_dict())
        assert config.crop_of(256) in (64, 256)
        if scale == "small":
            assert config.crop_of(64) == 64


def test_a_study_with_more_trials_starts_with_the_same_trials() -> None:
    few, many = (draw_trials(["unet", "red10"], count, "small", seed=3) for count in (4, 8))
    assert many[:4] == few
    assert draw_trials(["unet"], 3, "small", seed=4) != draw_trials(["unet"], 3, "small", seed=3)


def test_the_network_of_the_starter_has_its_size_and_starts_from_it() -> None:
    _, card = load_model(STARTER, None, Storage())
    draws = draw_trials([card.model], 3, "small", seed=0)
    assert {draw.start for draw in draws} == {STARTER}
    assert all(full_arguments(card.model, draw.arguments) == card.arguments for draw in draws)
    assert {draw.start for draw in draw_trials(["red10"], 2, "small", seed=0)} == {None}


def test_an_unknown_network_is_reported_by_name() -> None:
    with pytest.raises(ValueError, match="unknown model 'redd'"):
        search_space("redd", "small")
