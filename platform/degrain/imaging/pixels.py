"""Photos in memory as NumPy arrays, and conversions between 8 and 16 bits."""

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Photo: TypeAlias = NDArray[Any]
"""RGB pixels, (H, W, 3), uint8 or uint16."""

Plane: TypeAlias = NDArray[Any]
"""One value for each pixel, (H, W), uint8 or uint16."""


_ROWS = 256
"""Rows that are converted at a time."""


def is_float(photo: Photo) -> bool:
    """Whether the values are floats, of which 1 is white."""
    return photo.dtype.kind == "f"


def peak(photo: Photo) -> int:
    """The white level: 255, 65535, or 1 for floats."""
    return 1 if is_float(photo) else 65535 if photo.dtype == np.uint16 else 255


def eight_bits(photo: Photo) -> NDArray[np.uint8]:
    """Convert to 8 bits, rounded."""
    if photo.dtype == np.uint8:
        return np.asarray(photo, dtype=np.uint8)
    result = np.empty(photo.shape, np.uint8)
    for top in range(0, len(photo), _ROWS):
        result[top : top + _ROWS] = (photo[top : top + _ROWS].astype(np.uint32) + 128) // 257
    return result


def sixteen_bits(photo: Photo) -> NDArray[np.uint16]:
    """Convert to 16 bits; 255 becomes 65535. Floats are clipped to [0, 1]; NaN becomes 0."""
    if is_float(photo):
        result = np.empty(photo.shape, np.uint16)
        for top in range(0, len(photo), _ROWS):
            # Doubles beyond the range of float32 become infinite, without a warning.
            with np.errstate(over="ignore", invalid="ignore"):
                values = photo[top : top + _ROWS].astype(np.float32)
            values = np.nan_to_num(values, posinf=1, neginf=0)
            result[top : top + _ROWS] = np.round(np.clip(values, 0, 1) * 65535)
        return result
    return (
        photo.astype(np.uint16) * np.uint16(257)
        if photo.dtype == np.uint8
        else np.asarray(photo, dtype=np.uint16)
    )


def add_change(stored: Photo, before: Photo, after: Photo) -> Photo:
    """Floats plus the change from `before` to `after`, both of 16 bits.

    Values without a change keep their bits; those below 0 or above 1, and infinities, get the
    change of their clipped value.
    """
    result = np.empty_like(stored)
    exact = np.float64 if stored.dtype == np.float64 else np.float32
    for top in range(0, len(stored), _ROWS):
        rows = slice(top, top + _ROWS)
        change = after[rows].astype(exact) - before[rows]
        # NaN stays NaN, without a warning.
        with np.errstate(over="ignore", invalid="ignore"):
            result[rows] = stored[rows] + np.divide(change, 65535, dtype=exact)
    return result


def channel_mean(photo: Photo) -> Photo:
    """(H, W, 3) -> (H, W, 1), rounded; a third is never half-way, so adding 1 before dividing
    suffices.
    """
    total = photo.sum(axis=2, dtype=np.uint32, keepdims=True)
    return np.asarray((total + 1) // 3, dtype=photo.dtype)


def check_photo(photo: Photo) -> None:
    """Raise ValueError unless `photo` is (H, W, 3) of uint8 or uint16 with at least one pixel."""
    if photo.ndim != 3 or photo.shape[2] != 3:
        raise ValueError(
            "a photo is an array of height, width and 3 channels, got the shape "
            f"{photo.shape}; repeat grey, and keep alpha apart"
        )
    if photo.dtype not in (np.uint8, np.uint16):
        broken = (
            " with NaN or infinite pixels"
            if photo.dtype.kind == "f" and not np.isfinite(photo).all()
            else ""
        )
        raise ValueError(
            f"a photo is uint8 or uint16, got {photo.dtype}{broken}; "
            "scale values to 0..255 or 0..65535 and round them"
        )
    if photo.size == 0:
        raise ValueError(f"a photo has at least one pixel, got {photo.shape[0]}x{photo.shape[1]}")
