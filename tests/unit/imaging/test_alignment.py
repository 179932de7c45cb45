"""Existing shifts of a pair are estimated, and unshifted pairs have none."""

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.ndimage import affine_transform
from scipy.ndimage import shift as moved
from skimage import data as skimage_data
from unit.support import random_photo

from degrain.imaging.alignment import SMALLEST, UNSHIFTED, _sandwich, estimate_shift
from degrain.imaging.camera_noise import ISO_LEVELS, photograph
from degrain.imaging.pixels import Photo, sixteen_bits
from degrain.patchsets.check_rules import CheckRules
from degrain.patchsets.checks import BELIEVED_GAIN, is_misaligned

photos = pytest.mark.parametrize("name", ["astronaut", "coffee", "chelsea", "rocket"])
MARGIN = 16
"""Pixels around a photo within which it is shifted."""
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
    margin = MARGIN
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
    inner = slice(MARGIN, -MARGIN)
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
def test_noise_alone_on_the_smallest_photos_is_not_taken_for_a_shift(name: str) -> None:
    random = np.random.default_rng(0)
    height, width = photo(name).shape[:2]
    for _ in range(15):
        top, left = (
            random.integers(0, height - SMALLEST + 1),
            random.integers(0, width - SMALLEST + 1),
        )
        clean = photo(name)[top : top + SMALLEST, left : left + SMALLEST]
        shift = estimate_shift(photograph(clean, ISO_LEVELS[12800], random), clean)
        assert shift.doubt or not is_misaligned(shift, CheckRules())


def test_errors_are_those_of_leaving_each_block_out() -> None:
    """By an independent way: the fit is made anew without each block; one block decides most."""
    random = np.random.default_rng(0)
    rows = random.normal(size=(5, 12, 3)) * np.array([20, 1, 1, 1, 1])[:, None, None]
    targets = random.normal(size=(5, 12))

    def fit(kept: list[int]) -> NDArray[np.float64]:
        found = np.linalg.lstsq(np.concatenate(rows[kept]), np.concatenate(targets[kept]))[0]
        return np.asarray(found)

    everything = fit(list(range(5)))
    apart = [fit([k for k in range(5) if k != left]) - everything for left in range(5)]
    hessians = np.einsum("kip,kiq->pqk", rows, rows)
    rest = targets - rows @ everything
    scores = np.einsum("kip,ki->pk", rows, rest)
    found = _sandwich(np.linalg.inv(hessians.sum(axis=2)), hessians, scores)
    assert found == pytest.approx(sum(np.outer(a, a) for a in apart), rel=1e-3)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), value=st.integers(0, 255), deviation=st.floats(1, 80))
def test_flat_photos_have_no_shift(seed: int, value: int, deviation: float) -> None:
    flat = np.full((SMALLEST, SMALLEST + 20, 3), value, dtype=np.uint8)
    assert estimate_shift(noisy(flat, deviation, seed), flat) == UNSHIFTED


@settings(max_examples=15, deadline=None)
@given(height=st.integers(SMALLEST, 260), width=st.integers(SMALLEST, 260), seed=st.integers(0, 99))
def test_unrelated_photos_are_doubted(height: int, width: int, seed: int) -> None:
    shift = estimate_shift(
        random_photo(height, width, seed), random_photo(height, width, seed + 1000)
    )
    assert np.isfinite([shift.y, shift.x, shift.gain, shift.error, shift.warp]).all()
    assert shift.doubt


def resampled(
    clean: Photo, *, degrees: float = 0, scale: float = 1, power: float = 1
) -> tuple[Photo, Photo]:
    """A noisy photo that is rotated and scaled about its centre, or in other tones, and the clean
    one; without the border that this brings in."""
    height, width = clean.shape[:2]
    angle = np.deg2rad(degrees)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    centre = np.array([height - 1, width - 1]) / 2
    seen = np.stack(
        [
            affine_transform(clean[:, :, c].astype(np.float32), turn, centre - turn @ centre)
            for c in range(3)
        ],
        axis=2,
    )
    inner = slice(16, -16)
    toned = 255 * (np.clip(seen, 0, 255) / 255) ** power
    return noisy(toned, 10)[inner, inner], clean[inner, inner]


@photos
@pytest.mark.parametrize("change", [{"degrees": 0.3}, {"degrees": -2}, {"scale": 1.01}])
def test_rotation_and_scale_are_doubted(name: str, change: dict[str, float]) -> None:
    assert estimate_shift(*resampled(photo(name), **change)).doubt


def test_what_rotation_does_to_the_corners_is_estimated() -> None:
    shift = estimate_shift(*resampled(photo("astronaut"), degrees=0.3))
    assert shift.warp == pytest.approx(np.deg2rad(0.3) * np.hypot(240, 240), rel=0.1)
    assert (
        shift.doubt
        == f"it is rotated or scaled, or parts moved, by {shift.warp:.1f} pixels at the corners"
    )


@photos
@pytest.mark.parametrize("power", [0.6, 1.6])
def test_another_tone_curve_is_no_shift(name: str, power: float) -> None:
    shift = estimate_shift(*resampled(photo(name), power=power))
    assert shift.distance < 0.2
    assert shift.doubt is None


@pytest.mark.parametrize("name", ["astronaut", "coffee"])
def test_a_part_that_moved_is_doubted(name: str) -> None:
    clean = photo(name)
    seen = clean.copy()
    seen[100:240, 150:330] = clean[104:244, 156:336]
    assert "moved" in str(estimate_shift(noisy(seen, 10), clean).doubt)
    assert estimate_shift(noisy(clean, 10), clean).doubt is None


def test_the_least_steps_of_a_wall_may_differ_in_photos_without_noise() -> None:
    """As artefacts of JPEG do: only beside no noise at all would they look as what moved."""
    side = 192
    clean, steps = photo("coffee")[:384, :384].copy(), random_photo(16, 16) // 128
    clean[60 : 60 + side, 60 : 60 + side] = 90
    pair = clean.copy(), clean.copy()
    for each, right in zip(pair, (0, 6), strict=True):
        fine = np.roll(np.kron(steps[:, :, :1], np.ones((12, 12, 1), np.uint8)), right, axis=1)
        each[60 : 60 + side, 60 : 60 + side] += fine
    assert not estimate_shift(*pair).doubt


def test_a_regular_pattern_has_no_one_shift() -> None:
    y, x = np.mgrid[:256, :300]
    pattern = np.where(((y // 16) + (x // 16)) % 2, 60, 190)
    wide = np.repeat(pattern[:, :, None], 3, axis=2).astype(np.uint8)
    shift = estimate_shift(noisy(wide[:, 12:268], 10), wide[:, :256])
    assert shift.doubt == "several shifts fit as well, as in a regular pattern"
    assert estimate_shift(noisy(wide, 10), wide).doubt is None


@pytest.mark.parametrize("shift", [(45, -38), (-60, 3), (0, 100)])
def test_far_shifts_are_estimated_exactly(shift: tuple[int, int]) -> None:
    down, right = shift
    clean = photo("coffee")
    seen = clean[100 + down : 300 + down, 100 + right : 500 + right]
    found = estimate_shift(noisy(seen, 15), clean[100:300, 100:500])
    assert (found.whole, found.doubt) == ((down, right), None)


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
