"""Estimate the shift of a noisy photo against its clean one, and whether a shift is all there is.

`imaging.shift_search` finds the shift to a few pixels. Around it a grid of windows is compared at
full resolution, blurred, because fine detail of a noisy photo is mostly noise. Gauss-Newton steps
on one shift for all windows (Lucas and Kanade, "An iterative image registration technique", IJCAI
1981; the gradients are the clean photo's) give it to hundredths of a pixel.

The same windows say whether to believe it. They are divided into blocks, and how the blocks' scores
scatter gives standard errors that hold for noise of any kind (White, "A
heteroskedasticity-consistent covariance matrix estimator", Econometrica 48(4), 1980), also where
few blocks tell anything. A linear fit to the scores says how much the shift changes from the centre
to the corners, which rotation and scale cause. A search in each window says whether parts of the
scene have moved.

Training depends on whether an integer shift improves the agreement of the pair. `Shift.gain`
measures it: the share of 1 - r, where r is the correlation coefficient, that the shift removes.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.ndimage import gaussian_filter

from degrain.imaging.pixels import Photo
from degrain.imaging.shift_search import Grey, Offset, ShiftSearch, grey_of

SMALLEST = 160
"""Smallest side in pixels of photos that are estimated; smaller ones show too little."""
LEAST_CONTRAST = 0.05
"""Contrast of the clean photo over that of the noisy one, see `ShiftSearch.contrast`, below which
no shift could spoil more than 0.3% of what the two differ by.
"""
MOST_ERROR = 0.18
"""Pixels of standard error; of 251 real pairs the largest is 0.16."""
MOST_WARP = 0.29
"""Pixels at the corners, less two standard errors; of 251 real pairs the largest is 0.28."""
MOST_UNKNOWN_WARP = 1.1
"""Pixels at the corners, more two standard errors; of 251 real pairs the largest is 1.01."""
MOST_STRAY = 2.0
"""See `Shift.stray`; of 251 real pairs the largest is 1.1."""

_WINDOW = 160
"""Largest side of a window in pixels."""
_MOST_WINDOWS = 6
"""Windows along a side."""
_ROOM = 48
"""Pixels along a side from which there is another window."""
_BLOCKS = 4
"""Blocks along a window's side."""
_BLUR = 2.0
"""Standard deviation of the blur in pixels."""
_EDGE = 6
"""Pixels around a window that its blur needs."""
_LEAST_NOISE = 0.3 / 255
"""Standard deviation of the noise after the blur that is always assumed."""
_TONES = 4
"""Coefficients of the curve between the tones of both photos."""
_STEPS = 15
_PRECISION = 0.01
"""Pixels; smaller steps end the refinement."""


@dataclass(frozen=True)
class Shift:
    """The shift that registers the noisy photo to the clean one."""

    y: float
    """Pixels down."""
    x: float
    """Pixels right."""
    gain: float = 0.0
    """Share of 1 - r that the nearest integer shift removes; r is the correlation coefficient."""
    error: float = 0.0
    """Standard error of y and x, the larger one."""
    warp: float = 0.0
    """Displacement of the corners by rotation and scale, beside the shift, pixels."""
    warp_error: float = 0.0
    """Its standard error."""
    stray: float = 0.0
    """The largest error of a window that a shift of its own would remove, over the median error of
    the windows, that of faint noise at least."""
    rivalled: bool = False
    """Whether another shift explains the photos as well."""

    @property
    def whole(self) -> Offset:
        """The nearest integer shift, down and right."""
        return round(self.y), round(self.x)

    @property
    def distance(self) -> float:
        """The larger of |y| and |x|, in pixels."""
        return max(abs(self.y), abs(self.x))

    @property
    def doubt(self) -> str | None:
        """Why no shift aligns the noisy photo with the clean one; None if this one does."""
        if self.warp - 2 * self.warp_error > MOST_WARP:
            return (
                f"it is rotated or scaled, or parts moved, by {self.warp:.1f} pixels at the corners"
            )
        if self.stray > MOST_STRAY:
            return "parts of the scene have moved"
        if self.rivalled:
            return "several shifts fit as well, as in a regular pattern"
        if self.error > MOST_ERROR or self.warp + 2 * self.warp_error > MOST_UNKNOWN_WARP:
            return "too little stands out from the noise to find the shift"
        return None


UNSHIFTED = Shift(0.0, 0.0)


