"""Early stopping: equal compute, the better half goes on, and so does a slow starter."""

import itertools
import math
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from degrain.training.config import TrainingConfig
from degrain.tuning.space import Draw
from degrain.tuning.stopping import EarlyStopping, Rungs
from degrain.tuning.trial import Task, Trial


def reports(rungs: Rungs, number: int, *scores: float) -> list[bool]:
    shares = (0.25, 0.5, 0.75, 1)
    return [rungs.keeps(number, p, s) for p, s in zip(shares, scores, strict=False)]


def test_a_trial_that_is_behind_and_improves_no_faster_is_stopped() -> None:
    rungs = Rungs()
    assert reports(rungs, 0, 20, 24, 26, 27) == [True] * 4
    assert reports(rungs, 1, 19, 22) == [True, False]


def test_a_slow_starter_is_not_lost_to_a_trial_that_saturates() -> None:
    rungs = Rungs()
    assert reports(rungs, 0, 25, 25.2, 25.3, 25.3) == [True] * 4
    assert reports(rungs, 1, 15, 21, 24.5, 27) == [True] * 4


def test_the_model_that_a_trial_starts_from_does_not_count() -> None:
    rungs, others = Rungs(), Rungs()
    assert rungs.keeps(0, 0, 32)
    for number, scores in enumerate(((20, 24, 26, 27), (19, 22))):
        assert reports(rungs, number, *scores) == reports(others, number, *scores)


@pytest.mark.parametrize("metric", ["val_psnr", "val_ssim"])
def test_trials_are_stopped_by_the_metric_of_the_study(metric: str) -> None:
    """The second trial is worse by PSNR, and better by SSIM."""
    stopping = EarlyStopping(metric)
    kept: dict[int, list[str]] = {0: [], 1: []}
    for number, progress in itertools.product((0, 1), (25, 50, 75, 100)):
        psnr = (30.0, 29.0)[number]
        result = {"val_psnr": psnr, "val_ssim": 1 - psnr / 100, "progress": progress}
        training = TrainingConfig(model="red10")
        task = Task.for_trial(Trial(number, Draw("red10", {}, {}, {}), training, 1))
        trial = SimpleNamespace(config=task.arguments())
        decision = stopping.on_trial_result(None, trial, result)
        kept[number].append(decision)
    assert kept[0] == ["CONTINUE"] * 4, "there is nothing to compare the first trial with"
    assert ("STOP" in kept[1]) == (metric == "val_psnr")


def test_validations_after_a_rung_are_compared_at_the_rung() -> None:
    rungs = Rungs()
    reports(rungs, 0, 20, 24)
    # At 50% it was at 24.6, ahead; its validation at 60% is not compared with the other's at 50%.
    assert rungs.keeps(1, 0.4, 20.2)
    assert rungs.keeps(1, 0.6, 28.2)
    share = math.log(50 / 40) / math.log(60 / 40)
    assert rungs._marks[0.5][1].score == pytest.approx(20.2 + 8 * share)


def test_a_trial_that_flattens_as_all_do_is_not_taken_for_a_slow_starter() -> None:
    """Its last gain, continued in a straight line, would reach 27 dB; the curve ends at 25."""
    rungs = Rungs()
    assert reports(rungs, 0, 23.4, 24.9, 25.8, 26.4) == [True] * 4
    assert reports(rungs, 1, 21, 23) == [True, False]


def test_a_repeated_or_restarted_trial_counts_once() -> None:
    rungs = Rungs()
    reports(rungs, 0, 20, 24)
    assert rungs.keeps(0, 0.5, 24)
    assert rungs.keeps(0, 0.25, 19)
    assert 0 not in rungs._marks[0.5]


@given(st.lists(st.lists(st.floats(0, 50), min_size=4, max_size=4), min_size=1, max_size=9))
def test_the_better_half_and_the_best_are_never_stopped(curves: list[list[float]]) -> None:
    rungs = Rungs()
    for number, curve in enumerate(curves):
        for place, keeps in enumerate(reports(rungs, number, *curve)):
            seen = sorted((c[place] for c in curves[: number + 1]), reverse=True)
            if curve[place] >= seen[(len(seen) - 1) // 2]:
                assert keeps
            if not keeps:
                break
