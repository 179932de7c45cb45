"""Noise statistics of a pair: variance as a function of signal, and correlation of neighbouring
pixels.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from degrain.imaging.camera_noise import to_linear
from degrain.imaging.pixels import Photo, peak

LEVELS = 32
"""Bins of signal, of equal width on the sRGB scale, which resolves dark levels better."""
_CENTRES = (np.arange(LEVELS) + 0.5) / LEVELS
"""On the sRGB scale."""
_DARKEST, _BRIGHTEST = 0.08, 0.95
"""On the sRGB scale; clipping beyond makes the variance too low."""
_FEWEST_LEVELS = 4


@dataclass(frozen=True)
class NoiseFit:
    """Noise of variance `gain * x + read` at linear light x in [0, 1]."""

    gain: float
    read: float
    """Read noise: a variance, not a standard deviation."""
    correlation: float
    """Of neighbouring pixels, averaged over rows, columns and channels; 0 for white noise."""


def noise_by_level(
    noisy: Photo, clean: Photo
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Number of values, mean difference and variance of differences per level of the clean photo:
    three (LEVELS,) arrays.

    Differences are of linear light in [0, 1], where the variance is linear in the signal; all
    channels are pooled. Levels without values have zeros.
    """
    bins = _levels(clean).reshape(-1)
    difference = (to_linear(noisy) - to_linear(clean)).reshape(-1)
    count = np.bincount(bins, minlength=LEVELS)
    divisor = np.maximum(count, 1)
    mean = np.bincount(bins, difference, LEVELS) / divisor
    variance = np.bincount(bins, difference**2, LEVELS) / divisor - mean**2
    return count, mean, np.maximum(variance, 0)


def _levels(clean: Photo) -> NDArray[np.int64]:
    """The level of each value, 0 to LEVELS - 1, in the shape of `clean`."""
    return clean.astype(np.int64) * LEVELS // (peak(clean) + 1)


def level_centres() -> NDArray[np.float64]:
    """The linear light at the centre of each level."""
    return to_linear(np.round(_CENTRES * 65535).astype(np.uint16))


def fit_line(count: NDArray[np.int64], variance: NDArray[np.float64]) -> tuple[float, float]:
    """Gain and read variance, both non-negative, of a line fitted to the variances per level.

    Least squares of relative errors, because variances span decades; each level is weighted by its
    number of values.
    """
    used = (count > 0) & (variance > 0) & (_CENTRES > _DARKEST) & (_CENTRES < _BRIGHTEST)
    if not used.any():
        return 0.0, 0.0
    # Noise that reaches black is clipped; such levels are used only if fewer than
    # `_FEWEST_LEVELS` others remain.
    unclipped = used & (level_centres() > 2 * np.sqrt(variance))
    used = unclipped if unclipped.sum() >= _FEWEST_LEVELS else used
    weight = np.sqrt(count[used] / count[used].sum()) / variance[used]
    x = level_centres()[used]
    (gain, read), _ = nnls(np.stack([x * weight, weight], axis=1), variance[used] * weight)
    return float(gain), float(read)


def neighbour_correlation(noisy: Photo, clean: Photo, distance: int = 1) -> float:
    """Autocorrelation of the difference on the sRGB scale at a distance in pixels, averaged over
    rows, columns and channels.
    """
    difference = noisy / np.float32(peak(noisy)) - clean / np.float32(peak(clean))
    # Clipping shifts the mean of the noise in dark and bright parts; remove it per level.
    level = _levels(clean)
    sums, counts = (
        np.bincount(level.ravel(), difference.ravel(), LEVELS),
        np.bincount(level.ravel(), minlength=LEVELS),
    )
    difference -= (sums / np.maximum(counts, 1)).astype(np.float32)[level]
    variance = (difference**2).mean(axis=(0, 1), dtype=np.float64)
    divisor = np.where(variance > 0, variance, 1)
    correlations = [
        (difference[:, distance:] * difference[:, :-distance]).mean(axis=(0, 1), dtype=np.float64)
        / divisor,
        (difference[distance:] * difference[:-distance]).mean(axis=(0, 1), dtype=np.float64)
        / divisor,
    ]
    return float(np.mean(correlations))


def fit_noise(noisy: Photo, clean: Photo) -> NoiseFit:
    """Fit the noise of one aligned pair of (H, W, 3) photos."""
    count, _, variance = noise_by_level(noisy, clean)
    return NoiseFit(*fit_line(count, variance), neighbour_correlation(noisy, clean))
