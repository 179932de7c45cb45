"""Recipes: every network has one, and options of the command line win over it."""

import pytest

from degrain.cli.options import parse
from degrain.cli.train import Train
from degrain.training.config import TrainingConfig
from degrain.training.recipes import by_recipe, recipe
from denoisenets import list_models


@pytest.mark.parametrize("name", list_models())
def test_every_network_has_a_recipe(name: str) -> None:
    config = by_recipe(TrainingConfig(model=name))
    assert config.learning_rate == recipe(name).learning_rate
    assert config.balance == 1


def test_training_from_a_model_has_the_rate_of_fine_tuning() -> None:
    config = by_recipe(TrainingConfig(model="unet", start="models:/denoiser/1"))
    assert config.learning_rate == recipe("unet").fine_tuning_rate
    assert config.learning_rate < recipe("unet").learning_rate


def test_an_unknown_network_is_reported_by_name() -> None:
    with pytest.raises(ValueError, match="unknown model 'fats24'; did you mean 'fast24'"):
        recipe("fats24")


def parsed(*argv: str) -> TrainingConfig:
    """The training options of a command line, as `execute` parses them."""
    defaults = parse(Train, argv, prog="degrain train").defaults()
    return parse(Train, argv, prog="degrain train", default=defaults).training


def test_options_win_over_the_recipe() -> None:
    config = parsed("--data", "x", "--model", "ffdnet", "--loss", "l1", "--balance", "0")
    assert (config.loss, config.balance) == ("l1", 0)
    assert config.learning_rate == recipe("ffdnet").learning_rate


def test_the_network_of_the_starter_is_chosen_with_it() -> None:
    config = parsed("--data", "x", "--start", "starter", "--budget", "15m")
    assert (config.model, config.arguments["width"], config.budget) == ("fast24", 24, 900)
    assert config.learning_rate == recipe("fast24").fine_tuning_rate
