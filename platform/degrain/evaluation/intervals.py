"""Confidence intervals of mean gains over scenes.

Photos of one scene are alike, so each scene counts once, by the mean of its photos, however many it
has, and the interval is that of Student's t for these means. For two denoisers the values are
differences photo by photo (paired), which removes how hard the photos are.

Means of one photo vary more than means of thirty. That makes the interval wider than it needs to be
and never too narrow, from a confidence of 0.917 on and as long as the means are normal (Ibragimov
and Mueller, "t-statistic based correlation and heterogeneity robust inference", Journal of Business
& Economic Statistics 28(4), 2010). Where each photo counts once, or scenes are drawn by a
bootstrap, a scene with most of the photos decides nearly alone, and the interval is half as wide as
it should be.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t

FEWEST_SCENES = 3
"""With fewer scenes there is no interval."""


@dataclass(frozen=True)
class Interval:
    """A mean over scenes and its confidence interval; its bounds are infinite with fewer than
    FEWEST_SCENES scenes.
    """

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        if not np.isfinite(self.low):
            return f"{self.mean:+.2f}"
        return f"{self.mean:+.2f} ({self.low:+.2f} to {self.high:+.2f})"


def scene_interval(
    values: Sequence[float], scenes: Sequence[str], *, confidence: float = 0.95
) -> Interval:
    """The mean over scenes of `values`, one per photo, and its two-sided confidence interval.

    Raises ValueError without photos, for unequal lengths, or a confidence outside (0, 1).
    """
    if not values or len(values) != len(scenes):
        raise ValueError(f"got {len(values)} values of {len(scenes)} photos")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must be between 0 and 1, got {confidence}")
    _, places = np.unique(np.asarray(scenes, dtype=object).astype(str), return_inverse=True)
    means = np.bincount(places, weights=np.asarray(values, dtype=np.float64)) / np.bincount(places)
    mean, count = float(means.mean()), len(means)
    if count < FEWEST_SCENES:
        return Interval(mean, -float("inf"), float("inf"))
    error = float(means.std(ddof=1)) / count**0.5
    half = float(t.ppf((1 + confidence) / 2, count - 1)) * error
    return Interval(mean, mean - half, mean + half)
