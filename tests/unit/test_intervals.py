"""Confidence intervals over scenes, against independent references."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from degrain.evaluation.intervals import FEWEST_SCENES, bootstrap

FINITE = st.floats(-50, 50, allow_nan=False)


def test_the_interval_of_many_scenes_is_that_of_the_t_distribution() -> None:
    values = np.random.default_rng(0).normal(1, 2, 200)
    found = bootstrap(list(values), [str(n) for n in range(200)])
    half = 1.972 * values.std(ddof=1) / np.sqrt(200)  # Student's t of 199 degrees, from a table.
    assert found.mean == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.1 * half)


@pytest.mark.parametrize("scenes", [4, 6, 15])
def test_intervals_cover_the_truth_as_often_as_they_say(scenes: int) -> None:
    random = np.random.default_rng(scenes)
    covered = 0
    for _ in range(400):
        means = random.normal(0, 1, scenes)
        values = np.repeat(means, 3) + random.normal(0, 0.3, 3 * scenes)
        found = bootstrap(list(values), [str(n // 3) for n in range(3 * scenes)])
        covered += found.low <= 0 <= found.high
    assert covered / 400 >= 0.91, "95% are expected; percentiles cover 87% of 4 scenes"


@given(values=st.lists(FINITE, min_size=3, max_size=30), shots=st.integers(1, 4))
@settings(max_examples=30, deadline=None)
def test_the_mean_lies_within_and_repeated_photos_change_nothing(
    values: list[float], shots: int
) -> None:
    scenes = [str(n) for n in range(len(values))]
    found = bootstrap(values, scenes)
    assert found.low - 1e-9 <= found.mean <= found.high + 1e-9
    again = bootstrap(list(np.repeat(values, shots)), list(np.repeat(scenes, shots)))
    assert again.low == pytest.approx(found.low)
    assert again.high == pytest.approx(found.high)


def test_a_higher_confidence_is_wider_and_few_scenes_have_no_bounds() -> None:
    values = [0.1, 0.5, -0.2, 0.9, 0.3]
    narrow = bootstrap(values, list("abcde"), confidence=0.8)
    wide = bootstrap(values, list("abcde"), confidence=0.99)
    assert wide.low < narrow.low < narrow.high < wide.high
    few = bootstrap(values, list("aabbb"))
    assert len(set("aabbb")) < FEWEST_SCENES
    assert (few.low, few.high) == (-np.inf, np.inf)
    assert str(few) == "+0.32"


@pytest.mark.parametrize(
    ("values", "scenes", "confidence"),
    [([], [], 0.95), ([1.0], [], 0.95), ([1.0], ["a"], 0.0), ([1.0], ["a"], 1.0)],
)
def test_wrong_arguments_are_refused(
    values: list[float], scenes: list[str], confidence: float
) -> None:
    with pytest.raises(ValueError, match="got"):
        bootstrap(values, scenes, confidence=confidence)
