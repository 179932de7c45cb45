"""Measured noise equals the noise that the pair was made with."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import data as skimage_data
from unit.support import natural_photo, random_photo

from degrain.imaging.camera_noise import to_linear
from degrain.imaging.noise_statistics import (
    LEVELS,
    fit_line,
    fit_noise,
    level_centres,
    neighbour_correlation,
    noise_by_level,
)
from degrain.imaging.noise_synthesis import add_noise
from degrain.imaging.pixels import Photo, sixteen_bits

MIDDLE: Photo = (skimage_data.astronaut() * 0.45 + 110).astype(np.uint8)
"""Signal levels without clipped noise."""
bits = pytest.mark.parametrize("clean", [MIDDLE, sixteen_bits(MIDDLE)], ids=["8", "16"])


@bits
@pytest.mark.parametrize(("gain", "read"), [(0.004, 0.0002), (0.001, 0.001), (0.008, 0.0005)])
@pytest.mark.parametrize("correlation", [0.0, 0.3, 0.5])
def test_fit_recovers_the_noise_of_a_pair(
    clean: Photo, gain: float, read: float, correlation: float
) -> None:
    fit = fit_noise(add_noise(clean, f"fitted:{gain},{read},{correlation}", "a"), clean)
    assert fit.gain == pytest.approx(gain, rel=0.1)
    assert fit.read == pytest.approx(read, rel=0.1)
    assert fit.correlation == pytest.approx(correlation, abs=0.03)


def test_bit_depths_of_a_pair_may_differ() -> None:
    noisy = add_noise(MIDDLE, "poisson:0.004,0.0004", "a")
    expected = fit_noise(noisy, MIDDLE)
    fit = fit_noise(sixteen_bits(noisy), MIDDLE)
    assert (fit.gain, fit.read, fit.correlation) == pytest.approx(
        (expected.gain, expected.read, expected.correlation), rel=1e-3
    )


@settings(max_examples=50, deadline=None)
@given(gain=st.floats(1e-4, 0.1), read=st.floats(1e-6, 0.1), seed=st.integers(0, 99))
def test_a_line_is_fitted_exactly(gain: float, read: float, seed: int) -> None:
    count = np.random.default_rng(seed).integers(0, 1000, LEVELS)
    assert fit_line(count, gain * level_centres() + read) == pytest.approx((gain, read), rel=1e-6)


def test_levels_are_weighted_by_their_number_of_values() -> None:
    count = np.full(LEVELS, 1000)
    count[20] = 0
    variance = 0.01 * level_centres() + 0.002
    variance[20] = 99
    assert fit_line(count, variance) == pytest.approx((0.01, 0.002))


def test_clipped_levels_are_ignored() -> None:
    variance = 0.01 * level_centres() + 0.002
    variance[:2] = variance[-1] = 1e-6
    assert fit_line(np.full(LEVELS, 10), variance) == pytest.approx((0.01, 0.002))


@settings(max_examples=100, deadline=None)
@given(
    variance=st.lists(st.just(0.0) | st.floats(1e-9, 1), min_size=LEVELS, max_size=LEVELS),
    seed=st.integers(0, 99),
)
def test_fit_is_never_negative(variance: list[float], seed: int) -> None:
    count = np.random.default_rng(seed).integers(0, 3, LEVELS)
    gain, read = fit_line(count, np.array(variance))
    assert gain >= 0
    assert read >= 0
    assert np.isfinite([gain, read]).all()


def test_falling_variance_is_all_read_noise_and_variance_through_zero_all_gain() -> None:
    x, count = level_centres(), np.full(LEVELS, 10)
    assert fit_line(count, 0.02 - 0.01 * x)[0] == 0
    gain, read = fit_line(count, np.maximum(0.02 * x - 0.003, 0))
    assert gain > 0
    assert read == 0


def test_line_of_one_level_passes_through_it() -> None:
    count = np.zeros(LEVELS, np.int64)
    count[9] = 500
    gain, read = fit_line(count, np.full(LEVELS, 0.004))
    assert gain * level_centres()[9] + read == pytest.approx(0.004)


def test_fit_without_values_is_zero() -> None:
    assert fit_line(np.zeros(LEVELS, np.int64), np.ones(LEVELS)) == (0, 0)


@settings(max_examples=25, deadline=None)
@given(
    height=st.integers(1, 30), width=st.integers(1, 30), seed=st.integers(0, 99), deep=st.booleans()
)
def test_levels_equal_a_naive_computation(height: int, width: int, seed: int, deep: bool) -> None:
    noisy, clean = random_photo(height, width, seed), random_photo(height, width, seed + 1000)
    if deep:
        noisy, clean = sixteen_bits(noisy), sixteen_bits(clean)
    count, mean, variance = noise_by_level(noisy, clean)
    assert count.sum() == clean.size
    white = 65535 if deep else 255
    levels = clean.astype(int) * LEVELS // (white + 1)
    for level in range(LEVELS):
        here = (to_linear(noisy) - to_linear(clean))[levels == level]
        assert count[level] == here.size
        assert mean[level] == pytest.approx(here.mean() if here.size else 0, abs=1e-6)
        assert variance[level] == pytest.approx(here.var() if here.size else 0, abs=1e-6)


def test_equal_photos_have_no_noise() -> None:
    photo = natural_photo(30, 40)
    fit = fit_noise(photo, photo)
    assert (fit.gain, fit.read, fit.correlation) == (0, 0, 0)


def test_constant_brightness_difference_is_not_noise() -> None:
    steps = np.repeat(np.arange(40, 200, 20, dtype=np.uint8), 600).reshape(-1, 40, 3)
    fit = fit_noise(steps + np.uint8(20), steps)
    assert (fit.gain, fit.read, fit.correlation) == pytest.approx((0, 0, 0), abs=1e-6)


def test_repeated_noise_correlates_positively_and_alternating_noise_negatively() -> None:
    clean = np.full((64, 64, 3), 100, np.uint8)
    coarse = np.kron(
        np.random.default_rng(0).integers(0, 60, (8, 8, 1)), np.ones((8, 8, 3))
    ).astype(np.uint8)
    assert neighbour_correlation(clean + coarse, clean) > 0.7
    board = (np.indices((64, 64)).sum(axis=0) % 2 * 40)[:, :, None].astype(np.uint8)
    assert neighbour_correlation(clean + board, clean) == pytest.approx(-63 / 64, abs=0.03)
