"""Recipes: every network has one, and options of the command line win over it."""

import re
from pathlib import Path

import pytest

from degrain.cli.options import given_options, parse
from degrain.cli.train import Train
from degrain.errors import InvalidFieldError
from degrain.presets import preset
from degrain.training.config import TrainingConfig, by_recipe
from denoisenets import list_models


@pytest.mark.parametrize("name", list_models())
def test_every_network_has_a_recipe(name: str) -> None:
    config = by_recipe(TrainingConfig(model=name))
    assert config.learning_rate == preset(name).recipe.learning_rate
    assert config.balance == 1


def test_training_from_a_model_has_the_rate_of_fine_tuning() -> None:
    config = by_recipe(TrainingConfig(model="unet", start="models:/denoiser/1"))
    assert config.learning_rate == preset("unet").recipe.fine_tuning_rate
    assert config.learning_rate < preset("unet").recipe.learning_rate


def test_an_unknown_network_is_reported_by_name() -> None:
    with pytest.raises(ValueError, match="unknown model 'fats24'; did you mean 'fast24'"):
        preset("fats24")


def parsed(*argv: str) -> TrainingConfig:
    """The training options of a command line, as `execute` parses them."""
    plain = parse(Train, argv, prog="degrain train")
    defaults = plain.defaults(given_options(Train, argv))
    found = parse(Train, argv, prog="degrain train", default=defaults)
    found.check_against(defaults)
    return found.training


def test_options_win_over_the_recipe() -> None:
    config = parsed("--data", "x", "--model", "ffdnet", "--loss", "l1", "--balance", "0")
    assert (config.loss, config.balance) == ("l1", 0)
    assert config.learning_rate == preset("ffdnet").recipe.learning_rate


def test_the_network_of_the_starter_is_chosen_with_it() -> None:
    config = parsed("--data", "x", "--start", "starter", "--budget", "15m")
    assert (config.model, config.arguments["width"], config.budget) == ("fast24", 24, 900)
    assert config.learning_rate == preset("fast24").recipe.fine_tuning_rate


@pytest.mark.parametrize(
    ("options", "model", "start", "steps", "budget"),
    [
        ([], "fast24", "starter", 20_000, 600),
        (["--seed", "1"], "fast24", "starter", 20_000, 600),
        (["--steps", "30"], "fast24", "starter", 30, None),
        (["--budget=2m"], "fast24", "starter", 20_000, 120),
        (["--model", "red10"], "red10", None, 20_000, None),
        (["--model", "fast24"], "fast24", None, 20_000, None),
        (["--start", "starter"], "fast24", "starter", 20_000, None),
        (["--start", "starter", "--model", "fast24"], "fast24", "starter", 20_000, None),
    ],
)
def test_training_without_a_network_starts_from_the_starter(
    options: list[str], model: str, start: str | None, steps: int, budget: float | None
) -> None:
    config = parsed("--data", "x", *options)
    assert (config.model, config.start) == (model, start)
    assert (config.steps, config.budget) == (steps, budget)


def test_a_file_of_options_counts_as_given(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("training:\n  model: unet\n")
    config = parsed("--data", "x", "--config", str(tmp_path / "run.yaml"))
    assert (config.model, config.start) == ("unet", None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "fast16"], "model cannot be chosen with `start`: 'starter' has fast24; leave"),
        (
            ["--arguments", '{"width": 16}'],
            "arguments cannot be chosen with `start`: 'starter' has {\"width\": 24",
        ),
    ],
)
def test_a_network_that_is_not_the_starting_model_s_is_refused(
    options: list[str], message: str
) -> None:
    with pytest.raises(InvalidFieldError, match=re.escape(message)):
        parsed("--data", "x", "--start", "starter", *options)
