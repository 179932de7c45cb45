"""What a study learns from the trials of earlier ones."""

import json
from collections.abc import Mapping
from dataclasses import replace
from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st
from mlflow.store.entities import PagedList

from degrain.domains import Choice, LogUniform
from degrain.durations import Duration
from degrain.tracking.config import TrackingConfig
from degrain.tracking.runs import Tracker
from degrain.training.config import TrainingConfig
from degrain.tuning.sampler import (
    COLD,
    OUTCOME_TAG,
    EarlierTrial,
    Suggester,
    WarmStart,
    earlier_trials,
)
from degrain.tuning.space import Draw, SearchSpace, search_space
from degrain.tuning.trial import Trial

SPACES = [
    SearchSpace("red10", {"learning_rate": (LogUniform(1e-4, 1e-1),), "crop": (Choice((24, 32)),)}),
    SearchSpace("unet", {"learning_rate": (LogUniform(1e-4, 1e-1),)}),
]
STEPS = TrainingConfig(steps=100, validation_patches=48)


def draw_of(space: SearchSpace, rate: float) -> Draw:
    return space.draw(lambda name, domain: rate if name == "learning_rate" else domain.middle)


def earlier(
    rate: float, psnr: float | None = 30.0, *, space: int = 0, **changes: object
) -> EarlierTrial:
    best = {} if psnr is None else {"val_psnr": psnr, "val_ssim": 0.9}
    trial = EarlierTrial(draw_of(SPACES[space], rate), best, None, None, 100, 48)
    return replace(trial, **changes)


def test_a_trial_is_read_as_it_was_kept() -> None:
    draw = search_space("fast24", "small").draw(lambda _, domain: domain.middle)
    metrics = {"val_psnr": 31.5, "val_ssim": 0.8, "step": 50.0}
    trial = Trial(3, draw, STEPS, 10, "stopped", metrics, curve=[(25.0, 30.0), (50.0, 31.5)])
    kept = EarlierTrial.read(json.dumps(EarlierTrial.of(trial).to_dict()))
    assert kept == EarlierTrial(draw, {"val_psnr": 31.5, "val_ssim": 0.8}, 50.0, None, 100, 48)


def test_a_failed_trial_is_kept_without_scores() -> None:
    trial = Trial(3, draw_of(SPACES[0], 0.01), STEPS, 10, "failed", {"val_psnr": 20.0})
    kept = EarlierTrial.of(trial)
    assert kept.best == {}
    assert kept.outcome("psnr").scores is None  # type: ignore[union-attr]


def test_the_best_of_each_network_comes_first() -> None:
    trials = [earlier(0.01, 30), earlier(0.02, 32), earlier(0.03, 31), earlier(0.05, 9, space=1)]
    start = WarmStart.of(trials, SPACES, STEPS, "psnr")
    assert {m: d.training["learning_rate"] for m, d in start.first.items()} == {
        "red10": 0.02,
        "unet": 0.05,
    }
    assert len(start.outcomes) == 4


def test_scores_of_another_length_count_only_where_there_are_no_others() -> None:
    longer = earlier(0.02, 35, steps=1000)
    start = WarmStart.of([earlier(0.01, 30), longer], SPACES, STEPS, "psnr")
    assert start.first["red10"].training["learning_rate"] == 0.01
    assert len(start.outcomes) == 1
    alone = WarmStart.of([longer], SPACES, STEPS, "psnr")
    assert alone.first["red10"] == longer.draw
    assert not alone.outcomes


def test_lengths_in_time_and_in_steps_are_not_compared() -> None:
    hour = replace(STEPS, budget=Duration(3600))
    assert earlier(0.01, budget=3300.0).has_length_of(hour)
    assert not earlier(0.01, budget=600.0).has_length_of(hour)
    assert not earlier(0.01).has_length_of(hour)
    assert not earlier(0.01, budget=3600.0).has_length_of(STEPS)


def test_draws_outside_of_the_spaces_are_left_out() -> None:
    narrow = [replace(SPACES[0], fields={**SPACES[0].fields, "crop": (Choice((32,)),)})]
    other_network, outside = earlier(0.01, space=1), earlier(0.01)
    assert WarmStart.of([other_network, outside], narrow, STEPS, "psnr") == COLD


def test_a_missing_score_of_the_objective_leaves_a_trial_out() -> None:
    assert WarmStart.of([earlier(0.01)], SPACES, STEPS, "psnr+speed") == COLD


@given(st.integers(0, 1000))
def test_a_space_has_what_it_draws(seed: int) -> None:
    for model in ("fast24", "unet", "mwcnn"):
        space = search_space(model, "small")
        suggester = Suggester([space], algorithm="random", seed=seed)
        assert all(space.has(suggester.suggest(number)) for number in range(3))


def test_a_space_does_not_have_draws_with_too_few_or_other_fields() -> None:
    draw = draw_of(SPACES[0], 0.01)
    assert SPACES[0].has(draw)
    assert not SPACES[1].has(draw)
    assert not SPACES[0].has(replace(draw, labelled={"learning_rate": 0.01}))
    assert not SPACES[0].has(draw_of(SPACES[0], 0.5))


def test_tpe_begins_with_what_earlier_studies_found() -> None:
    """It suggests good values at once, where a cold search still draws at random."""
    space = SearchSpace("red10", {"learning_rate": (LogUniform(1e-4, 1e-1),)})
    past = [
        EarlierTrial(draw_of(space, rate), {"val_psnr": 30 - 1e3 * rate}, None, None, 100, 48)
        for rate in (2e-4, 3e-4, 5e-4, 1e-3, 3e-3, 6e-3, 1e-2, 2e-2, 4e-2, 8e-2)
    ]
    start = WarmStart.of(past, [space], STEPS, "psnr")
    below = {False: 0, True: 0}
    for seed in range(10):
        for warm in (False, True):
            suggester = Suggester([space], seed=seed, first=start.first if warm else None)
            for outcome in start.outcomes if warm else ():
                suggester.learn(None, outcome)
            rates = [suggester.suggest(n).training["learning_rate"] for n in range(4)]
            if warm:
                assert rates[0] == 2e-4
            below[warm] += sum(rate < 1e-3 for rate in rates[1:])
    assert below[True] > 1.5 * below[False]


class Pages:
    """An MLflow client that returns two pages of runs."""

    def __init__(self, tags: list[Mapping[str, str]]) -> None:
        runs = [SimpleNamespace(data=SimpleNamespace(tags=t)) for t in tags]
        self._pages = {None: (runs[:2], "more"), "more": (runs[2:], None)}
        self.queries: list[str] = []

    def search_runs(
        self, _: list[str], query: str, *, page_token: str | None, **__: object
    ) -> PagedList:
        self.queries.append(query)
        return PagedList(*self._pages[page_token])


def test_trials_of_all_pages_but_the_own_study_are_found() -> None:
    kept = {OUTCOME_TAG: json.dumps(earlier(0.01).to_dict()), "mlflow.parentRunId": "old"}
    more = {OUTCOME_TAG: json.dumps(earlier(0.02, validation_patches=9).to_dict())}
    client = Pages([kept, {**kept, "mlflow.parentRunId": "own"}, {}, more, kept])
    tracker = Tracker(TrackingConfig(), client, "1")
    found = earlier_trials(tracker, "abc", "patches", STEPS, "own")
    assert found == [earlier(0.01)] * 2
    assert "tags.patch_set = 'abc'" in client.queries[0]
