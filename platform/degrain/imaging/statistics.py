"""What a pair's difference tells of its noise: variance against signal, and how far neighbours depend on each other."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from degrain.imaging.noise import to_linear
from degrain.imaging.pixels import Photo, peak

LEVELS = 32
"""Bins of signal, evenly wide on the photo's own (gamma) scale, where dark levels are many."""
_DARKEST, _BRIGHTEST = 0.08, 0.95
"""On the photo's own scale; noise beyond is clipped, so that there seems to be less than there is."""
_FEWEST_LEVELS = 4


@dataclass(frozen=True)
class NoiseFit:
    """Noise of variance `gain * x + read` at linear light x in [0, 1]."""

    gain: float
    read: float
    correlation: float
    """Between neighbours in rows and columns, averaged over both and over channels; 0 is white."""


def noise_by_level(noisy: Photo, clean: Photo) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Number of values, mean difference and its variance by level of the clean photo: three (LEVELS,) arrays.

    Differences are of linear light in [0, 1], because noise is linear there and not after the tone curve; all channels
    count alike. Levels without values have zeros.
    """
    bins = np.minimum(clean.reshape(-1).astype(np.int64) * LEVELS // (peak(clean) + 1), LEVELS - 1)
    difference = (to_linear(noisy) - to_linear(clean)).reshape(-1)
    count = np.bincount(bins, minlength=LEVELS)
    some = np.maximum(count, 1)
    mean = np.bincount(bins, difference, LEVELS) / some
    variance = np.bincount(bins, difference**2, LEVELS) / some - mean**2
    return count, mean, np.maximum(variance, 0)


def level_centres() -> NDArray[np.float64]:
    """The linear light in the middle of each level."""
    return to_linear(np.round((np.arange(LEVELS) + 0.5) / LEVELS * 65535).astype(np.uint16))


def fit_line(count: NDArray[np.int64], variance: NDArray[np.float64]) -> tuple[float, float]:
    """Gain and read, neither negative, of the line through the variances by level.

    Least squares of relative errors, each level weighted by its number of values: variances span decades.
    """
    place = (np.arange(LEVELS) + 0.5) / LEVELS
    used = (count > 0) & (variance > 0) & (place > _DARKEST) & (place < _BRIGHTEST)
    if not used.any():
        return 0.0, 0.0
    # Where noise reaches down to black it is clipped; such levels count only if there are no others.
    clear = used & (level_centres() > 2 * np.sqrt(variance))
    used = clear if clear.sum() >= _FEWEST_LEVELS else used
    weight = np.sqrt(count[used] / count[used].sum()) / variance[used]
    x = level_centres()[used]
    (gain, read), _ = nnls(np.stack([x * weight, weight], axis=1), variance[used] * weight)
    return float(gain), float(read)


def neighbour_correlation(noisy: Photo, clean: Photo, distance: int = 1) -> float:
    """Correlation of the difference with itself some pixels on, averaged over rows, columns and channels."""
    difference = noisy / np.float32(peak(noisy)) - clean / np.float32(peak(clean))
    # Clipped noise has another mean in dark parts than in bright ones; that is not noise.
    level = clean.astype(np.int64) * LEVELS // (peak(clean) + 1)
    sums, counts = np.bincount(level.ravel(), difference.ravel(), LEVELS), np.bincount(level.ravel(), minlength=LEVELS)
    difference -= (sums / np.maximum(counts, 1)).astype(np.float32)[level]
    variance = (difference**2).mean(axis=(0, 1), dtype=np.float64)
    some = np.where(variance > 0, variance, 1)
    along = [
        (difference[:, distance:] * difference[:, :-distance]).mean(axis=(0, 1), dtype=np.float64) / some,
        (difference[distance:] * difference[:-distance]).mean(axis=(0, 1), dtype=np.float64) / some,
    ]
    return float(np.mean(along))


def fit_noise(noisy: Photo, clean: Photo) -> NoiseFit:
    """The noise of one aligned pair of (H, W, 3) photos."""
    count, _, variance = noise_by_level(noisy, clean)
    return NoiseFit(*fit_line(count, variance), neighbour_correlation(noisy, clean))