def estimate_shift(noisy: Photo, clean: Photo) -> Shift:
    """Estimate the shift between two (H, W, 3) photos of equal size.

    Photos with a side below `SMALLEST`, and those whose clean one is flat beside the noise, are
    taken as unshifted.
    """
    shortest = min(clean.shape[:2])
    if shortest < SMALLEST:
        return UNSHIFTED
    search = ShiftSearch.of(noisy, clean)
    if search.contrast < LEAST_CONTRAST:
        return UNSHIFTED
    reach = max(8 if shortest < 384 else 12, search.factor + 2)
    start = search.best[0] * search.factor, search.best[1] * search.factor
    windows = _Windows(noisy, clean, start, reach)
    offset = windows.best_offset()
    if max(map(abs, offset)) > 2:
        start = start[0] + offset[0], start[1] + offset[1]
        windows = _Windows(noisy, clean, start, reach)
        offset = windows.best_offset()
    return windows.refine(offset, search.is_rivalled())


class _Windows:
    """Blurred windows of the clean photo and, with a border of `reach` pixels and one more, of the
    noisy photo after a first shift: N of S x S pixels.
    """

    def __init__(self, noisy: Photo, clean: Photo, start: Offset, reach: int) -> None:
        self._start, self._reach, self._shape = start, reach, clean.shape[:2]
        self._corners, side = _place_windows(clean.shape[:2], start, reach + 1)
        self._side = side
        self._around = _cut_windows(clean, self._corners, side, 1)
        self._clean = _centred(self._around[:, 1:-1, 1:-1])
        self._noisy = _cut_windows(noisy, self._corners - start, side, reach + 1)
        self._unshifted = _centred(_cut_windows(noisy, self._corners, side, 0))
        self._clean_energy = np.square(self._clean).sum(axis=(1, 2), dtype=np.float64)
        self._products, self._noisy_energy = self._correlate()

    def _correlate(self) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Products of both windows, and energies of the noisy one, at every offset from the first
        shift up to the reach, zero in the middle: (N, 2 reach + 1, 2 reach + 1) each.
        """
        side, offsets = self._side, 2 * self._reach + 1
        noisy = _centred(self._noisy[:, 1:-1, 1:-1])
        shape = (fft.next_fast_len(noisy.shape[1], real=True),) * 2
        spectrum = fft.rfft2(noisy, s=shape) * fft.rfft2(self._clean, s=shape).conj()
        products = fft.irfft2(spectrum, s=shape)[:, :offsets, :offsets]
        sums, squares = _box_sums(noisy, side), _box_sums(noisy * noisy, side)
        energies = np.maximum(squares - sums * sums / side**2, 1e-12)
        # An offset moves the noisy window against the index.
        return products[:, ::-1, ::-1], energies[:, ::-1, ::-1]

    def best_offset(self) -> Offset:
        """The integer offset from the first shift at which all windows together fit best."""
        fits = self._products.sum(axis=0) / np.sqrt(self._noisy_energy.sum(axis=0))
        row, column = np.unravel_index(int(fits.argmax()), fits.shape)
        return int(row) - self._reach, int(column) - self._reach

    def refine(self, offset: Offset, rivalled: bool) -> Shift:
        """The shift with all that is known of it, from an integer offset near by."""
        place = np.array(offset, np.float64)
        around = self._in_tones_of_noisy(place)
        expected = _centred(around[:, 1:-1, 1:-1])
        along = (
            (around[:, 2:, 1:-1] - around[:, :-2, 1:-1]) / np.float32(2),
            (around[:, 1:-1, 2:] - around[:, 1:-1, :-2]) / np.float32(2),
        )
        # (2, 2, N, blocks): of the squared error, by the displacement of each block.
        hessian = np.array([[self._block_sums(a * b) for b in along] for a in along])
        inverse = np.linalg.inv(hessian.sum(axis=(2, 3)) + 1e-12 * np.eye(2))
        for _ in range(_STEPS):
            error = self._noisy_at(place) - expected
            # Half the derivatives by a displacement beyond `place`.
            scores = np.stack([self._block_sums(gradient * error) for gradient in along])
            step = inverse @ scores.sum(axis=(1, 2))
            place = np.clip(place + np.clip(step, -2, 2), -self._reach, self._reach)
            if np.abs(step).max() < _PRECISION:
                break
        variance = _sandwich(inverse, hessian.reshape(2, 2, -1), scores.reshape(2, -1))
        warp, warp_error = self._warp(hessian, scores)
        y, x = (float(first + rest) for first, rest in zip(self._start, place, strict=True))
        return Shift(
            y,
            x,
            gain=self._gain((round(y), round(x))),
            error=float(np.sqrt(variance.diagonal().max())),
            warp=warp,
            warp_error=warp_error,
            stray=self._stray(place),
            rivalled=rivalled,
        )

    def _in_tones_of_noisy(self, place: NDArray[np.float64]) -> Grey:
        """The clean windows, with a border of 1, in the tones of the noisy ones.

        Exposure, tone curves and the clipping of noise in the dark change tones; a change that is
        no multiple, along a ramp of brightness, would look like a shift. A cubic is fitted.
        """
        top, left = self._reach + 1 - place.astype(int)
        noisy = self._noisy[:, top : top + self._side, left : left + self._side]
        clean = self._around[:, 1:-1, 1:-1]
        middle, spread = float(clean.mean()), max(float(clean.std()), 1e-6)
        tones = np.vander(((clean - middle) / np.float32(spread)).ravel(), _TONES, increasing=True)
        curve = np.linalg.lstsq(tones.T @ tones, tones.T @ noisy.ravel(), rcond=1e-6)[0]
        made = np.polynomial.polynomial.polyval((self._around - middle) / spread, curve)
        return made.astype(np.float32)

    def _noisy_at(self, place: NDArray[np.float64]) -> Grey:
        """The noisy windows at an offset from the first shift, interpolated linearly, centred."""
        first = self._reach + 1 - place
        (top, left), side = np.floor(first).astype(int), self._side
        down, right = (first - (top, left)).astype(np.float32)
        part = self._noisy[:, top : top + side + 1, left : left + side + 1]
        part = (1 - down) * part[:, :-1] + down * part[:, 1:]
        return _centred((1 - right) * part[:, :, :-1] + right * part[:, :, 1:])

    def _block_sums(self, values: Grey) -> NDArray[np.float64]:
        """(N, S, S) -> (N, blocks)."""
        parts = values.reshape(len(values), _BLOCKS, self._side // _BLOCKS, _BLOCKS, -1)
        return np.asarray(parts.sum(axis=(2, 4), dtype=np.float64).reshape(len(values), -1))

    def _warp(
        self, hessian: NDArray[np.float64], scores: NDArray[np.float64]
    ) -> tuple[float, float]:
        """Displacement of the corners by scale and rotation about the centre, with its error."""
        y, x = self._block_places()
        one, zero = np.ones_like(y), np.zeros_like(y)
        # Displacement down and right of a block by a unit of each: shifts, scale, rotation.
        units = np.array([[one, zero], [zero, one], [y, x], [x, -y]])
        pulled = np.einsum("pkwb,klwb->plwb", units, hessian)
        hessians = np.einsum("plwb,qlwb->pqwb", pulled, units).reshape(4, 4, -1)
        inverse = np.linalg.inv(hessians.sum(axis=2) + 1e-12 * np.eye(4))
        amounts = inverse @ np.einsum("pkwb,kwb->p", units, scores)
        rest = scores - np.einsum("p,plwb->lwb", amounts, pulled)
        rests = np.einsum("pkwb,kwb->pwb", units, rest).reshape(4, -1)
        variance = _sandwich(inverse, hessians, rests)
        return float(np.hypot(*amounts[2:])), float(np.sqrt(variance.diagonal()[2:].max()))

    def _block_places(self) -> NDArray[np.float64]:
        """Centres of the blocks against that of the photo, whose corners are at 1: (2, N,
        blocks).
        """
        size = self._side / _BLOCKS
        down, right = np.divmod(np.arange(_BLOCKS**2), _BLOCKS)
        within = (np.stack([down, right]) + 0.5) * size
        middle = np.array(self._shape) / 2
        places = self._corners.T[:, :, None] + within[:, None] - middle[:, None, None]
        return np.asarray(places / np.hypot(*middle))

    def _gain(self, whole: Offset) -> float:
        if whole == (0, 0):
            return 0.0
        row, column = (self._reach + w - s for w, s in zip(whole, self._start, strict=True))
        total = float(self._clean_energy.sum())

        def correlation(product: NDArray[np.floating], energy: NDArray[np.floating]) -> float:
            return float(product.sum() / max((float(energy.sum()) * total) ** 0.5, 1e-12))

        shifted = correlation(self._products[:, row, column], self._noisy_energy[:, row, column])
        unshifted = correlation(self._unshifted * self._clean, np.square(self._unshifted))
        return (shifted - unshifted) / max(1 - unshifted, 1e-6)

    def _stray(self, place: NDArray[np.float64]) -> float:
        """See `Shift.stray`; a window that fits best within 1.5 pixels has not strayed."""
        energies = np.maximum(self._noisy_energy * self._clean_energy[:, None, None], 1e-20)
        fits = np.clip(self._products / np.sqrt(energies), 0, 1)
        row, column = np.clip(np.round(place).astype(int) + self._reach, 1, 2 * self._reach - 1)
        common = fits[:, row - 1 : row + 2, column - 1 : column + 2].max(axis=(1, 2))
        flat = fits.reshape(len(fits), -1)
        own = flat.max(axis=1)
        found = np.stack(np.divmod(flat.argmax(axis=1), fits.shape[2]), axis=1) - self._reach
        removed = (own - common) / np.maximum(1 - common, 1e-6)
        errors = self._noisy_energy[:, row, column] * (1 - common**2)
        strays = (np.abs(found - place).max(axis=1) > 1.5) & (removed > 0.1)
        usual = max(float(np.median(errors)), (_LEAST_NOISE * self._side) ** 2)
        return float((strays * errors * removed).max() / usual)


def _sandwich(
    inverse: NDArray[np.float64], hessians: NDArray[np.float64], scores: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Covariance of P amounts that were fitted to K blocks, whatever their noise: (P, P).

    `inverse` is that of the sum of the blocks' `hessians`, (P, P, K); `scores`, (P, K), are those
    at the fit. What a block would score if it were left out of the fit counts (the jackknife, or
    HC3; MacKinnon and White, Journal of Econometrics 29, 1985): where few blocks decide all, their
    own scores are small.
    """
    count = len(inverse)
    kept = (1 + 1e-6) * np.eye(count) - np.einsum("pqk,qr->kpr", hessians, inverse)
    left_out = np.linalg.solve(kept, scores.T[:, :, None])[:, :, 0]
    return np.asarray(inverse @ (left_out.T @ left_out) @ inverse)


