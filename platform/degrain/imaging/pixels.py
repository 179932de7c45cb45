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


def check_noise_level(value: float) -> None:
    """Raise ValueError unless `value` is a standard deviation in (0, 1], where white is 1."""
    if not 0 < value <= 1:
        raise ValueError(
            f"noise_level must be above 0 and at most 1, where white is 1, got {value}; divide a standard deviation "
            "of 8-bit pixels by 255, or give none to have it estimated"
        )
