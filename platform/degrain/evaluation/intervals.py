"""Confidence intervals of means over photos, by a bootstrap over scenes.

Photos of one scene are alike, so scenes are drawn, not photos: each resample draws as many scenes
as there are, with replacement, and takes the mean over all their photos. For two denoisers the
means are of the differences photo by photo (paired), which removes how hard the photos are.

The standard deviation of the resampled means, times sqrt(n / (n - 1)) for n scenes, is the standard
error, and the interval spans Student's t of n - 1 degrees of freedom on both sides (Hesterberg,
"What teachers should know about the bootstrap", The American Statistician 69(4), 2015, section 3:
t interval with a bootstrap standard error). Percentiles of the resamples cannot be used: with few
scenes they never go beyond the best and the worst scene, and are much too narrow.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

FEWEST_SCENES = 3
"""With fewer scenes there is no interval."""
_RESAMPLES = 2_000
_CHUNK = 500


@dataclass(frozen=True)
class Interval:
    """A mean and its confidence interval; its bounds are infinite with fewer than FEWEST_SCENES
    scenes.
    """

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        if not np.isfinite(self.low):
            return f"{self.mean:+.2f}"
        return f"{self.mean:+.2f} ({self.low:+.2f} to {self.high:+.2f})"


def bootstrap(
    values: Sequence[float], scenes: Sequence[str], *, confidence: float = 0.95, seed: int = 0
) -> Interval:
    """The mean of `values`, one per photo, and its two-sided confidence interval over scenes.

    Raises ValueError without photos, for unequal lengths, or a confidence outside (0, 1).
    """
    if not values or len(values) != len(scenes):
        raise ValueError(f"got {len(values)} values of {len(scenes)} photos")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, got {confidence}")
    sums, counts = _by_scene(values, scenes)
    mean = float(sums.sum() / counts.sum())
    if len(sums) < FEWEST_SCENES:
        return Interval(mean, -float("inf"), float("inf"))
    means = _resampled_means(sums, counts, np.random.default_rng(seed))
    error = float(means.std()) * (len(sums) / (len(sums) - 1)) ** 0.5
    half = float(t.ppf((1 + confidence) / 2, len(sums) - 1)) * error
    return Interval(mean, mean - half, mean + half)


def _by_scene(
    values: Sequence[float], scenes: Sequence[str]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum of the values and number of the photos of each scene."""
    _, places = np.unique(np.asarray(scenes, dtype=object).astype(str), return_inverse=True)
    sums = np.bincount(places, weights=np.asarray(values, dtype=np.float64))
    counts = np.bincount(places)
    return sums.astype(np.float64), counts.astype(np.float64)


def _resampled_means(
    sums: NDArray[np.float64], counts: NDArray[np.float64], random: np.random.Generator
) -> NDArray[np.float64]:
    means: list[NDArray[np.float64]] = []
    # In parts, because thousands of scenes times all resamples would need gigabytes.
    for _ in range(_RESAMPLES // _CHUNK):
        drawn = random.integers(len(sums), size=(_CHUNK, len(sums)))
        means.append(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1))
    return np.concatenate(means)
