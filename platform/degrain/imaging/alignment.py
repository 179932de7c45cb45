"""How far a noisy photo is shifted against its clean one.

The photos are looked at in a few windows where the clean one has most detail, blurred, because fine detail of a noisy
photo is mostly noise. Correlation in the Fourier domain finds the nearest whole shift; there, correlation of exactly the
pixels that both windows show says how good it and its neighbours are, and a parabola through these gives the fraction of
a pixel.

What matters for training is whether moving the photo by whole pixels makes the pair agree better. `gain` says by how
much: 1 - r is what separates the two photos, noise included, and the gain is the share of it that the move takes away.
Phase correlation (Kuglin and Hines, 1975), which divides the cross spectrum by its magnitude, gives every frequency one
vote and with it most of them to the noise: on the pairs of RENOIR it takes aligned ones for shifted.
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.ndimage import gaussian_filter

from degrain.imaging.pixels import Photo, peak

WINDOW = 512
"""Side of a window in pixels, at most."""
_WINDOWS = 2
_STEPS = 4
"""How often the search may move on to a neighbour that is better."""
LARGEST_SHIFT = 16
"""Shifts beyond, in pixels, are not looked for."""
SMALLEST = 160
"""Side in pixels below which there is too little to see: of unshifted photos of 128 pixels at the noisiest ISO, one in a
hundred would be taken for shifted, of those of 64 one in three."""
_BLUR = 2.0
"""Standard deviation of the blur in pixels."""


Windows: TypeAlias = list[tuple[NDArray[np.float32], NDArray[np.float32]]]
"""Noisy and clean windows, each (S, S), blurred, of mean zero."""


@dataclass(frozen=True)
class Shift:
    """How the noisy photo must be moved to lie on the clean one."""

    y: float
    """Pixels down."""
    x: float
    """Pixels right."""
    whole: tuple[int, int]
    """The nearest whole pixels, down and right."""
    gain: float
    """Share of 1 - r, the correlation's distance from one, that a move by the nearest whole pixels takes away."""

    @property
    def distance(self) -> float:
        """The larger of both ways, in pixels."""
        return max(abs(self.y), abs(self.x))


def estimate_shift(noisy: Photo, clean: Photo) -> Shift:
    """Estimate the shift between two (H, W, 3) photos of one size, to about a tenth of a pixel; none below `SMALLEST`."""
    side = min(WINDOW, *clean.shape[:2])
    if side < SMALLEST:
        return Shift(0.0, 0.0, (0, 0), 0.0)
    windows = [
        (_blurred(noisy[top : top + side, left : left + side]), _blurred(clean[top : top + side, left : left + side]))
        for top, left in _busiest(clean, side)
    ]
    row, column = _nearest_shift(windows)
    around = _correlations_around(windows, row, column)
    for _ in range(_STEPS):
        best = max(around, key=around.__getitem__)
        if best == (row, column) or max(map(abs, best)) >= LARGEST_SHIFT:
            break
        row, column = best
        around = _correlations_around(windows, row, column)
    here, there = _correlation(windows, 0, 0), around[row, column]
    return Shift(
        row + _vertex(around[row - 1, column], there, around[row + 1, column]),
        column + _vertex(around[row, column - 1], there, around[row, column + 1]),
        (row, column),
        (there - here) / max(1 - here, 1e-6),
    )


def _blurred(window: Photo) -> NDArray[np.float32]:
    # A sum of three planes is many times faster than a mean over the last axis.
    grey = sum(window[:, :, channel].astype(np.float32) for channel in range(3)) / np.float32(3 * peak(window))
    blurred = gaussian_filter(grey, _BLUR, truncate=3)
    return np.asarray(blurred - blurred.mean())


def _nearest_shift(windows: Windows) -> tuple[int, int]:
    """The whole shift, within `LARGEST_SHIFT`, at which the windows' tapered contents correlate best."""
    side = windows[0][0].shape[0]
    taper = np.outer(np.hanning(side), np.hanning(side)).astype(np.float32)
    product = sum(fft.rfft2(taper * clean) * np.conj(fft.rfft2(taper * noisy)) for noisy, clean in windows)
    reach = LARGEST_SHIFT - 1
    near = np.roll(fft.irfft2(product, s=(side, side)), (reach, reach), axis=(0, 1))[: 2 * reach + 1, : 2 * reach + 1]
    row, column = np.unravel_index(int(np.argmax(near)), near.shape)
    return int(row) - reach, int(column) - reach


def _correlations_around(windows: Windows, row: int, column: int) -> dict[tuple[int, int], float]:
    """The correlation at a shift and at its eight neighbours."""
    return {(y, x): _correlation(windows, y, x) for y in range(row - 1, row + 2) for x in range(column - 1, column + 2)}


def _correlation(windows: Windows, y: int, x: int) -> float:
    """Correlation of the pixels that both windows show when the noisy one is moved by whole pixels."""
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
    """Where the parabola through three equidistant values has its vertex, from the middle one."""
    curvature = before - 2 * middle + after
    return 0.0 if curvature >= 0 else float(np.clip((before - after) / (2 * curvature), -0.5, 0.5))


def _busiest(photo: Photo, side: int) -> list[tuple[int, int]]:
    """Top and left of the windows with the most detail, side by side, at most `_WINDOWS` of them."""
    height, width = photo.shape[:2]
    places = [(y, x) for y in range(0, height - side + 1, side) for x in range(0, width - side + 1, side)]
    if len(places) <= _WINDOWS:
        return places
    places = places[:: max(1, len(places) // 64)]
    step = max(1, side // 64)

    def detail(place: tuple[int, int]) -> float:
        coarse = photo[place[0] : place[0] + side : step, place[1] : place[1] + side : step, 1].astype(np.float32)
        return float(np.abs(np.diff(coarse, axis=0)).mean() + np.abs(np.diff(coarse, axis=1)).mean())

    return sorted(places, key=detail, reverse=True)[:_WINDOWS]
