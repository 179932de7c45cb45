"""Estimate how the exposure and white balance of a noisy photo differ from those of its clean one.

The noisy photo is taken as the clean one times a gain per channel, in linear light. A network
trained on pairs whose gain is not 1 brightens or tints every photo, and scores do not show it,
because the clean photos of the test are brighter or tinted too. Authors of corpora match
intensities first (Anaya and Barbu, "RENOIR - A dataset for real low-light image noise reduction",
2018).

Both photos, aligned, are compared in blocks. In each, the median of the difference tells the
brightness of the noisy photo: it is the same whether the noise has a mean of zero in linear light
or in sRGB, and clipping does not move it. Blocks that are partly black or white are left out. The
logarithms of the blocks' ratios are averaged with Tukey's biweight, so that what moved does not
count. Some processing, such as resizing, darkens with the square of the noise; a term of that form
is fitted beside, about zero by `_DARKENING`, and what it cannot explain counts as an error, so that
the gain of a photo with strong noise is less certain, and not wrong.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from degrain.imaging.camera_noise import linear_values, to_linear, to_srgb
from degrain.imaging.pixels import Photo, peak

MOST_UNEVEN = 0.16
"""See `Exposure.uneven`; of 251 real pairs the largest is 0.13."""
MOST_FOREIGN = 0.03
"""See `Exposure.foreign`; of 251 real pairs the largest is 0.024."""

_BLOCK = 16
"""Side of a block in pixels."""
_MOST_BLOCKS = 1024
"""About as many are compared."""
_FEWEST_BLOCKS = 12
_MOST_CLIPPED = 0.2
"""Share of a block that may be black or white."""
_DARKEST, _BRIGHTEST = 10 / 255, 0.98
"""Brightness of blocks that are compared, of white."""
_DARKENING = 0.3
"""Standard deviation of the share by which noise darkens, over the square of the relative noise."""
_DISTRUST = 0.1
"""Error of a block's ratio over the square of its relative noise."""
_BIAS = 0.03
"""Error of all ratios over the square of the relative noise, which no average removes."""
_LEAST_SPREAD = 0.01
"""Standard deviation of a block's ratio that is always assumed."""
_TEXTURE = 0.1
"""Error of a block's median difference, over the deviation of its pixels."""
_BIWEIGHT = 4.0
"""Standard deviations from which a block does not count."""
_STEPS = 15
_ZONES = 4
"""Zones along a side in which light is compared."""
_CLASSES = 8
"""Classes of brightness, and of colour, in which it is compared too."""
_FEWEST_OF_GROUP = 6
_MOST_NOISE = 0.3
"""Square of the relative noise up to which blocks are compared by class; beyond, noise itself
differs with brightness."""
_FOREIGN, _FOREIGN_ERRORS = 0.25, 6.0
"""Deviation of a block's ratio, and the same in standard deviations, that no exposure explains."""
_DEVIATION = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation."""


@dataclass(frozen=True)
class Exposure:
    """Exposure of the noisy photo over that of the clean one."""

    gains: tuple[float, float, float]
    """Of red, green and blue, in linear light."""
    error: float
    """Standard error of the least certain, as a share; 1 if too little could be compared."""
    uneven: float
    """What the gains leave in a zone of the photo, in a class of brightness, or of colours, the
    largest median less three standard errors, as a share: other light, or another tone curve."""
    foreign: float
    """Share of the blocks that no exposure explains: they show something else."""


def estimate_exposure(noisy: Photo, clean: Photo) -> Exposure:
    """Estimate the gains between two aligned (H, W, 3) photos of one size."""
    blocks = _Blocks.of(noisy, clean)
    fits = [blocks.fit(channel) for channel in range(3)]
    red, green, blue = (float(np.exp(fit.gain)) for fit in fits)
    return Exposure(
        (red, green, blue),
        max(fit.error for fit in fits),
        max(fit.uneven for fit in fits),
        max(fit.foreign for fit in fits),
    )


def apply_gains(photo: Photo, gains: tuple[float, float, float]) -> Photo:
    """Multiply the channels of an (H, W, 3) photo in linear light; rounded and clipped."""
    white = peak(photo)
    linear = to_linear(np.arange(white + 1, dtype=photo.dtype))
    tables = [to_srgb(linear * gain, white) for gain in gains]
    return np.stack([table[photo[:, :, i]] for i, table in enumerate(tables)], axis=2)


@dataclass(frozen=True)
class _Fit:
    """The gain of one channel."""

    gain: float
    """Natural logarithm."""
    error: float
    uneven: float
    foreign: float


@dataclass(frozen=True)
class _Blocks:
    """Blocks of a pair; arrays are (N, 3)."""

    ratio: NDArray[np.float64]
    """Logarithm of the noisy block's brightness over the clean one's, in linear light; NaN if the
    block is not compared."""
    variance: NDArray[np.float64]
    """Of the ratio."""
    noise: NDArray[np.float64]
    """Variance of the noise over the squared brightness, in linear light."""
    brightness: NDArray[np.float64]
    """Of the clean photo, in (0, 1]."""
    zone: NDArray[np.intp]
    """(N,)"""

    @classmethod
    def of(cls, noisy: Photo, clean: Photo) -> "_Blocks":
        a, zone = _cut(noisy)
        b, _ = _cut(clean)
        whites = peak(noisy), peak(clean)
        clipped = np.zeros(a.shape[:2], bool)
        for values, white in zip((a, b), whites, strict=True):
            for limit in (0, white):
                clipped |= (values == limit).mean(axis=2) > _MOST_CLIPPED
        # Rounding to 8 bits is spread, or the median would jump from level to level.
        spread = np.random.default_rng(0).random(a.shape[2], dtype=np.float32) - np.float32(0.5)
        difference = (a + spread) / np.float32(whites[0]) - b / np.float32(whites[1])
        shift = np.median(difference, axis=2)
        deviation = _DEVIATION * np.median(np.abs(difference - shift[..., None]), axis=2)
        before = b.mean(axis=2, dtype=np.float32) / np.float32(whites[1])
        after = before + shift
        dim, bright = np.minimum(before, after), np.maximum(before, after)
        compared = ~clipped & (dim > _DARKEST) & (bright < _BRIGHTEST)
        safe = np.where(compared, after, 0.5), np.where(compared, before, 0.5)
        ratio = np.log(linear_values(safe[0]) / linear_values(safe[1]))
        # Of the sRGB curve, about x ** 2.2: relative changes of linear light by changes of values.
        slope = 2.2 / safe[0]
        texture = b.std(axis=2, dtype=np.float32) / np.float32(whites[1])
        rounding = 0.15 / whites[0] + 0.15 / whites[1]
        of_median = np.square(1.2533 * deviation / _BLOCK)
        variance = of_median + rounding**2 + np.square(_TEXTURE * texture)
        noise = np.square(deviation * slope, dtype=np.float64)
        return cls(
            np.where(compared, ratio, np.nan),
            variance * np.square(slope) + _LEAST_SPREAD**2 + np.square(_DISTRUST * noise),
            noise,
            np.maximum(before, 1e-3).astype(np.float64),
            zone,
        )

    def fit(self, channel: int) -> _Fit:
        """The gain of a channel, by weighted least squares that leave outliers out."""
        known = np.isfinite(self.ratio[:, channel])
        if known.sum() < _FEWEST_BLOCKS:
            return _Fit(0.0, 1.0, 0.0, 0.0)
        ratio, noise = self.ratio[known, channel], self.noise[known, channel]
        certain = 1 / self.variance[known, channel]
        terms = np.stack([np.ones_like(noise), noise], axis=1)
        prior = np.diag([0.0, _DARKENING**-2])
        amounts = np.array([_weighted_median(ratio, certain), 0.0])
        scale = _DEVIATION * np.median(np.abs(ratio - amounts[0]) * np.sqrt(certain))
        scale = max(float(scale), 1.0)
        for _ in range(_STEPS):
            distance = (ratio - terms @ amounts) * np.sqrt(certain) / (scale * _BIWEIGHT)
            weights = np.square(np.maximum(1 - np.square(distance), 0)) * certain / scale**2
            inverse = np.linalg.inv((terms.T * weights) @ terms + prior)
            amounts = inverse @ (terms.T @ (weights * ratio))
        rest = ratio - terms @ amounts
        scores = terms.T * (weights * rest)
        variance = inverse @ (scores @ scores.T + prior) @ inverse
        bias = _BIAS * float(np.average(noise, weights=weights))
        brightness = self.brightness[known]
        quiet = noise < _MOST_NOISE
        classes = [
            _classes(values[quiet])
            for values in (brightness[:, channel], brightness[:, channel] / brightness.mean(axis=1))
        ]
        uneven = max(
            _unevenness(rest, certain, self.zone[known]),
            *(_unevenness(rest[quiet], certain[quiet], of) for of in classes),
        )
        errors = np.abs(rest) * np.sqrt(certain) / scale
        foreign = float(((np.abs(rest) > _FOREIGN) & (errors > _FOREIGN_ERRORS)).mean())
        error = float(np.hypot(bias, variance[0, 0] ** 0.5))
        return _Fit(float(amounts[0]), error, uneven, foreign)


def _cut(photo: Photo) -> tuple[Photo, NDArray[np.intp]]:
    """Blocks, (N, 3, pixels), evenly spaced, and the zone of each."""
    rows, columns = (extent // _BLOCK for extent in photo.shape[:2])
    step = max(1, int((rows * columns / _MOST_BLOCKS) ** 0.5))
    parts = photo[: rows * _BLOCK, : columns * _BLOCK].reshape(rows, _BLOCK, columns, _BLOCK, 3)
    parts = parts[::step, :, ::step].transpose(0, 2, 4, 1, 3)
    down, right = (np.arange(n) * _ZONES // max(n, 1) for n in parts.shape[:2])
    zones = (down[:, None] * _ZONES + right).ravel()
    return np.ascontiguousarray(parts).reshape(-1, 3, _BLOCK**2), zones


def _weighted_median(values: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    order = np.argsort(values)
    sums = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(sums, sums[-1] / 2)])


def _classes(values: NDArray[np.float64]) -> NDArray[np.intp]:
    """Which of equally large classes each value is in."""
    if not values.size:
        return np.empty(0, np.intp)
    limits = np.quantile(values, np.linspace(0, 1, _CLASSES + 1)[1:-1])
    return np.searchsorted(limits, values)


def _unevenness(
    rest: NDArray[np.float64], weights: NDArray[np.float64], groups: NDArray[np.intp]
) -> float:
    """The largest median of a group, less three standard errors."""
    largest = 0.0
    for group in np.unique(groups):
        ours = groups == group
        if (count := int(ours.sum())) >= _FEWEST_OF_GROUP:
            median = _weighted_median(rest[ours], weights[ours])
            spread = _DEVIATION * float(np.median(np.abs(rest[ours] - median)))
            largest = max(largest, abs(median) - 3 * 1.2533 * spread / count**0.5)
    return largest
