"""Confidence intervals over scenes, against independent references."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from degrain.evaluation.intervals import FEWEST_SCENES, scene_interval

FINITE = st.floats(-50, 50, allow_nan=False)


def test_the_interval_of_many_scenes_is_that_of_the_t_distribution() -> None:
    values = np.random.default_rng(0).normal(1, 2, 200)
    found = scene_interval(list(values), [str(n) for n in range(200)])
    half = 1.972 * values.std(ddof=1) / np.sqrt(200)  # Student's t of 199 degrees, from a table.
    assert found.mean == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - half, rel=1e-3)
    assert found.high == pytest.approx(values.mean() + half, rel=1e-3)


@pytest.mark.parametrize(
    "photos", [[3] * 4, [3] * 15, [20, 1, 1], [13, 6, 4, 2, 1, 1], [30, 30, *[1] * 10]], ids=str
)
def test_intervals_cover_the_truth_as_often_as_they_say(photos: list[int]) -> None:
    random = np.random.default_rng(0)
    scenes = np.repeat([str(n) for n in range(len(photos))], photos).tolist()
    covered = 0
    for _ in range(1000):
        values = np.repeat(random.normal(0, 1, len(photos)), photos)
        found = scene_interval(list(values + random.normal(0, 0.3, len(values))), scenes)
        covered += found.low <= 0 <= found.high
    assert covered >= 930, "950 are expected; a bootstrap of the mean over photos covers 900"


@given(values=st.lists(FINITE, min_size=3, max_size=30), shots=st.integers(1, 4))
@settings(max_examples=30, deadline=None)
def test_the_mean_lies_within_and_repeated_photos_change_nothing(
    values: list[float], shots: int
) -> None:
    scenes = [str(n) for n in range(len(values))]
    found = scene_interval(values, scenes)
    assert found.low - 1e-9 <= found.mean <= found.high + 1e-9
    again = scene_interval(list(np.repeat(values, shots)), list(np.repeat(scenes, shots)))
    assert again.low == pytest.approx(found.low)
    assert again.high == pytest.approx(found.high)


def test_a_higher_confidence_is_wider_and_few_scenes_have_no_bounds() -> None:
    values = [0.1, 0.5, -0.2, 0.9, 0.3]
    narrow = scene_interval(values, list("abcde"), confidence=0.8)
    wide = scene_interval(values, list("abcde"), confidence=0.99)
    assert wide.low < narrow.low < narrow.high < wide.high
    few = scene_interval(values, list("aabbb"))
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
        scene_interval(values, scenes, confidence=confidence)
