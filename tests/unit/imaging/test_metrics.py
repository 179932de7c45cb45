"""PSNR and SSIM against scikit-image, an independent implementation."""

import math

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from unit.support import natural_photo, random_photo, smooth_photo, with_noise

from degrain.imaging.metrics import (
    Score,
    mean_score,
    psnr,
    score_photo,
    ssim,
    to_eight_bits,
    to_float,
    to_pixels,
)
from degrain.imaging.pixels import Photo, sixteen_bits
from denoisenets.memory import PeakMemory


def reference(output: Photo, clean: Photo) -> Score:
    return Score(
        peak_signal_noise_ratio(clean, output, data_range=255),
        structural_similarity(
            clean,
            output,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=255,
            channel_axis=2,
        ),
    )


def assert_equals_reference(output: Photo, clean: Photo) -> None:
    expected, got = reference(output, clean), score_photo(output, clean)
    assert got.psnr == pytest.approx(expected.psnr, abs=1e-4)
    assert got.ssim == pytest.approx(expected.ssim, abs=1e-4)


def flat_photo(height: int, width: int, value: int) -> Photo:
    return np.full((height, width, 3), value, dtype=np.uint8)


sides = st.integers(11, 48)


@settings(max_examples=25, deadline=None)
@given(height=sides, width=sides, seed=st.integers(0, 999))
def test_random_photos_score_as_in_scikit_image(height: int, width: int, seed: int) -> None:
    assert_equals_reference(
        random_photo(height, width, seed), random_photo(height, width, seed + 1000)
    )


@settings(max_examples=25, deadline=None)
@given(height=sides, width=sides, seed=st.integers(0, 999), deviation=st.floats(1, 60))
def test_smooth_photos_score_as_in_scikit_image(
    height: int, width: int, seed: int, deviation: float
) -> None:
    clean = smooth_photo(height, width, seed)
    noisy = with_noise(clean, seed, deviation)
    noisy[0, 0] = clean[0, 0] ^ 1
    assert_equals_reference(noisy, clean)


@settings(max_examples=25, deadline=None)
@given(height=sides, width=sides, value=st.integers(0, 255), step=st.integers(1, 255))
@example(height=11, width=11, value=240, step=235)
def test_flat_photos_score_as_in_scikit_image(
    height: int, width: int, value: int, step: int
) -> None:
    assert_equals_reference(
        flat_photo(height, width, (value + step) % 256), flat_photo(height, width, value)
    )


@pytest.mark.parametrize(("height", "width"), [(11, 11), (64, 64), (11, 131), (97, 33)])
def test_extremes_score_as_in_scikit_image(height: int, width: int) -> None:
    black, white = flat_photo(height, width, 0), flat_photo(height, width, 255)
    assert_equals_reference(black, white)
    assert score_photo(black, white).psnr == 0
    assert_equals_reference(white - random_photo(height, width), random_photo(height, width))


def test_natural_photo_scores_as_in_scikit_image() -> None:
    clean = natural_photo(151, 203)
    assert_equals_reference(with_noise(clean), clean)


@pytest.mark.parametrize(("height", "width"), [(300, 139), (138, 420), (267, 266)])
def test_photos_of_several_tiles_score_as_in_scikit_image(height: int, width: int) -> None:
    clean = smooth_photo(height, width)
    output, expected = with_noise(clean), reference(with_noise(clean), clean)
    got = score_photo(output, clean)
    assert got.psnr == pytest.approx(expected.psnr, abs=1e-9)
    assert got.ssim == pytest.approx(expected.ssim, abs=1e-9)


def test_the_memory_of_a_score_hardly_depends_on_the_size() -> None:
    clean = np.tile(natural_photo(200, 200), (7, 6, 1))
    with PeakMemory() as memory:
        score_photo(clean ^ 1, clean)
    assert memory.peak < 2 * clean.nbytes + 30e6


@pytest.mark.parametrize(
    "photo", [natural_photo(40, 50), flat_photo(40, 50, 0), flat_photo(40, 50, 255)]
)
def test_identical_photos_have_infinite_psnr_and_ssim_1(photo: Photo) -> None:
    score = score_photo(photo, photo)
    assert score.psnr == math.inf
    assert score.ssim == pytest.approx(1, abs=1e-9)