def _place_windows(
    shape: tuple[int, int], start: Offset, border: int
) -> tuple[NDArray[np.intp], int]:
    """Top and left of the windows, (N, 2), and their side.

    They lie in the middle of the cells of a grid over the part of the clean photo that the shifted
    noisy one covers, less a border.
    """
    first = [max(s, 0) + border for s in start]
    room = [
        extent - max(-s, 0) - border - f for extent, s, f in zip(shape, start, first, strict=True)
    ]
    counts = [min(max(r // _ROOM, 1), _MOST_WINDOWS) for r in room]
    side = min(_WINDOW, *(r // count for r, count in zip(room, counts, strict=True)))
    side = max(side // _BLOCKS, 1) * _BLOCKS
    centres = [
        f + (np.arange(count) + 0.5) * r / count
        for f, r, count in zip(first, room, counts, strict=True)
    ]
    tops, lefts = np.meshgrid(*centres, indexing="ij")
    corners = np.stack([tops.ravel(), lefts.ravel()], axis=1) - side / 2
    return np.round(corners).astype(np.intp), side


def _cut_windows(photo: Photo, corners: NDArray[np.intp], side: int, border: int) -> Grey:
    """Windows with a border, grey and blurred; beyond the photo its edge is repeated."""
    around = border + _EDGE
    steps = np.arange(-around, side + around)
    made = []
    for top, left in corners:
        rows, columns = (
            np.clip(first + steps, 0, extent - 1)
            for first, extent in zip((top, left), photo.shape, strict=False)
        )
        part = grey_of(photo[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
        window = part[np.ix_(rows - rows[0], columns - columns[0])]
        made.append(gaussian_filter(window, _BLUR, truncate=3)[_EDGE:-_EDGE, _EDGE:-_EDGE])
    return np.stack(made)


def _centred(windows: Grey) -> Grey:
    return np.asarray(windows - windows.mean(axis=(1, 2), keepdims=True))


def _box_sums(windows: Grey, side: int) -> NDArray[np.float64]:
    """Sums over every square of `side` pixels a side."""
    sums = np.pad(windows, ((0, 0), (1, 0), (1, 0))).cumsum(axis=1, dtype=np.float64).cumsum(axis=2)
    return np.asarray(
        sums[:, side:, side:]
        - sums[:, :-side, side:]
        - sums[:, side:, :-side]
        + sums[:, :-side, :-side]
    )
