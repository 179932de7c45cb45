"""Existing shifts of a pair are estimated, and unshifted pairs have none."""

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.ndimage import shift as moved
from skimage import data as skimage_data
from unit.support import random_photo

from degrain.imaging.alignment import SMALLEST, estimate_shift
from degrain.imaging.camera_noise import ISO_LEVELS, photograph
from degrain.imaging.limits import LARGEST_SHIFT
from degrain.imaging.pixels import Photo, sixteen_bits
from degrain.patchsets.checks import BELIEVED_GAIN

photos = pytest.mark.parametrize("name", ["astronaut", "coffee", "chelsea", "rocket"])
DEVIATION = 40
"""Standard deviation of strong noise."""


@cache
def photo(name: str) -> Photo:
    made: Photo = getattr(skimage_data, name)()
    return made


def noisy(values: NDArray[np.generic], deviation: float = DEVIATION, seed: int = 0) -> Photo:
    made = values + np.random.default_rng(seed).normal(0, deviation, values.shape)
    return np.clip(np.round(made), 0, 255).astype(np.uint8)


def shifted_pair(clean: Photo, down: int, right: int) -> tuple[Photo, Photo]:
    """A pair whose noisy photo must be shifted down and right to match the clean one."""
    margin = LARGEST_SHIFT
    rows, columns = clean.shape[0] - margin, clean.shape[1] - margin
    seen = clean[margin + down : rows + down, margin + right : columns + right]
    return noisy(seen), clean[margin:rows, margin:columns]


@photos
@pytest.mark.parametrize(
    ("down", "right"), [(2, 0), (0, -2), (3, 5), (-7, 4), (12, -11), (15, 15), (-14, 0)]
)
def test_integer_shifts_are_estimated_exactly(name: str, down: int, right: int) -> None:
    shift = estimate_shift(*shifted_pair(photo(name), down, right))
    assert shift.whole == (down, right)
    assert (shift.y, shift.x) == pytest.approx((down, right), abs=0.2)
    assert shift.distance == max(abs(shift.y), abs(shift.x))
    assert shift.gain > BELIEVED_GAIN


@pytest.mark.slow
@photos
@pytest.mark.parametrize(("down", "right"), [(0.5, 0.25), (1.3, -2.6), (-3.75, 0.4), (0.0, 0.3)])
def test_subpixel_shifts_are_estimated(name: str, down: float, right: float) -> None:
    inner = slice(LARGEST_SHIFT, -LARGEST_SHIFT)
    seen = noisy(moved(photo(name).astype(np.float64), (-down, -right, 0), order=3, mode="nearest"))
    shift = estimate_shift(seen[inner, inner], photo(name)[inner, inner])
    assert (shift.y, shift.x) == pytest.approx((down, right), abs=0.2)


@settings(max_examples=25, deadline=None)
@given(
    down=st.integers(-15, 15),
    right=st.integers(-15, 15),
    top=st.integers(0, 60),
    left=st.integers(0, 60),
)
def test_any_integer_shift_of_any_crop_is_estimated(
    down: int, right: int, top: int, left: int
) -> None:
    part = photo("astronaut")[top : top + 320, left : left + 360]
    assert estimate_shift(*shifted_pair(part, down, right)).whole == (down, right)


@photos
@pytest.mark.parametrize("iso", sorted(ISO_LEVELS))
def test_noise_alone_has_no_shift(name: str, iso: int) -> None:
    shift = estimate_shift(
        photograph(photo(name), ISO_LEVELS[iso], np.random.default_rng(0)), photo(name)
    )
    assert shift.gain < BELIEVED_GAIN / 2
    assert shift.distance < 0.3


@photos
def test_noise_alone_on_the_smallest_photos_has_no_shift(name: str) -> None:
    random = np.random.default_rng(0)
    height, width = photo(name).shape[:2]
    for _ in range(15):
        top, left = (
            random.integers(0, height - SMALLEST + 1),
            random.integers(0, width - SMALLEST + 1),
        )
        clean = photo(name)[top : top + SMALLEST, left : left + SMALLEST]
        assert (
            estimate_shift(photograph(clean, ISO_LEVELS[12800], random), clean).gain < BELIEVED_GAIN
        )


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), value=st.integers(0, 255), deviation=st.floats(1, 80))
def test_flat_photos_have_no_shift(seed: int, value: int, deviation: float) -> None:
    flat = np.full((SMALLEST, SMALLEST + 20, 3), value, dtype=np.uint8)
    assert estimate_shift(noisy(flat, deviation, seed), flat).gain < BELIEVED_GAIN


@settings(max_examples=25, deadline=None)
@given(height=st.integers(SMALLEST, 260), width=st.integers(SMALLEST, 260), seed=st.integers(0, 99))
def test_unrelated_photos_have_a_finite_shift_within_the_limit(
    height: int, width: int, seed: int
) -> None:
    """The true shift is undefined; the estimate is finite and within the limit."""
    shift = estimate_shift(
        random_photo(height, width, seed), random_photo(height, width, seed + 1000)
    )
    assert shift.distance < LARGEST_SHIFT
    assert np.isfinite([shift.y, shift.x, shift.gain]).all()
    assert all(
        abs(part - whole) <= 0.5
        for part, whole in zip((shift.y, shift.x), shift.whole, strict=True)
    )


def test_equal_photos_have_no_shift() -> None:
    shift = estimate_shift(photo("coffee"), photo("coffee"))
    assert shift.whole == (0, 0)
    assert shift.distance < 0.05
    assert shift.gain == 0


@pytest.mark.parametrize("deep", [(True, True), (True, False), (False, True)])
def test_estimate_does_not_depend_on_bit_depth(deep: tuple[bool, bool]) -> None:
    pair = shifted_pair(photo("chelsea"), -4, 9)
    expected = estimate_shift(*pair)
    shift = estimate_shift(*(sixteen_bits(x) if d else x for x, d in zip(pair, deep, strict=True)))
    assert shift.whole == expected.whole
    assert (shift.y, shift.x, shift.gain) == pytest.approx(
        (expected.y, expected.x, expected.gain), abs=1e-3
    )


def test_estimate_does_not_depend_on_exposure_and_contrast() -> None:
    seen, clean = shifted_pair(photo("coffee"), 6, -3)
    assert estimate_shift((seen * 0.5 + 20).astype(np.uint8), clean).whole == (6, -3)


@pytest.mark.parametrize(
    ("height", "width"), [(1, 1), (11, 400), (SMALLEST - 1, 400), (400, SMALLEST - 1)]
)
def test_photos_below_the_smallest_side_have_no_shift(height: int, width: int) -> None:
    clean = photo("astronaut")[:height, :width]
    shift = estimate_shift(noisy(np.roll(clean, 3, axis=0)), clean)
    assert (shift.y, shift.x, shift.whole, shift.gain) == (0, 0, (0, 0), 0)


def test_estimate_uses_the_windows_with_the_most_detail() -> None:
    clean = np.full((600, 2100, 3), 90, dtype=np.uint8)
    clean[:500, 1500:2012] = photo("astronaut")[:500]
    shift = estimate_shift(noisy(np.roll(clean, (-5, 8), axis=(0, 1)), 20), clean)
    assert shift.whole == (5, -8)
    assert shift.gain > BELIEVED_GAIN
