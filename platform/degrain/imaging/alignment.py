"""Estimate the shift of a noisy photo against its clean one.

The estimate uses a few windows where the clean photo has the most detail. They are blurred, because
fine detail of a noisy photo is mostly noise. Cross-correlation in the Fourier domain finds the
nearest integer shift. The correlation coefficient of the overlap of both windows refines it: a
search over neighbouring integer shifts, then a parabola for the subpixel part.

Training depends on whether an integer shift improves the agreement of the pair. `Shift.gain`
measures it: the share of 1 - r, where r is the correlation coefficient, that the shift removes.

Phase correlation (Kuglin and Hines, 1975) is not used: it divides the cross spectrum by its
magnitude, which weights every frequency equally, and most frequencies are dominated by noise. On
RENOIR it reports shifts of aligned pairs.
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.ndimage import gaussian_filter

from degrain.imaging.crops import most_detailed_crops
from degrain.imaging.limits import LARGEST_SHIFT
from degrain.imaging.pixels import Photo, peak

WINDOW = 512
"""Largest side of a window in pixels."""
_WINDOWS = 2
_STEPS = 4
"""Most moves to a better neighbouring integer shift."""
SMALLEST = 160
"""Smallest side in pixels of photos that are estimated. At the noisiest ISO, one in a hundred
unshifted photos of 128 pixels is misjudged as shifted, and one in three of 64 pixels.
"""
_BLUR = 2.0
"""Standard deviation of the blur in pixels."""


Windows: TypeAlias = list[tuple[NDArray[np.float32], NDArray[np.float32]]]
"""Noisy and clean windows, each (S, S), blurred, of mean zero."""


@dataclass(frozen=True)
class Shift:
    """The shift that registers the noisy photo to the clean one."""

    y: float
    """Pixels down."""
    x: float
    """Pixels right."""
    whole: tuple[int, int]
    """The nearest integer shift, down and right."""
    gain: float
    """Share of 1 - r that the nearest integer shift removes; r is the correlation coefficient."""

    @property
    def distance(self) -> float:
        """The larger of |y| and |x|, in pixels."""
        return max(abs(self.y), abs(self.x))


def estimate_shift(noisy: Photo, clean: Photo) -> Shift:
    """Estimate the shift between two (H, W, 3) photos of equal size, to about a tenth of a pixel.

    Photos with a side below `SMALLEST` return a shift of 0.
    """
    side = min(WINDOW, *clean.shape[:2])
    if side < SMALLEST:
        return Shift(0.0, 0.0, (0, 0), 0.0)
    windows = [
        (
            _blurred(noisy[top : top + side, left : left + side]),
            _blurred(clean[top : top + side, left : left + side]),
        )
        for top, left in most_detailed_crops(clean, side, _WINDOWS)
    ]
    row, column = _nearest_shift(windows)
    around = _correlations_around(windows, row, column)
    for _ in range(_STEPS):
        best = max(around, key=around.__getitem__)
        if best == (row, column) or max(map(abs, best)) >= LARGEST_SHIFT:
            break
        row, column = best
        around = _correlations_around(windows, row, column)
    unshifted, shifted = _correlation(windows, 0, 0), around[row, column]
    return Shift(
        row + _vertex(around[row - 1, column], shifted, around[row + 1, column]),
        column + _vertex(around[row, column - 1], shifted, around[row, column + 1]),
        (row, column),
        (shifted - unshifted) / max(1 - unshifted, 1e-6),
    )


def _blurred(window: Photo) -> NDArray[np.float32]:
    # A sum of three planes is many times faster than a mean over the last axis.
    grey = sum(window[:, :, channel].astype(np.float32) for channel in range(3)) / np.float32(
        3 * peak(window)
    )
    blurred = gaussian_filter(grey, _BLUR, truncate=3)
    return np.asarray(blurred - blurred.mean())


def _nearest_shift(windows: Windows) -> tuple[int, int]:
    """The integer shift below `LARGEST_SHIFT` with the largest cross-correlation of the tapered
    windows.
    """
    side = windows[0][0].shape[0]
    taper = np.outer(np.hanning(side), np.hanning(side)).astype(np.float32)
    product = sum(
        fft.rfft2(taper * clean) * np.conj(fft.rfft2(taper * noisy)) for noisy, clean in windows
    )
    reach = LARGEST_SHIFT - 1
    near = np.roll(fft.irfft2(product, s=(side, side)), (reach, reach), axis=(0, 1))[
        : 2 * reach + 1, : 2 * reach + 1
    ]
    row, column = np.unravel_index(int(np.argmax(near)), near.shape)
    return int(row) - reach, int(column) - reach


def _correlations_around(windows: Windows, row: int, column: int) -> dict[tuple[int, int], float]:
    """The correlation coefficient at an integer shift and its eight neighbours."""
    return {
        (y, x): _correlation(windows, y, x)
        for y in range(row - 1, row + 2)
        for x in range(column - 1, column + 2)
    }


def _correlation(windows: Windows, y: int, x: int) -> float:
    """Correlation coefficient of the overlap of both windows after an integer shift."""
    margin = LARGEST_SHIFT + 1
    products = np.zeros(3)
    for noisy, clean in windows:
        inner = slice(margin, clean.shape[0] - margin)
        a = noisy[inner.start - y : inner.stop - y, inner.start - x : inner.stop - x].ravel()
        b = clean[inner, inner].ravel()
        a, b = a - a.mean(), b - b.mean()
        products += (float(a @ b), float(a @ a), float(b @ b))
    return float(products[0] / max((products[1] * products[2]) ** 0.5, 1e-12))


def _vertex(before: float, middle: float, after: float) -> float:
    """Vertex of the parabola through three equidistant values, relative to the middle one."""
    curvature = before - 2 * middle + after
    return 0.0 if curvature >= 0 else float(np.clip((before - after) / (2 * curvature), -0.5, 0.5))
