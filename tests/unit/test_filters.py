"""Non-local means against scikit-image, called with the settings of the seed article."""

import numpy as np
import pytest
from skimage.restoration import denoise_nl_means, estimate_sigma
from unit.support import natural_photo, with_noise

from degrain.imaging.codecs import Photo, sixteen_bits
from degrain.imaging.filters import NonLocalMeans
from degrain.imaging.metrics import score_photo


def test_equals_scikit_image_with_the_articles_settings() -> None:
    noisy = with_noise(natural_photo(24, 30))
    x = noisy.astype(np.float32) / np.float32(255)
    sigma = np.mean(estimate_sigma(x, channel_axis=-1))
    clean = denoise_nl_means(x, patch_size=5, patch_distance=6, h=1.15 * sigma, fast_mode=False, channel_axis=-1)
    expected = np.round(np.clip(clean, 0, 1) * 255).astype(np.uint8)
    got = NonLocalMeans()(noisy)
    assert got.dtype == np.uint8
    assert np.array_equal(got, expected)


def test_denoises() -> None:
    clean = natural_photo(40, 40)
    noisy = with_noise(clean, deviation=20)
    assert score_photo(NonLocalMeans()(noisy), clean).psnr > score_photo(noisy, clean).psnr + 2


@pytest.mark.parametrize("value", [0, 77, 255])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_a_flat_photo_comes_back(value: int, kind: type[np.unsignedinteger]) -> None:
    photo: Photo = np.full((17, 20, 3), value, dtype=kind)
    assert np.array_equal(NonLocalMeans()(photo), photo)


def test_sixteen_bits_stay_sixteen() -> None:
    noisy = with_noise(natural_photo(24, 30))
    deep = NonLocalMeans()(sixteen_bits(noisy))
    assert deep.dtype == np.uint16
    assert np.abs(deep / 257 - NonLocalMeans()(noisy)).max() <= 0.51
    assert np.unique(deep % 257).size > 100


@pytest.mark.parametrize("value", [0, 65535], ids=["black", "white"])
def test_sixteen_bits_do_not_wrap(value: int) -> None:
    noisy: Photo = np.full((16, 16, 3), value, dtype=np.uint16)
    noisy[::3, ::3] = 40_000
    assert np.abs(NonLocalMeans()(noisy).astype(int) - noisy).max() <= 40_000


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 9), (2, 2), (3, 17), (13, 11)])
def test_a_photo_of_any_size_comes_back_in_its_size(height: int, width: int) -> None:
    noisy = with_noise(np.full((height, width, 3), 120, dtype=np.uint8))
    clean = NonLocalMeans()(noisy)
    assert clean.shape == noisy.shape
    assert clean.dtype == np.uint8


def test_a_black_channel_does_not_hide_the_noise_of_the_others() -> None:
    clean = natural_photo(24, 30).copy()
    clean[:, :, 2] = 0
    noisy = with_noise(clean)
    noisy[:, :, 2] = 0
    assert not np.array_equal(NonLocalMeans()(noisy), noisy)
