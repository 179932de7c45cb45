"""Which part of a photo to look at: its centre, where it has the most detail, or a few pixels."""

import numpy as np

from degrain.imaging.pixels import Photo

_MOST_CANDIDATES = 64
"""Grid positions are thinned out to about this many."""
_SAMPLED = 100_000
"""Pixels of a photo whose values are looked at in place of all."""
_SAMPLES = 64
"""Pixels along a crop's side that its detail is measured on."""


def centre_crop(photo: Photo, side: int) -> Photo:
    """The centre of an (H, W, 3) photo, at most `side` pixels high and wide."""
    top, left = (max(extent - side, 0) // 2 for extent in photo.shape[:2])
    return photo[top : top + side, left : left + side]


def thin_out(photo: Photo) -> Photo:
    """Every so many pixels of an (H, W, 3) photo, about `_SAMPLED` in all."""
    step = max(1, int((photo.shape[0] * photo.shape[1] / _SAMPLED) ** 0.5))
    return photo[::step, ::step]


def most_detailed_crops(photo: Photo, side: int, count: int) -> list[tuple[int, int]]:
    """Top and left of the `count` crops of `side` x `side` pixels with the most detail.

    Crops lie on a grid and do not overlap; a photo with room for `count` or fewer returns all of
    them, one smaller than `side` none. Detail is the mean absolute difference of neighbouring
    samples of the green channel.
    """
    height, width = photo.shape[:2]
    corners = [
        (y, x) for y in range(0, height - side + 1, side) for x in range(0, width - side + 1, side)
    ]
    if len(corners) <= count:
        return corners
    corners = corners[:: max(1, len(corners) // _MOST_CANDIDATES)]
    step = max(1, side // _SAMPLES)

    def detail(corner: tuple[int, int]) -> float:
        top, left = corner
        coarse = photo[top : top + side : step, left : left + side : step, 1].astype(np.float32)
        return float(
            np.abs(np.diff(coarse, axis=0)).mean() + np.abs(np.diff(coarse, axis=1)).mean()
        )

    return sorted(corners, key=detail, reverse=True)[:count]
