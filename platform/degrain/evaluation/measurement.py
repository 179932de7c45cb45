"""What is measured on one denoiser and one photo."""

import copy
import time
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from degrain.evaluation.scores import PhotoScore
from degrain.imaging.crops import centre_crop
from degrain.imaging.metrics import HIGHEST_PSNR, score_photo
from degrain.imaging.pixels import Photo, eight_bits
from degrain.inference.denoiser import Denoiser, NetworkDenoiser

_WARM_UP_SIDE = 64
_ROWS = 256
"""Rows of a photo that are differentiated at once."""
_CAST_SIDE = 192
"""Side of the part whose colours are compared, pixels."""
_CAST_NOISE = 10.0
"""Standard deviation of its noise, of 255."""
_SMALL_TILE = 96
"""Side of the small tiles whose seams are looked for, pixels."""


def measure(
    denoiser: Denoiser, noisy: Photo, clean: Photo, *, clean_input: bool
) -> tuple[PhotoScore, Photo]:
    """Denoise and score one photo; also returns the output.

    The time is that of the denoiser alone, after a warm-up on a corner of the photo. With
    `clean_input` the clean photo is denoised too.
    """
    denoiser(noisy[:_WARM_UP_SIDE, :_WARM_UP_SIDE])
    began = time.perf_counter()
    output = denoiser(noisy)
    seconds = time.perf_counter() - began
    score = score_photo(output, clean)
    return PhotoScore(
        psnr=min(score.psnr, HIGHEST_PSNR),
        ssim=score.ssim,
        seconds=seconds,
        megapixels=noisy.shape[0] * noisy.shape[1] / 1e6,
        shift=_mean_difference(output, clean),
        cast=_cast(denoiser, clean),
        detail=gradient_energy(output) / max(gradient_energy(clean), 1e-9),
        clean_psnr=_clean_psnr(denoiser, clean) if clean_input else None,
    ), output


def _clean_psnr(denoiser: Denoiser, clean: Photo) -> float:
    return min(score_photo(denoiser(clean), clean).psnr, HIGHEST_PSNR)


def _cast(denoiser: Denoiser, clean: Photo) -> tuple[float, float, float]:
    """What is done to the mean of a part of the clean photo with noise, see `PhotoScore.cast`.

    Its contrast is reduced, so that the noise is not clipped, whose mean would not be zero.
    """
    part = eight_bits(centre_crop(clean, _CAST_SIDE)).astype(np.float32)
    noise = np.random.default_rng(0).normal(0, _CAST_NOISE, part.shape)
    noisy = np.clip(np.round(25.5 + 0.8 * part + noise), 0, 255).astype(np.uint8)
    return _mean_difference(denoiser(noisy), noisy)


def _mean_difference(output: Photo, expected: Photo) -> tuple[float, float, float]:
    red, green, blue = (
        eight_bits(output).mean((0, 1)) - eight_bits(expected).mean((0, 1))
    ).tolist()
    return red, green, blue


def gradient_energy(photo: Photo) -> float:
    """Mean squared difference of neighbouring pixels' grey values, down and to the right, in
    squared levels of 8 bits.
    """
    height, width = photo.shape[:2]
    down, right = 0.0, 0.0
    for top in range(0, height, _ROWS):
        # One row more, for the differences to the next strip.
        rows = eight_bits(photo[top : top + _ROWS + 1]).astype(np.float32)
        grey: NDArray[np.float32] = rows.mean(axis=2)
        down += float(np.square(np.diff(grey, axis=0)).sum(dtype=np.float64))
        right += float(np.square(np.diff(grey[:_ROWS], axis=1)).sum(dtype=np.float64))
    return float(down / max((height - 1) * width, 1) + right / max(height * (width - 1), 1))


def largest_seam(denoiser: Denoiser, photo: Photo) -> float | None:
    """Largest difference between a photo denoised in small tiles and in one, in levels of 8 bits.

    None for a denoiser that does not work in tiles.
    """
    if not isinstance(denoiser, NetworkDenoiser):
        return None
    tiled = copy.copy(denoiser)
    tiled.config = replace(denoiser.config, tile=_SMALL_TILE)
    whole, parts = eight_bits(denoiser(photo)), eight_bits(tiled(photo))
    return float((np.maximum(whole, parts) - np.minimum(whole, parts)).max())
