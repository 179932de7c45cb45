"""Shifts between a noisy and a clean photo: those that are there are found, those that are not are not believed."""

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.ndimage import shift as moved
from skimage import data as skimage_data
from unit.support import random_photo

from degrain.data.checks import WORTH_MOVING
from degrain.imaging.alignment import LARGEST_SHIFT, SMALLEST, estimate_shift
from degrain.imaging.noise import ISO_LEVELS, photograph
from degrain.imaging.pixels import Photo, sixteen_bits

photos = pytest.mark.parametrize("name", ["astronaut", "coffee", "chelsea", "rocket"])
DEVIATION = 40
"""Of noise that nobody would call weak."""


@cache
def photo(name: str) -> Photo:
    made: Photo = getattr(skimage_data, name)()
    return made


def noisy(values: NDArray[np.generic], deviation: float = DEVIATION, seed: int = 0) -> Photo:
    made = values + np.random.default_rng(seed).normal(0, deviation, values.shape)
    return np.clip(np.round(made), 0, 255).astype(np.uint8)


def shifted_pair(clean: Photo, down: int, right: int) -> tuple[Photo, Photo]:
    """A noisy photo that has to be moved down and right to lie on the clean one, and that one."""
    margin = LARGEST_SHIFT
    rows, columns = clean.shape[0] - margin, clean.shape[1] - margin
    seen = clean[margin + down : rows + down, margin + right : columns + right]
    return noisy(seen), clean[margin:rows, margin:columns]


@photos
@pytest.mark.parametrize(("down", "right"), [(2, 0), (0, -2), (3, 5), (-7, 4), (12, -11), (15, 15), (-14, 0)])
def test_whole_shifts_are_found(name: str, down: int, right: int) -> None:
    shift = estimate_shift(*shifted_pair(photo(name), down, right))
    assert shift.whole == (down, right)
    assert (shift.y, shift.x) == pytest.approx((down, right), abs=0.2)
    assert shift.distance == max(abs(shift.y), abs(shift.x))
    assert shift.gain > WORTH_MOVING


@photos
@pytest.mark.parametrize(("down", "right"), [(0.5, 0.25), (1.3, -2.6), (-3.75, 0.4), (0.0, 0.3)])
def test_parts_of_a_pixel_are_found(name: str, down: float, right: float) -> None:
    inner = slice(LARGEST_SHIFT, -LARGEST_SHIFT)
    seen = noisy(moved(photo(name).astype(np.float64), (-down, -right, 0), order=3, mode="nearest"))
    shift = estimate_shift(seen[inner, inner], photo(name)[inner, inner])
    assert (shift.y, shift.x) == pytest.approx((down, right), abs=0.2)


@settings(max_examples=25, deadline=None)
@given(down=st.integers(-15, 15), right=st.integers(-15, 15), top=st.integers(0, 60), left=st.integers(0, 60))
def test_any_shift_of_any_part_is_found(down: int, right: int, top: int, left: int) -> None:
    part = photo("astronaut")[top : top + 320, left : left + 360]
    assert estimate_shift(*shifted_pair(part, down, right)).whole == (down, right)


@photos
@pytest.mark.parametrize("iso", sorted(ISO_LEVELS))
def test_noise_alone_is_not_taken_for_a_shift(name: str, iso: int) -> None:
    shift = estimate_shift(photograph(photo(name), ISO_LEVELS[iso], np.random.default_rng(0)), photo(name))
    assert shift.gain < WORTH_MOVING / 2
    assert shift.distance < 0.3


@photos
def test_noise_alone_on_the_smallest_photos_is_not_taken_for_a_shift(name: str) -> None:
    random = np.random.default_rng(0)
    height, width = photo(name).shape[:2]
    for _ in range(15):
        top, left = random.integers(0, height - SMALLEST + 1), random.integers(0, width - SMALLEST + 1)
        clean = photo(name)[top : top + SMALLEST, left : left + SMALLEST]
        assert estimate_shift(photograph(clean, ISO_LEVELS[12800], random), clean).gain < WORTH_MOVING


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), value=st.integers(0, 255), deviation=st.floats(1, 80))
def test_a_flat_photo_is_not_shifted(seed: int, value: int, deviation: float) -> None:
    flat = np.full((SMALLEST, SMALLEST + 20, 3), value, dtype=np.uint8)
    assert estimate_shift(noisy(flat, deviation, seed), flat).gain < WORTH_MOVING


@settings(max_examples=25, deadline=None)
@given(height=st.integers(SMALLEST, 260), width=st.integers(SMALLEST, 260), seed=st.integers(0, 99))
def test_two_photos_of_nothing_give_some_shift_within_bounds(height: int, width: int, seed: int) -> None:
    """There is no right answer, but there is one, finite and no larger than what is looked for."""
    shift = estimate_shift(random_photo(height, width, seed), random_photo(height, width, seed + 1000))
    assert shift.distance < LARGEST_SHIFT
    assert np.isfinite([shift.y, shift.x, shift.gain]).all()
    assert all(abs(part - whole) <= 0.5 for part, whole in zip((shift.y, shift.x), shift.whole, strict=True))


def test_equal_photos_are_not_shifted() -> None:
    shift = estimate_shift(photo("coffee"), photo("coffee"))
    assert shift.whole == (0, 0)
    assert shift.distance < 0.05
    assert shift.gain == 0


@pytest.mark.parametrize("deep", [(True, True), (True, False), (False, True)])
def test_bits_do_not_matter(deep: tuple[bool, bool]) -> None:
    pair = shifted_pair(photo("chelsea"), -4, 9)
    expected = estimate_shift(*pair)
    shift = estimate_shift(*(sixteen_bits(x) if d else x for x, d in zip(pair, deep, strict=True)))
    assert shift.whole == expected.whole
    assert (shift.y, shift.x, shift.gain) == pytest.approx((expected.y, expected.x, expected.gain), abs=1e-3)


def test_darker_and_paler_photos_are_found_too() -> None:
    seen, clean = shifted_pair(photo("coffee"), 6, -3)
    assert estimate_shift((seen * 0.5 + 20).astype(np.uint8), clean).whole == (6, -3)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (11, 400), (SMALLEST - 1, 400), (400, SMALLEST - 1)])
def test_in_photos_too_small_to_tell_no_shift_is_found(height: int, width: int) -> None:
    clean = photo("astronaut")[:height, :width]
    shift = estimate_shift(noisy(np.roll(clean, 3, axis=0)), clean)
    assert (shift.y, shift.x, shift.whole, shift.gain) == (0, 0, (0, 0), 0)


def test_photos_of_many_windows_are_looked_at_where_they_have_detail() -> None:
    clean = np.full((600, 2100, 3), 90, dtype=np.uint8)
    clean[:500, 1500:2012] = photo("astronaut")[:500]
    shift = estimate_shift(noisy(np.roll(clean, (-5, 8), axis=(0, 1)), 20), clean)
    assert shift.whole == (5, -8)
    assert shift.gain > WORTH_MOVING
