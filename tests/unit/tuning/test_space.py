"""Search spaces: every network has one, conditions hold, changes are checked."""

import json
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from degrain.domains import Choice, LogUniform, Uniform
from degrain.errors import UserError
from degrain.inference.config import STARTER
from degrain.presets import STARTER_NETWORK
from degrain.registry.resolver import Resolver
from degrain.storage.location import Storage
from degrain.training.config import TrainingConfig
from degrain.tuning.config import Scale, StudyConfig
from degrain.tuning.sampler import Suggester
from degrain.tuning.space import SearchSpace, SpaceChanges, search_space
from denoisenets import full_arguments, list_models


@pytest.mark.slow
@pytest.mark.parametrize("scale", get_args(Scale))
@pytest.mark.parametrize("name", list_models())
def test_every_network_has_a_search_space(name: str, scale: Scale) -> None:
    space = search_space(name, scale)
    suggester = Suggester([space], algorithm="random")
    for number in range(6):
        draw = suggester.suggest(number)
        config = TrainingConfig(**draw.to_dict())
        assert config.crop_of(256) in (64, 96, 128, 256)
        if scale == "small":
            assert config.crop_of(128) in (64, 96)


@pytest.mark.parametrize("name", ["fast16", "fast24"])
def test_fast_networks_start_with_the_crop_and_batch_that_were_measured(name: str) -> None:
    draw = Suggester([search_space(name, "small")]).suggest(0)
    assert (draw.training["crop"], draw.training["batch_size"]) == (96, 8)
    if name == STARTER_NETWORK:
        assert draw.training["start"] == STARTER
        assert draw.training["learning_rate"] == 1e-3


def test_trials_from_the_starter_have_its_arguments_and_a_low_rate() -> None:
    _, card = Resolver(None, Storage()).load(STARTER)
    assert card.model == STARTER_NETWORK
    suggester = Suggester([search_space(card.model, "small")], algorithm="random")
    draws = [suggester.suggest(n) for n in range(12)]
    assert {draw.training["start"] for draw in draws} == {STARTER, None}
    for draw in draws:
        if draw.training["start"] == STARTER:
            assert full_arguments(card.model, draw.arguments) == card.arguments
            assert draw.training["learning_rate"] <= 2e-3
        else:
            assert set(draw.arguments) == {"width", "depth"}
            assert draw.training["learning_rate"] >= 1e-3


def test_crops_larger_than_the_patches_are_left_out() -> None:
    space = search_space("fast16", "small")
    assert space.fitting(64, 100).fields["crop"] == (Choice((64,)),)
    assert "crop" not in space.fitting(32, 100).fields
    assert space.fitting(64, 4).fields["batch_size"] == (Choice((4,)),)


def test_an_unknown_network_is_reported_by_name() -> None:
    with pytest.raises(ValueError, match="unknown model 'redd'"):
        search_space("redd", "small")


def test_yaml_file_and_json_change_a_space_alike(tmp_path: Path) -> None:
    file = tmp_path / "spaces.yaml"
    file.write_text(
        "fast24:\n  crop: 64\n  loss: [l1, psnr]\n  learning_rate:\n"
        "    - {log_uniform: [1e-4, 1e-3], when: {start: starter}}\n"
        "    - {uniform: [0.001, 0.002], when: {start: null}}\n"
    )
    changes = SpaceChanges.parse(str(file))
    assert SpaceChanges.parse(json.dumps(changes.networks)) == changes
    fields = search_space("fast24", "small", changes).fields
    assert fields["crop"] == (Choice((64,)),)
    assert fields["loss"] == (Choice(("l1", "psnr")),)
    low, high = fields["learning_rate"]
    assert low == LogUniform(1e-4, 1e-3, when={"start": "starter"})
    assert high == Uniform(0.001, 0.002, when={"start": None})
    assert fields["depth"] == search_space("fast24", "small").fields["depth"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fats24": {}}, "unknown model 'fats24'; did you mean 'fast24'"),
        ({"red10": {"cropp": 64}}, "unknown field 'red10.cropp'; did you mean 'red10.crop'"),
        ({"red10": {"crop": {"choise": [64]}}}, "unknown key 'choise'; did you mean 'choice'"),
        ({"red10": {"crop": 3}}, "red10.crop: crop must be at least 16 pixels, got 3"),
        ({"red10": {"crop": 64.5}}, "red10.crop: must be a whole number, got 64.5"),
        ({"red10": {"loss": "mae"}}, "red10.loss: loss must be one of"),
        ({"red10": {"width": "wide"}}, "red10.width: "),
        ({"red10": {"start": "starter"}}, "the starter is a fast24"),
        ({"fast24": {"start": "other"}}, "must be starter or null, got 'other'"),
        ({"red10": {"learning_rate": {"log_uniform": [0, 1]}}}, "must be positive"),
        ({"red10": {"learning_rate": {"uniform": [2, 1]}}}, "a range needs low < high"),
        ({"red10": {"learning_rate": {"uniform": [1]}}}, "`uniform` needs a list of two numbers"),
        ({"red10": {"crop": {"choice": [64], "when": {"crop": 1}}}}, "unknown condition 'crop'"),
        ({"red10": {"crop": []}}, "a choice needs at least one value"),
        ({"red10": 64}, "'red10' must be a mapping"),
    ],
)
def test_wrong_changes_are_refused_in_one_line(changes: dict, message: str) -> None:
    with pytest.raises(UserError) as caught:
        StudyConfig(spaces=SpaceChanges(changes))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@given(
    low=st.floats(1e-6, 1), factor=st.floats(1.01, 1e3), seed=st.integers(0, 99), log=st.booleans()
)
@example(low=1.0000000000000002e-06, factor=1.01, seed=0, log=True)
def test_draws_stay_within_their_ranges(low: float, factor: float, seed: int, log: bool) -> None:
    domain = (LogUniform if log else Uniform)(low, low * factor)
    space = SearchSpace("red10", {"learning_rate": (domain,)})
    suggester = Suggester([space], algorithm="random", seed=seed)
    for number in range(3):
        assert low <= suggester.suggest(number).training["learning_rate"] <= low * factor
