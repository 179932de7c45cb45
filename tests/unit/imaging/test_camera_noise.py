"""Camera noise has a variance linear in the light, and the correlation of demosaicking."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from skimage import data as skimage_data
from unit.support import natural_photo

from degrain.imaging.camera_noise import (
    ISO_LEVELS,
    CameraNoise,
    bayer_masks,
    demosaic,
    noisy_mosaic,
    photograph,
    to_linear,
    to_srgb,
)
from degrain.imaging.pixels import sixteen_bits

levels = pytest.mark.parametrize("iso", sorted(ISO_LEVELS))


@levels
def test_variance_before_gamma_is_linear_in_the_signal(iso: int) -> None:
    noise = ISO_LEVELS[iso]
    random = np.random.default_rng(0)
    signals = np.linspace(0, 1, 11)
    measured = [noisy_mosaic(np.full((300, 300), s), noise, random) for s in signals]
    assert [m.mean() for m in measured] == pytest.approx(signals, abs=0.005)
    variances = np.array([m.var() for m in measured])
    assert variances == pytest.approx(noise.variance(signals), rel=0.04)
    gain, _ = np.polyfit(signals, variances, 1)
    assert gain == pytest.approx(noise.gain, rel=0.03)
    # The intercept, from dark signals alone: bright ones have a much larger variance.
    assert variances[0] == pytest.approx(noise.read, rel=0.03)


def test_noise_grows_with_iso() -> None:
    ordered = [ISO_LEVELS[iso] for iso in sorted(ISO_LEVELS)]
    assert [n.gain for n in ordered] == sorted({n.gain for n in ordered})
    assert [n.read for n in ordered] == sorted({n.read for n in ordered})


def test_zero_noise_leaves_the_mosaic_unchanged() -> None:
    mosaic = np.random.default_rng(0).random((8, 9))
    assert np.array_equal(
        noisy_mosaic(mosaic, CameraNoise(gain=0, read=0), np.random.default_rng(0)), mosaic
    )


@pytest.mark.parametrize(("gain", "read"), [(-0.1, 0.0), (0.0, -0.1)])
def test_negative_variances_are_refused(gain: float, read: float) -> None:
    with pytest.raises(ValueError, match="must not be negative"):
        CameraNoise(gain=gain, read=read)


def lag_one(residual: NDArray[np.float64], axis: int) -> float:
    """Correlation of neighbours along an axis, mean over channels."""
    centred = residual - residual.mean(axis=(0, 1))
    length = residual.shape[axis]
    here, there = (centred.take(range(a, length - 1 + a), axis=axis) for a in (0, 1))
    return float(np.mean((here * there).mean(axis=(0, 1)) / centred.var(axis=(0, 1))))


@levels
def test_neighbours_are_correlated_as_in_real_photos(iso: int) -> None:
    clean = skimage_data.astronaut()
    noisy = photograph(clean, ISO_LEVELS[iso], np.random.default_rng(0))
    residual = noisy.astype(np.float64) - clean
    for axis in (0, 1):
        assert 0.3 < lag_one(residual, axis) < 0.7


def test_same_seed_gives_the_same_photo() -> None:
    clean = natural_photo(33, 48)
    first, second, other = (
        photograph(clean, ISO_LEVELS[3200], np.random.default_rng(seed)) for seed in (5, 5, 6)
    )
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)
    assert first.shape == clean.shape
    assert first.dtype == np.uint8


def test_zero_noise_leaves_the_photo_unchanged() -> None:
    clean = natural_photo(33, 48)
    assert np.array_equal(
        photograph(clean, CameraNoise(gain=0, read=0), np.random.default_rng(0)), clean
    )


sides = st.integers(4, 17)


@settings(max_examples=25, deadline=None)
@given(height=sides, width=sides)
def test_each_site_measures_one_colour_rggb(height: int, width: int) -> None:
    masks = bayer_masks(height, width)
    assert (masks.sum(axis=2) == 1).all()
    assert [int(masks[y, x].argmax()) for y in (0, 1) for x in (0, 1)] == [0, 1, 1, 2]
    assert np.array_equal(masks[2:], masks[:-2])
    assert np.array_equal(masks[:, 2:], masks[:, :-2])


@settings(max_examples=25, deadline=None)
@given(height=sides, width=sides, seed=st.integers(0, 99))
def test_demosaicking_keeps_measured_values(height: int, width: int, seed: int) -> None:
    mosaic = np.random.default_rng(seed).random((height, width))
    photo = demosaic(mosaic)
    assert photo.shape == (height, width, 3)
    assert np.array_equal((photo * bayer_masks(height, width)).sum(axis=2), mosaic)


@settings(max_examples=25, deadline=None)
@given(height=sides, width=sides, colour=st.tuples(*[st.floats(0, 1)] * 3))
def test_demosaicking_reproduces_a_flat_colour(
    height: int, width: int, colour: tuple[float, float, float]
) -> None:
    """Also at the borders: the gradient correction sums to zero within a channel, so that colours
    do not mix.
    """
    flat = np.broadcast_to(np.array(colour), (height, width, 3))
    mosaic = (flat * bayer_masks(height, width)).sum(axis=2)
    assert np.allclose(demosaic(mosaic), flat, rtol=0, atol=1e-12)


def test_demosaicking_is_linear() -> None:
    random = np.random.default_rng(0)
    a, b = random.random((9, 12)), random.random((9, 12))
    assert np.allclose(demosaic(2 * a - b), 2 * demosaic(a) - demosaic(b))


def test_gamma_round_trip_is_the_identity() -> None:
    every = np.arange(256, dtype=np.uint8)
    linear = to_linear(every)
    assert np.array_equal(to_srgb(linear), every)
    assert (np.diff(linear) > 0).all()
    assert (linear[0], linear[255]) == (0, 1)


def test_values_out_of_range_are_clipped() -> None:
    assert to_srgb(np.array([-1.0, -1e-9, 1 + 1e-9, 5.0])).tolist() == [0, 0, 255, 255]


def test_gamma_round_trip_is_the_identity_in_sixteen_bits() -> None:
    every = np.arange(65536, dtype=np.uint16)
    linear = to_linear(every)
    assert np.array_equal(to_srgb(linear, 65535), every)
    assert (linear[0], linear[-1]) == (0, 1)
    assert np.allclose(linear[::257], to_linear(np.arange(256, dtype=np.uint8)), rtol=0, atol=1e-12)


@levels
def test_sixteen_bits_get_the_same_noise_at_finer_resolution(iso: int) -> None:
    clean = natural_photo(33, 48)
    eight, deep = (
        photograph(x, ISO_LEVELS[iso], np.random.default_rng(5))
        for x in (clean, sixteen_bits(clean))
    )
    assert deep.dtype == np.uint16
    assert np.abs(deep / 257 - eight).max() <= 0.51
