"""Whether two photos are a noisy and a clean one of the same scene."""

import numpy as np
from numpy.typing import NDArray

from degrain.imaging.crops import thin_out
from degrain.imaging.pixels import Photo, peak

_BLOCKS = 32
"""Blocks along the shorter side, over which pixels are averaged."""
MISMATCH_CORRELATION = 0.9
"""Correlation of block means below which photos may show different scenes.

Of the 251 real pairs of SIDD-256, RENOIR's Mi3 and PolyU the lowest is 0.958; of all 59,804
combinations of photos of different scenes of one size the highest is 0.816. At the best shift
between the photos, which `patchsets.checks` applies first, the lowest is 0.958 as well, and the
highest of 4,000 random combinations 0.729.
"""
MISMATCH_RATIO = 2.5
"""How much more the block means must differ than white noise of the pixels' difference would.

Of random combinations of different scenes 99% have more than 2.5. Below it, noise may be the reason
for a low correlation: in a photo with little contrast.
"""

SWAPPED_RATIO = 1.05
"""Ratio of fine detail, the clean photo's over the noisy one's, above which the two are swapped.

Of the 251 real pairs above the highest is 0.97; of the same pairs, swapped, the lowest is 1.04 and
the median 2.2.
"""

_GREY = 3 / 255
"""Difference of the channels of a grey photo, of white."""
_COLOURFUL = 6 / 255
"""Colours of a photo that is not grey, see `_colourfulness`."""
_LEAST_DETAIL = 1e-4
"""Of a photo without noise, for which rounding to 8 bits decides."""


def shows_other_scene(noisy: Photo, clean: Photo) -> bool:
    """Whether two (H, W, 3) photos of one size are photos of different scenes.

    Averages over blocks are compared, in which noise is small and the scene remains. A photo of
    little contrast is taken for the same scene, because noise could explain any difference.
    """
    side = max(2, min(noisy.shape[:2]) // _BLOCKS)
    if min(noisy.shape[:2]) < 2 * side:
        return False
    a, b = _blocks(noisy, side), _blocks(clean, side)
    difference = a - b
    means = difference.mean(axis=(1, 3), keepdims=True)
    noise = float(np.sqrt(np.square(difference - means).mean())) / side
    x, y = (blocks.mean(axis=(1, 3)) for blocks in (a, b))
    x, y = x - x.mean(), y - y.mean()
    products = float((x * y).sum()), float((x * x).sum()), float((y * y).sum())
    correlation = products[0] / max((products[1] * products[2]) ** 0.5, 1e-12)
    slope = products[0] / max(products[2], 1e-12)
    residual = float((x - slope * y).std())
    return bool(correlation < MISMATCH_CORRELATION and residual > MISMATCH_RATIO * max(noise, 1e-4))


def one_is_grey(noisy: Photo, clean: Photo) -> bool:
    """Whether one of two (H, W, 3) photos has equal channels and the other has colours.

    Channels are compared within `_GREY`, since JPEG changes them; the colours of the other are
    means over blocks, because noise is coloured too.
    """
    grey = [_is_grey(photo) for photo in (noisy, clean)]
    if grey[0] == grey[1]:
        return False
    return _colourfulness(clean if grey[0] else noisy) > _COLOURFUL


def _is_grey(photo: Photo) -> bool:
    sample = thin_out(photo).astype(np.float32) / peak(photo)
    return float(np.quantile(np.ptp(sample, axis=2), 0.999)) <= _GREY


def _colourfulness(photo: Photo) -> float:
    """Mean over blocks of the range of the channels' means, less what noise may add, in [0, 1]."""
    side = max(1, min(photo.shape[:2]) // _BLOCKS)
    rows, columns = photo.shape[0] // side, photo.shape[1] // side
    parts = photo[: rows * side, : columns * side].reshape(rows, side, columns, side, 3)
    means = parts.mean(axis=(1, 3), dtype=np.float32) / peak(photo)
    noise = parts.std(axis=(1, 3), dtype=np.float32).mean() / peak(photo) / side
    # Of one pixel nothing is known.
    return float(np.ptp(means, axis=2).mean() - 3 * noise) if side > 1 else 0.0


def are_swapped(noisy: Photo, clean: Photo, exposure: float) -> bool:
    """Whether the clean photo of a pair, two (H, W, 3) photos, is the noisier one.

    Compared is the mean magnitude of the finest diagonal Haar coefficients, of which noise has more
    than the scene. `exposure` is the brightness of the clean photo over that of the noisy one; a
    longer exposure amplifies detail.
    """
    most = SWAPPED_RATIO * max(1.0, exposure)
    return _fine_detail(clean) > most * max(_fine_detail(noisy), _LEAST_DETAIL)


def _fine_detail(photo: Photo) -> float:
    """Mean magnitude of the diagonal coefficients of an orthonormal Haar transform, in [0, 1]."""
    rows, columns = photo.shape[0] // 2 * 2, photo.shape[1] // 2 * 2
    grey = photo[:rows, :columns].sum(axis=2, dtype=np.float32)
    diagonal = grey[::2, ::2] - grey[1::2, ::2] - grey[::2, 1::2] + grey[1::2, 1::2]
    if diagonal.size == 0:
        return 0.0
    return float(np.abs(diagonal).mean()) / (6 * peak(photo))


def _blocks(photo: Photo, side: int) -> NDArray[np.float32]:
    """Grey (H, W, 3) -> (rows, side, columns, side) in [0, 1]; a partial border is cut."""
    rows, columns = photo.shape[0] // side, photo.shape[1] // side
    part = photo[: rows * side, : columns * side].astype(np.float32)
    grey = part.sum(axis=2) / np.float32(3 * peak(photo))
    return np.asarray(grey.reshape(rows, side, columns, side))
