"""Population-based training: the lowest quarter goes on from the highest."""

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from unit.support import smooth_patches
from unit.training_support import CONFIG

from degrain.errors import InvalidFieldError, UserError
from degrain.storage.location import Storage
from degrain.training.checkpoint_store import CheckpointStore
from degrain.training.config import TrainingConfig
from degrain.training.distributed.splits import TrainingSplits
from degrain.training.distributed.workers import Workers
from degrain.training.loop import train
from degrain.training.rate_changes import RateChanges
from degrain.training.session import LocalSession
from degrain.training.step import learning_rate
from degrain.tuning import trial_process as trial_module
from degrain.tuning.config import StudyConfig
from degrain.tuning.space import Draw
from degrain.tuning.stopping import FACTORS, FEWEST, Population
from degrain.tuning.trial import Inherited, Task, Trial, message_of, to_report

STORAGE = Storage()


def snapshot(number: int) -> dict[str, Any]:
    config = replace(CONFIG, learning_rate=0.001 * (number + 1)).to_dict()
    return {"config": config, "draw": {"of": number}, "weights": torch.full((2,), float(number))}


def ranked(folder: Path, scores: list[float]) -> list[int | None]:
    """From which trial each one goes on at the first rung; they come one after the other."""
    found = []
    for number, score in enumerate(scores):
        population = Population(STORAGE.locate(folder), number, seed=1)
        inheritance = population.at(0.0, 0.3, score, snapshot(number))
        found.append(None if inheritance is None else inheritance.number)
    return found


def test_the_lowest_goes_on_from_the_highest(tmp_path: Path) -> None:
    assert ranked(tmp_path, [30, 31, 29, 28]) == [None, None, None, 1]


def test_without_a_population_nothing_is_replaced(tmp_path: Path) -> None:
    assert ranked(tmp_path, list(range(30, 30 - FEWEST + 1, -1))) == [None] * (FEWEST - 1)


def test_a_trial_that_is_not_among_the_lowest_goes_on(tmp_path: Path) -> None:
    assert ranked(tmp_path, [30, 28, 29, 31, 28.5, 27]) == [None] * 5 + [3]


@given(st.lists(st.floats(10, 50), min_size=1, max_size=12, unique_by=lambda s: round(s, 4)))
def test_only_the_lowest_quarter_is_replaced_and_by_the_highest(scores: list[float]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for number, parent in enumerate(ranked(Path(folder), scores)):
            seen = sorted(scores[: number + 1])
            few = max(len(seen) // 4, 1)
            low = scores[number] in seen[:few] and len(seen) >= FEWEST
            assert (parent is not None) == low
            if parent is not None:
                assert scores[parent] in seen[-few:]


def test_what_is_inherited_has_weights_configuration_and_another_rate(tmp_path: Path) -> None:
    for number, score in enumerate((31.0, 30.0, 29.0)):
        Population(STORAGE.locate(tmp_path), number, 1).at(0, 0.3, score, snapshot(number))
    last = Population(STORAGE.locate(tmp_path), 3, 1)
    found = last.at(0, 0.3, 28.0, snapshot(3))
    assert found is not None
    assert (found.number, found.share) == (0, 0.25)
    assert found.factor in FACTORS
    assert found.snapshot["weights"].tolist() == [0, 0]
    assert found.config == replace(
        CONFIG, learning_rate=0.001, rate_changes=RateChanges.of([(0.25, found.factor)])
    )
    assert message_of(to_report(found.message())) == found.message()
    # An interrupted study repeats the choice.
    again = last.at(0, 0.3, 28.0, snapshot(3))
    assert again is not None
    assert again.message() == found.message()


def test_rungs_between_two_validations_are_passed_together(tmp_path: Path) -> None:
    population = Population(STORAGE.locate(tmp_path), 0, 1)
    assert population.at(0.3, 0.8, 30, snapshot(0)) is None
    assert population.at(0.8, 1.0, 31, snapshot(0)) is None
    rungs = sorted(path.parent.name for path in tmp_path.rglob("*.pt"))
    assert rungs == ["rung-0.5", "rung-0.75"]


class Split:
    def __init__(self, count: int, seed: int) -> None:
        self._patches = smooth_patches(count, 20, seed)

    def patches(self) -> object:
        return self._patches


def test_a_trial_trains_on_from_the_checkpoint_of_a_better_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its weights are those of a run of the better configuration with the changed rate."""
    config = replace(CONFIG, steps=8, validate_every=2)
    rates = [1e-3, 8e-4, 6e-4, 0.1]
    reports: list[dict[str, Any]] = []
    monkeypatch.setattr(trial_module.ray.tune, "report", reports.append)
    body = trial_module.TrialBody(
        TrainingSplits(Split(7, 0), Split(5, 1)),  # type: ignore[arg-type]
        {},
        STORAGE.locate(tmp_path),
        Workers(cpus_per_worker=1),
        measures_speed=False,
        population="val_psnr",
    )
    records = []
    for number, rate in enumerate(rates):
        training = replace(config, learning_rate=rate)
        draw = Draw("red10", {"width": 4}, {"learning_rate": rate}, {"learning_rate": rate})
        record = Trial(number, draw, training, 1)
        body(Task.for_trial(record).arguments())
        records.append(record)
    (inherited,) = (m for r in reports if isinstance(m := message_of(r), Inherited))
    record = records[3]
    record.inherit(inherited)
    assert record.draw == records[inherited.number].draw
    assert record.config.rate_changes == f"0.25:{inherited.factor:g}"
    assert Trial.from_state(json.loads(json.dumps(record.to_state()))) == record

    store = CheckpointStore(
        STORAGE.locate(tmp_path) / "trial-03-red10-batch-4-inherited-1", warn=lambda _: None
    )
    newest = store.newest()
    assert newest is not None
    assert newest["step"] == 8
    alone = train(record.config, LocalSession(smooth_patches(7, 20, 0), smooth_patches(5, 20, 1)))
    expected = alone.ema.network.state_dict()
    assert all(torch.equal(newest["ema"][name], expected[name]) for name in expected)


@pytest.mark.parametrize("text", ["", "0.25:2", "0.25:1.25,0.5:0.8"])
def test_changes_print_as_they_are_read(text: str) -> None:
    assert str(RateChanges.parse(text)) == text
    assert TrainingConfig(rate_changes=text).to_dict()["rate_changes"] == text


@pytest.mark.parametrize("text", ["2", "a:1", "0.5:0", "1:2", "-0.1:2", "0.5:inf", "0.5:1:2"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(InvalidFieldError, match="rate_changes must be shares of the run"):
        RateChanges.parse(text)


def test_the_rate_is_multiplied_from_each_share_on() -> None:
    plain = replace(CONFIG, steps=100, warmup_steps=0)
    changed = replace(plain, rate_changes=RateChanges.parse("0.25:2,0.5:0.25"))
    ratios = [learning_rate(changed, s) / learning_rate(plain, s) for s in (0, 24, 25, 49, 50, 99)]
    assert ratios == pytest.approx([1, 1, 2, 2, 0.5, 0.5])


def test_a_population_needs_one_score_and_trials_of_one_worker() -> None:
    with pytest.raises(UserError, match="`pbt` needs an objective of one score"):
        StudyConfig(search="pbt", objective="psnr+speed")
    with pytest.raises(UserError, match="`pbt` needs trials of one worker"):
        StudyConfig(search="pbt", workers_per_trial=2)
