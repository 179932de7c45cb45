"""The exposure of a noisy photo is estimated whatever its noise, and where movement disturbs."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import data as skimage_data

from degrain.corpora.record import MOST_GAIN_ERROR
from degrain.imaging.camera_noise import ISO_LEVELS, CameraNoise, photograph, to_linear, to_srgb
from degrain.imaging.exposure import (
    MOST_FOREIGN,
    MOST_UNEVEN,
    apply_gains,
    estimate_exposure,
)
from degrain.imaging.pixels import Photo, sixteen_bits

CLEAN: Photo = skimage_data.coffee()
UNITY = (1.0, 1.0, 1.0)
gain = st.floats(0.7, 1.4)


def changed(photo: Photo, gains: tuple[float, float, float]) -> Photo:
    """In 16 bits, so that rounding changes nothing."""
    return to_srgb(to_linear(photo) * gains, 65535)


@pytest.mark.parametrize("iso", sorted(ISO_LEVELS))
def test_noise_of_a_camera_is_no_exposure(iso: int) -> None:
    noisy = photograph(CLEAN, ISO_LEVELS[iso], np.random.default_rng(0))
    found = estimate_exposure(noisy, CLEAN)
    assert found.gains == pytest.approx(UNITY, abs=max(0.01, 3 * found.error))


@pytest.mark.parametrize("deviation", [5, 15, 30])
def test_noise_of_zero_mean_in_srgb_is_no_exposure(deviation: float) -> None:
    random = np.random.default_rng(0)
    noisy = CLEAN + random.normal(0, deviation, CLEAN.shape)
    found = estimate_exposure(np.clip(np.round(noisy), 0, 255).astype(np.uint8), CLEAN)
    assert found.gains == pytest.approx(UNITY, abs=max(0.01, 3 * found.error))


def louder(times: float) -> CameraNoise:
    """More noise than any ISO speed of the embedded corpus has."""
    usual = ISO_LEVELS[12800]
    return replace(usual, gain=usual.gain * times, read=usual.read * times)


@pytest.mark.parametrize("times", [1, 2, 4])
def test_darkening_by_strong_noise_is_told_from_exposure(times: float) -> None:
    noisy = photograph(CLEAN, louder(times), np.random.default_rng(0))
    found = estimate_exposure(noisy, CLEAN)
    assert found.gains == pytest.approx(UNITY, abs=2 * found.error)


@pytest.mark.parametrize("times", [1, 2, 4])
def test_strong_noise_that_was_averaged_is_no_clear_exposure(times: float) -> None:
    """The average of sRGB values is darker than that of light, and no gain in light mends that."""
    large = CLEAN.repeat(2, axis=0).repeat(2, axis=1)
    noisy = photograph(large, louder(times), np.random.default_rng(0))
    fours = noisy.reshape(len(CLEAN), 2, -1, 2, 3)
    found = estimate_exposure(fours.mean(axis=(1, 3)).round().astype(np.uint8), CLEAN)
    assert found.gains == pytest.approx(UNITY, abs=0.06 * times**0.8)
    # A gain is applied if it is ten errors from 1.
    assert found.gains == pytest.approx(UNITY, abs=5 * found.error)


@settings(max_examples=20, deadline=None)
@given(red=gain, green=st.floats(0.9, 1.1), blue=st.floats(0.9, 1.1), iso=st.sampled_from([0, 800]))
def test_gains_are_estimated_to_a_hundredth(
    red: float, green: float, blue: float, iso: int
) -> None:
    gains = (red, red * green, red * blue)
    random = np.random.default_rng(0)
    noisy = photograph(CLEAN, ISO_LEVELS[iso], random) if iso else CLEAN
    found = estimate_exposure(changed(noisy, gains), CLEAN)
    assert found.error < MOST_GAIN_ERROR
    assert found.gains == pytest.approx(gains, rel=0.01)


def test_what_moved_does_not_count() -> None:
    noisy = photograph(CLEAN, ISO_LEVELS[800], np.random.default_rng(0))
    noisy[100:260, 200:420] = noisy[100:260, 200:420][::-1, ::-1]
    found = estimate_exposure(changed(noisy, (0.8, 0.85, 0.8)), CLEAN)
    assert found.gains == pytest.approx((0.8, 0.85, 0.8), rel=0.01)


def test_a_dark_photo_is_uncertain() -> None:
    found = estimate_exposure(CLEAN // 25, CLEAN // 25)
    assert found.error == 1
    assert found.gains == UNITY


@pytest.mark.parametrize("deep", [(True, True), (True, False), (False, True)])
def test_the_estimate_does_not_depend_on_bit_depth(deep: tuple[bool, bool]) -> None:
    noisy = photograph(CLEAN, ISO_LEVELS[800], np.random.default_rng(0))
    pair = apply_gains(noisy, (0.9, 0.9, 0.9)), CLEAN
    expected = estimate_exposure(*pair)
    found = estimate_exposure(
        *(sixteen_bits(x) if d else x for x, d in zip(pair, deep, strict=True))
    )
    assert found.gains == pytest.approx(expected.gains, abs=0.002)


@pytest.mark.parametrize("size", [(15, 40), (16, 16), (64, 64)])
def test_small_photos_are_estimated_or_uncertain(size: tuple[int, int]) -> None:
    part = CLEAN[: size[0], : size[1]]
    found = estimate_exposure(part, part)
    assert found.gains == pytest.approx(UNITY, abs=0.003)
    assert found.uneven < 0.01


def test_light_that_differs_from_part_to_part_is_uneven() -> None:
    ramp = np.linspace(0.7, 1.3, CLEAN.shape[0])[:, None, None]
    assert estimate_exposure(to_srgb(to_linear(CLEAN) * ramp, 65535), CLEAN).uneven > 0.15
    assert estimate_exposure(CLEAN, CLEAN).uneven < 0.01


def test_a_lamp_in_a_corner_and_other_tones_and_colours_are_uneven() -> None:
    noisy = photograph(CLEAN, ISO_LEVELS[800], np.random.default_rng(0))
    assert estimate_exposure(noisy, CLEAN).uneven < MOST_UNEVEN / 2
    y, x = np.mgrid[: CLEAN.shape[0], : CLEAN.shape[1]]
    lamp = 1 + np.exp(-(y**2 + x**2) / (2 * 110**2))
    lit = to_srgb(to_linear(noisy) * lamp[:, :, None], 65535)
    toned = (255 * (noisy / 255) ** 1.25).astype(np.uint8)
    grey = noisy.mean(axis=2, keepdims=True)
    vivid = np.clip(grey + 1.5 * (noisy - grey), 0, 255).astype(np.uint8)
    for changed in (lit, toned, vivid):
        assert estimate_exposure(changed, CLEAN).uneven > MOST_UNEVEN


def test_what_only_one_photo_shows_is_foreign() -> None:
    noisy = photograph(CLEAN, ISO_LEVELS[800], np.random.default_rng(0))
    assert estimate_exposure(noisy, CLEAN).foreign == 0
    noisy[150:330, 60:160] = 128
    assert estimate_exposure(noisy, CLEAN).foreign > MOST_FOREIGN


@pytest.mark.parametrize("deep", [False, True])
def test_gains_multiply_linear_light(deep: bool) -> None:
    photo = sixteen_bits(CLEAN) if deep else CLEAN
    found = apply_gains(photo, (0.5, 1.0, 2.0))
    assert found.dtype == photo.dtype
    assert np.array_equal(found[:, :, 1], photo[:, :, 1])
    expected = np.clip(to_linear(photo) * (0.5, 1.0, 2.0), 0, 1)
    assert np.abs(to_linear(found) - expected).max() < (1e-4 if deep else 0.01)
