"""The search for the shift between two photos, on reduced ones.

Both are averaged to at most 512 pixels a side and band-passed, and the correlation coefficient of
their overlap is computed for every shift of up to a third of a side (by FFT, after Padfield,
"Masked object registration in the Fourier domain", IEEE TIP 21(5), 2012). Plain phase correlation
weights all frequencies alike, and most are noise.
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.ndimage import gaussian_filter, maximum_filter

from degrain.imaging.pixels import Photo, peak

Grey: TypeAlias = NDArray[np.float32]
Offset: TypeAlias = tuple[int, int]
"""Integer pixels down and right."""

_LARGEST = 512
"""Largest side in pixels of the reduced photos."""
_BLOCK = 16
"""Side in pixels of the blocks by which shifts are compared."""
_PEAKS = 5
"""Peaks of the correlation that are compared."""
_CLEARLY_WORSE = 3.0
"""Standard errors. Of 251 real pairs two have less, both with a regular pattern and about zero."""


@dataclass(frozen=True)
class ShiftSearch:
    """Reduced photos and the peaks of their correlation."""

    factor: int
    """Pixels of the photo along one pixel here."""
    noisy: Grey
    clean: Grey
    peaks: list[Offset]
    """Where the correlation has a maximum, the best first."""

    @classmethod
    def of(cls, noisy: Photo, clean: Photo) -> "ShiftSearch":
        """Search for the shift of two (H, W, 3) photos of equal size."""
        factor = -(-max(clean.shape[:2]) // _LARGEST)
        a, b = (_band(_reduced(photo, factor)) for photo in (noisy, clean))
        reach = (b.shape[0] // 3, b.shape[1] // 3)
        correlation = _correlations(a, b, reach)
        ys, xs = np.nonzero(correlation == maximum_filter(correlation, 7))
        order = np.argsort(-correlation[ys, xs])[:_PEAKS]
        peaks = [(int(ys[i]) - reach[0], int(xs[i]) - reach[1]) for i in order]
        return cls(factor, a, b, peaks)

    @property
    def best(self) -> Offset:
        """Shift of the reduced noisy photo."""
        return self.peaks[0]

    @property
    def contrast(self) -> float:
        """Standard deviation of the clean photo over that of the noisy one."""
        return float(self.clean.std() / max(float(self.noisy.std()), 1e-12))

    def is_rivalled(self) -> bool:
        """Whether another peak is not clearly worse than the best, which is not about zero.

        Photos of one place are rarely shifted, so that about zero the best stands as it is.
        """
        if max(map(abs, self.best)) <= 2:
            return False
        return any(self._how_much_worse(peak) < _CLEARLY_WORSE for peak in self.peaks[1:])

    def _how_much_worse(self, other: Offset) -> float:
        """Errors of the other shift over those of the best, where both have an overlap, summed over
        blocks, in standard errors of that sum.
        """
        (height, width), size = self.clean.shape, _BLOCK
        top, left = (max(self.best[i], other[i], 0) for i in (0, 1))
        rows = (height - max(-self.best[0], -other[0], 0) - top) // size
        columns = (width - max(-self.best[1], -other[1], 0) - left) // size
        if rows < 2 or columns < 2:
            return 0.0
        clean = self.clean[top : top + rows * size, left : left + columns * size]
        energy = float((clean * clean).sum()) + 1e-12
        errors = []
        for y, x in (self.best, other):
            noisy = self.noisy[top - y :, left - x :][: rows * size, : columns * size]
            slope = max(float((noisy * clean).sum()) / energy, 0.0)
            errors.append(np.square(noisy - slope * clean))
        more = (errors[1] - errors[0]).reshape(rows, size, columns, size).mean(axis=(1, 3))
        return float(more.sum() / np.sqrt(np.square(more).sum() + 1e-20))


def _reduced(photo: Photo, factor: int) -> Grey:
    """Grey means over squares of `factor` pixels a side, in [0, 1]; a partial border is cut."""
    if factor == 1:
        return grey_of(photo)
    rows, columns = photo.shape[0] // factor, photo.shape[1] // factor
    squares = photo[: rows * factor, : columns * factor].reshape(rows, factor, columns, factor, 3)
    return np.asarray(squares.mean(axis=(1, 3, 4), dtype=np.float32) / np.float32(peak(photo)))


def grey_of(photo: Photo) -> Grey:
    """Means of the channels, in [0, 1]."""
    # A sum of three planes is many times faster than a mean over the last axis.
    planes = sum(photo[:, :, channel].astype(np.float32) for channel in range(3))
    return np.asarray(planes / np.float32(3 * peak(photo)))


def _band(grey: Grey) -> Grey:
    """Without the finest detail, which is noise, and without the coarsest, where light differs."""
    return np.asarray(
        gaussian_filter(grey, 1.5, truncate=3) - gaussian_filter(grey, 10, truncate=3)
    )


def _correlations(noisy: Grey, clean: Grey, reach: Offset) -> Grey:
    """The correlation coefficient of the overlap at every shift up to `reach`, zero in the middle;
    both have means of about zero.
    """
    shape = [fft.next_fast_len(s + r, real=True) for s, r in zip(clean.shape, reach, strict=True)]

    def transform(values: Grey) -> NDArray[np.complex64]:
        return np.asarray(fft.rfft2(values, s=shape))

    everywhere = transform(np.ones_like(clean))
    product = fft.irfft2(transform(clean) * transform(noisy).conj(), s=shape)
    of_noisy = fft.irfft2(everywhere * transform(noisy * noisy).conj(), s=shape)
    of_clean = fft.irfft2(transform(clean * clean) * everywhere.conj(), s=shape)
    least = 1e-6 * float((clean * clean).sum()) + 1e-12
    made = product / np.sqrt(np.maximum(of_noisy, least) * np.maximum(of_clean, least))
    rows, columns = 2 * reach[0] + 1, 2 * reach[1] + 1
    return np.asarray(np.roll(made, reach, axis=(0, 1))[:rows, :columns])
