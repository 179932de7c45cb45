"""What photos are in memory, and how their 8 and 16 bits relate; NumPy alone."""

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Photo: TypeAlias = NDArray[Any]
"""RGB pixels, (H, W, 3), uint8 or uint16."""

Plane: TypeAlias = NDArray[Any]
"""One value for each pixel, (H, W), uint8 or uint16."""


def peak(photo: Photo) -> int:
    """The value of white: 255 or 65535."""
    return 65535 if photo.dtype == np.uint16 else 255


def eight_bits(photo: Photo) -> NDArray[np.uint8]:
    """The photo in 8 bits, rounded."""
    if photo.dtype == np.uint8:
        return np.asarray(photo, dtype=np.uint8)
    return ((photo.astype(np.uint32) + 128) // 257).astype(np.uint8)


def sixteen_bits(photo: Photo) -> NDArray[np.uint16]:
    """The photo in 16 bits; 255 becomes 65535."""
    return photo.astype(np.uint16) * np.uint16(257) if photo.dtype == np.uint8 else np.asarray(photo, dtype=np.uint16)


def check_photo(photo: Photo) -> None:
    """Raise ValueError unless `photo` is (H, W, 3) of uint8 or uint16 with at least one pixel."""
    if photo.ndim != 3 or photo.shape[2] != 3:
        raise ValueError(
            f"a photo is an array of height, width and 3 channels, got the shape {photo.shape}; repeat grey, and keep alpha "
            "apart"
        )
    if photo.dtype not in (np.uint8, np.uint16):
        broken = " with NaN or infinite pixels" if photo.dtype.kind == "f" and not np.isfinite(photo).all() else ""
        raise ValueError(
            f"a photo is uint8 or uint16, got {photo.dtype}{broken}; scale values to 0..255 or 0..65535 and round them"
        )
    if photo.size == 0:
        raise ValueError(f"a photo has at least one pixel, got {photo.shape[0]}x{photo.shape[1]}")


def check_noise_level(value: float) -> None:
    """Raise ValueError unless `value` is a standard deviation in (0, 1], where white is 1."""
    if not 0 < value <= 1:
        raise ValueError(
            f"noise_level must be above 0 and at most 1, where white is 1, got {value}; divide a standard deviation "
            "of 8-bit pixels by 255, or give none to have it estimated"
        )