def test_a_batch_scores_each_image_by_itself() -> None:
    clean = np.stack([smooth_photo(24, 31, seed) for seed in range(4)])
    output = np.stack([with_noise(photo, seed, 5 * (seed + 1)) for seed, photo in enumerate(clean)])
    a, b = (torch.from_numpy(x).permute(0, 3, 1, 2) for x in (output, clean))
    expected = [score_photo(x, y) for x, y in zip(output, clean, strict=True)]
    assert psnr(a, b).tolist() == pytest.approx([s.psnr for s in expected], abs=1e-6)
    assert ssim(a, b).tolist() == pytest.approx([s.ssim for s in expected], abs=1e-6)


@pytest.mark.parametrize(("height", "width"), [(10, 10), (10, 64), (64, 10), (1, 1)])
def test_photos_smaller_than_the_window_have_no_ssim(height: int, width: int) -> None:
    photo = random_photo(height, width)
    with pytest.raises(ValueError, match=f"SSIM needs at least 11x11 pixels, got {height}x{width}"):
        score_photo(photo, photo)


def test_mean_weights_photos_equally() -> None:
    scores = (score for score in [Score(20.0, 0.5), Score(30.0, 0.7), Score(40.0, 0.9)])
    mean = mean_score(scores)
    assert mean.psnr == pytest.approx(30)
    assert mean.ssim == pytest.approx(0.7)


def test_mean_of_no_photos_is_an_error() -> None:
    with pytest.raises(ValueError, match="no photos to average over"):
        mean_score([])


def test_eight_bits_clip_and_round() -> None:
    values = torch.tensor(
        [-3.0, -0.001, 0.0, 0.49 / 255, 0.51 / 255, 254.49 / 255, 254.51 / 255, 1.0, 1.001, 7.0]
    )
    assert to_eight_bits(values).tolist() == [0, 0, 0, 0, 1, 254, 255, 255, 255, 255]
    assert to_eight_bits(values).dtype == torch.uint8


def test_float_round_trip_preserves_all_bytes() -> None:
    every = torch.arange(256, dtype=torch.uint8)
    floats = to_float(every)
    assert floats.dtype == torch.float32
    assert floats.min() == 0
    assert floats.max() == 1
    assert torch.equal(to_eight_bits(floats), every)
    assert torch.equal(every, torch.arange(256, dtype=torch.uint8))


def test_eight_bits_of_bfloat16_are_rounded_after_widening() -> None:
    """In bfloat16, 255 x would be rounded to 8 bits of mantissa before it is rounded to a byte."""
    narrow = torch.linspace(-0.2, 1.2, 4001).to(torch.bfloat16)
    expected = np.clip(np.round(narrow.double().numpy() * 255), 0, 255)
    assert to_eight_bits(narrow).tolist() == expected.tolist()


@pytest.mark.parametrize("kind", [torch.uint16, torch.int32])
def test_float_round_trip_preserves_all_sixteen_bits(kind: torch.dtype) -> None:
    every = torch.from_numpy(np.arange(65536, dtype=np.uint16)).to(kind)
    floats = to_float(every)
    assert floats.dtype == torch.float32
    assert (floats.min(), floats.max()) == (0, 1)
    assert to_pixels(floats, torch.int32).tolist() == list(range(65536))


def test_sixteen_bits_clip_and_round() -> None:
    values = torch.tensor(
        [-3.0, -0.001, 0.0, 0.4 / 65535, 0.6 / 65535, 65534.6 / 65535, 1.0, 1.001, 7.0]
    )
    pixels = to_pixels(values, torch.int32)
    assert pixels.tolist() == [0, 0, 0, 0, 1, 65535, 65535, 65535, 65535]
    assert pixels.dtype == torch.int32


def test_sixteen_bit_photos_score_as_their_eight_bit_rounding() -> None:
    clean = natural_photo(40, 50)
    noisy = with_noise(clean)
    expected = score_photo(noisy, clean)
    random = np.random.default_rng(0)
    # Up to half of an eight-bit step away.
    deep = [
        (sixteen_bits(x) + random.integers(-128, 129, x.shape)).clip(0, 65535).astype(np.uint16)
        for x in (noisy, clean)
    ]
    assert score_photo(*deep) == expected
    assert score_photo(deep[0], clean) == expected
    assert score_photo(noisy, deep[1]) == expected
