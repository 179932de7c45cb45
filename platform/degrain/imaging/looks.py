"""What a photo shows: a digest of its pixels, and a thumbnail by which copies are found.

The thumbnail is the logarithm of 16x16 block means of the luma, less the mean of their neighbours:
it stays nearly the same under another size, compression, exposure or tone curve. Two photos show
the same if the correlation of their thumbnails is at least `ALIKE`. Measured: of 157,000 pairs of
different photos (500 of BSDS500, 61 free ones) the highest is 0.59; of 561 photos and their copies
at half size, as JPEG of quality 30, at half brightness and with a gamma of 1.8 the lowest is 0.91,
and of 1122 copies displaced by 2% two are below 0.70.
"""

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from degrain.imaging.pixels import Photo, peak

SIDE = 16
"""Blocks along each side of a thumbnail."""
ALIKE = 0.7
"""Least correlation of two photos that show the same."""
_SAMPLES = 512
"""Rows and columns of a photo from which the blocks are averaged, at least."""
_FLOOR = 4 / 255
"""Added before the logarithm, so that black is finite and its noise counts little."""
_FLAT = 0.01
"""Standard deviation below which a photo shows nothing by which it can be found."""
_STEPS, _DEVIATIONS = 7, 2.5
"""Levels above zero, and the standard deviations at which the values are clipped."""
_BLOCK = 4096
"""Thumbnails that are compared with all others at one time."""


def pixel_digest(photo: Photo) -> str:
    """A digest of size, depth and values of the pixels: 128 bits in hexadecimal."""
    made = hashlib.blake2b(f"{photo.shape} {photo.dtype}".encode(), digest_size=16)
    made.update(np.ascontiguousarray(photo).data)
    return made.hexdigest()


def thumbnail(photo: Photo) -> str:
    """The thumbnail of an (H, W, 3) photo, a hexadecimal digit a block; empty for a flat photo."""
    height, width = photo.shape[:2]
    if min(height, width) < SIDE:
        return ""
    step = max(1, min(height, width) // _SAMPLES)
    luma = photo[::step, ::step].mean(axis=2, dtype=np.float32) / np.float32(peak(photo))
    rows, columns = (np.linspace(0, side, SIDE + 1).round().astype(np.intp) for side in luma.shape)
    sums = np.add.reduceat(np.add.reduceat(luma, rows[:-1], axis=0), columns[:-1], axis=1)
    means = np.log(sums / np.outer(np.diff(rows), np.diff(columns)) + _FLOOR)
    around = np.pad(means, 1, mode="edge")
    local = means - np.lib.stride_tricks.sliding_window_view(around, (3, 3)).mean(axis=(2, 3))
    deviation = local.std()
    if deviation < _FLAT:
        return ""
    levels = np.clip(np.round(local * (_STEPS / (_DEVIATIONS * deviation))), -_STEPS, _STEPS)
    return "".join(f"{_STEPS + int(level):x}" for level in levels.ravel())


def thumbnail_vectors(thumbnails: Sequence[str]) -> NDArray[np.float32]:
    """Thumbnails as vectors, (N, 256), whose products are correlations."""
    digits = np.frombuffer("".join(thumbnails).encode(), np.uint8)
    values = np.where(digits < ord("a"), digits - ord("0"), digits - (ord("a") - 10))
    vectors = values.reshape(len(thumbnails), SIDE * SIDE).astype(np.float32)
    vectors -= vectors.mean(axis=1, keepdims=True)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def alike(ours: NDArray[np.float32], others: NDArray[np.float32]) -> Iterator[tuple[int, int]]:
    """The places of all vectors that show the same, in `ours` and in `others`."""
    for start in range(0, len(ours), _BLOCK):
        found = ours[start : start + _BLOCK] @ others.T >= ALIKE
        for one, other in np.argwhere(found).tolist():
            yield start + one, other
