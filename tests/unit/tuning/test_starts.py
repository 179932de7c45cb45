"""A study around a model: its network, its arguments, its weights and its training first."""

from dataclasses import replace
from typing import Any

import pytest

from degrain.inference.config import STARTER
from degrain.inference.denoiser import NetworkDenoiser
from degrain.presets import preset
from degrain.registry.card import ModelCard
from degrain.registry.resolver import Resolver
from degrain.storage.location import Storage
from degrain.tuning.config import StudyConfig
from degrain.tuning.sampler import Suggester
from degrain.tuning.space import Draw, search_space
from degrain.tuning.starts import StartingModel, Starts
from denoisenets import create_model, full_arguments, model_contract

URI = "models:/degrain-denoiser/3"
UNET: dict[str, Any] = {"width": 10, "depth": 1}
TRAINING = {"crop": 64, "batch_size": 6, "loss": "l1", "balance": 0.5, "learning_rate": 3e-3}


def starts(model: str, arguments: dict[str, Any]) -> Starts:
    starter = StartingModel(STARTER, *Resolver(None, Storage()).load(STARTER))
    contract = model_contract(model, **arguments)
    card = ModelCard(
        model=model,
        arguments=full_arguments(model, arguments),
        patch_set="1",
        training=TRAINING,
        crop=64,
        size_multiple=contract.size.multiple,
        halo=contract.receptive_radius,
    )
    weights = create_model(model, **arguments).state_dict()
    denoiser = NetworkDenoiser(model, arguments, weights, name="champion", crop=64)
    return Starts(starter, StartingModel(URI, denoiser, card))


def draws(found: Starts, model: str, count: int = 24) -> list[Draw]:
    suggester = Suggester([found.surround(search_space(model, "small"))], algorithm="random")
    return [suggester.suggest(number) for number in range(count)]


def test_the_first_trial_continues_the_model_as_it_was_trained() -> None:
    first = draws(starts("unet", UNET), "unet")[0]
    assert first.arguments == full_arguments("unet", UNET)
    rate = preset("unet").recipe.fine_tuning_rate
    assert first.training == {**TRAINING, "start": URI, "learning_rate": rate}
    assert (
        starts("unet", UNET).weights[URI].keys() == create_model("unet", **UNET).state_dict().keys()
    )


def test_later_trials_vary_its_training_and_also_start_from_nothing() -> None:
    found = draws(starts("unet", UNET), "unet")
    assert {draw.training["start"] for draw in found} == {URI, None}
    for draw in found:
        if draw.training["start"] == URI:
            assert draw.arguments == full_arguments("unet", UNET)
            assert draw.training["learning_rate"] <= 2 * preset("unet").recipe.fine_tuning_rate
        else:
            assert set(draw.arguments) == {"width", "depth"}
            assert draw.training["learning_rate"] >= 1e-3
    assert len({draw.training["batch_size"] for draw in found}) > 1


def test_a_model_of_the_starters_network_does_not_replace_the_starter() -> None:
    found = draws(starts("fast24", {"width": 12}), "fast24")
    assert {draw.training["start"] for draw in found} == {URI, STARTER, None}
    for draw in found:
        width = full_arguments("fast24", draw.arguments)["width"]
        if draw.training["start"] == URI:
            assert width == 12
        elif draw.training["start"] == STARTER:
            assert draw.arguments == {}


def test_no_trial_starts_from_what_the_model_itself_started_from() -> None:
    """From the second retraining on the champion's own start is an older version."""
    found = starts("fast24", {})
    assert found.around is not None
    card = replace(found.around.card, training={**TRAINING, "start": "models:/degrain-denoiser/2"})
    second = replace(found, around=replace(found.around, card=card))
    used = {draw.training["start"] for draw in draws(second, "fast24", 40)}
    assert used == {URI, STARTER} | (used & {None})
    assert used - {None} <= set(second.weights)


def test_spaces_of_other_networks_stay_as_they_are() -> None:
    space = search_space("red10", "small")
    assert starts("unet", UNET).surround(space) is space


@pytest.mark.parametrize(
    ("models", "trials", "expected", "trials_then"),
    [
        (("red10", "unet"), 3, ("red10", "unet"), 3),
        (("red10", "dncnn"), 2, ("unet", "red10", "dncnn"), 3),
        (None, 6, ("unet", "fast24"), 6),
    ],
)
def test_its_network_is_tuned_too(
    models: tuple[str, ...] | None, trials: int, expected: tuple[str, ...], trials_then: int
) -> None:
    config = StudyConfig(models=models, trials=trials, start=URI)
    found = starts("unet", UNET).include_network(config)
    assert (found.tuned, found.trials) == (expected, trials_then)
    assert replace(found, models=models, trials=trials) == config
