"""Strength, luma, chroma and detail: parts of the noise that a denoiser finds."""

import numpy as np
import pytest
from unit.support import natural_photo, with_noise

from degrain.errors import UserError
from degrain.imaging.pixels import Photo, sixteen_bits
from degrain.inference.blending import (
    LUMA,
    Blended,
    noise_deviations,
    returned_detail,
    wavelet_bands,
)
from degrain.inference.config import BlendConfig

CLEAN = natural_photo(300, 280)
NOISY = with_noise(CLEAN)


class Known:
    """Returns a known photo, and counts."""

    name, parameters = "known", 7

    def __init__(self, clean: Photo) -> None:
        self.clean, self.calls = clean, 0

    def __call__(self, photo: Photo, window: object = None) -> Photo:
        self.calls += 1
        return self.clean


def blended(noisy: Photo = NOISY, clean: Photo = CLEAN, **config: float) -> Photo:
    return Blended(Known(clean), BlendConfig(**config))(noisy)


@pytest.mark.parametrize("deep", [False, True])
def test_strength_blends_the_photo_with_the_output(deep: bool) -> None:
    noisy, clean = (sixteen_bits(p) if deep else p for p in (NOISY, CLEAN))
    assert np.array_equal(blended(noisy, clean, strength=0), noisy)
    assert np.array_equal(blended(noisy, clean), clean)
    half = blended(noisy, clean, strength=0.5)
    assert half.dtype == noisy.dtype
    assert np.abs(half - (noisy.astype(float) + clean) / 2).max() <= 0.5 + 1e-2


def test_nothing_removed_needs_no_denoiser() -> None:
    for config in (BlendConfig(strength=0), BlendConfig(luma=0, chroma=0)):
        known = Known(CLEAN)
        assert np.array_equal(Blended(known, config)(NOISY), NOISY)
        assert known.calls == 0


def test_luma_and_chroma_are_the_parts_of_ycbcr() -> None:
    removed = NOISY.astype(float) - CLEAN
    inner = np.s_[:, :]
    without_colour = NOISY - blended(chroma=0).astype(float)
    without_luma = NOISY - blended(luma=0).astype(float)
    unclipped = np.all((blended(chroma=0) % 255 > 0) & (blended(luma=0) % 255 > 0), axis=2)
    grey = np.ptp(without_colour, axis=2)[unclipped]
    assert grey.max() <= 1.0  # rounding
    assert np.abs(without_luma[unclipped] @ LUMA).max() <= 0.51
    total = (without_colour + without_luma - removed)[inner][unclipped]
    assert np.abs(total).max() <= 1.01


def test_bands_sum_to_the_plane_without_its_coarse_rest() -> None:
    plane = np.random.default_rng(0).normal(size=(40, 50)).astype(np.float32)
    rest = plane - sum(wavelet_bands(plane))
    # Three smoothings of white noise leave little of it.
    assert np.std(rest) < 0.1
    flat = np.full((40, 50), 3, np.float32)
    assert all(np.abs(band).max() < 1e-5 for band in wavelet_bands(flat))


def test_deviations_of_white_noise_are_those_of_the_wavelet() -> None:
    """Starck and Murtagh's table for a B3 spline in two dimensions: 0.889, 0.200, 0.086."""
    noise = np.random.default_rng(0).normal(0, 10, (600, 600))
    clean = np.full((600, 600, 3), 128, np.uint8)
    noisy = np.round(clean + noise[:, :, None]).astype(np.uint8)
    found = np.array(noise_deviations(noisy, clean)) / 10
    assert np.allclose(found, [0.889, 0.200, 0.086], rtol=0.05)


def test_detail_returns_edges_and_not_noise() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 5, (200, 200)).astype(np.float32)
    edge = np.zeros_like(noise)
    edge[:, 100] = 60
    deviations = (5 * 0.889, 5 * 0.200, 5 * 0.086)
    returned = returned_detail(noise + edge, 0.5, deviations)
    away = np.delete(returned, np.s_[80:120], axis=1)
    assert np.std(away) < 0.05 * 5
    assert returned[:, 100].mean() > 0.6 * 60


def test_detail_is_between_none_and_all() -> None:
    luma = [
        np.abs((blended(detail=d).astype(float) - NOISY) @ LUMA).mean() for d in (0, 0.3, 0.7, 1)
    ]
    assert luma == sorted(luma, reverse=True)
    assert luma[-1] < 0.4 * luma[0]  # the coarsest part is still removed
    assert np.array_equal(blended(detail=0), CLEAN)


def test_bands_of_rows_leave_no_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = blended(detail=0.4, luma=0.7, chroma=0.9)
    monkeypatch.setattr("degrain.inference.blending._ROWS", 37)
    assert np.array_equal(blended(detail=0.4, luma=0.7, chroma=0.9), whole)


@pytest.mark.parametrize("name", ["strength", "luma", "chroma", "detail"])
@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_values_outside_0_to_1_are_refused(name: str, value: float) -> None:
    with pytest.raises(UserError, match=f"{name} must be a share between 0 and 1"):
        BlendConfig(**{name: value})


def test_name_and_parameters_are_the_denoisers() -> None:
    one = Blended(Known(CLEAN), BlendConfig(strength=0.5))
    assert (one.name, one.parameters) == ("known", 7)


@pytest.mark.parametrize("luma", [0, 0.5])
def test_grey_photos_have_no_colour_to_remove(luma: float) -> None:
    grey = np.repeat(NOISY[:, :, :1], 3, axis=2)
    clean = CLEAN  # as of a network that tints grey photos
    result = blended(grey, clean, luma=luma)
    assert np.array_equal(result, np.repeat(result[:, :, :1], 3, axis=2))
    assert np.array_equal(result, grey) == (luma == 0)


def test_without_luma_a_grey_photo_needs_no_denoiser() -> None:
    grey = np.repeat(NOISY[:, :, :1], 3, axis=2)
    known = Known(CLEAN)
    assert np.array_equal(Blended(known, BlendConfig(luma=0))(grey), grey)
    assert known.calls == 0
