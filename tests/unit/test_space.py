"""Search spaces: every network can be searched, and a seed draws the same trials whatever else is asked."""

import pytest

from degrain.training.config import TrainingConfig
from degrain.tuning.space import SCALES, Scale, draw_trials, search_space
from denoisenets import list_models


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", list_models())
def test_every_network_can_be_searched_by_width(name: str, scale: Scale) -> None:
    space = search_space(name, scale)
    assert len(space.arguments["width"]) > 1
    for draw in draw_trials([name], 4, scale, seed=0):
        config = TrainingConfig(**draw.to_dict())
        assert config.crop_of(256) == 256
        if scale == "small":
            assert config.crop_of(64) == 64


def test_more_trials_keep_the_first_ones() -> None:
    few, many = (draw_trials(["unet", "red10"], count, "small", seed=3) for count in (4, 8))
    assert many[:4] == few
    assert draw_trials(["unet"], 3, "small", seed=4) != draw_trials(["unet"], 3, "small", seed=3)


def test_an_unknown_network_is_named() -> None:
    with pytest.raises(ValueError, match="unknown model 'redd'"):
        search_space("redd", "small")
