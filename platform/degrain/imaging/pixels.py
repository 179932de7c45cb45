"""Photos in memory as NumPy arrays, and conversions between 8 and 16 bits."""

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Photo: TypeAlias = NDArray[Any]
"""RGB pixels, (H, W, 3), uint8 or uint16."""

Plane: TypeAlias = NDArray[Any]
"""One value for each pixel, (H, W), uint8 or uint16."""


def peak(photo: Photo) -> int:
    """The white level: 255 or 65535."""
    return 65535 if photo.dtype == np.uint16 else 255


def eight_bits(photo: Photo) -> NDArray[np.uint8]:
    """Convert to 8 bits, rounded."""
    if photo.dtype == np.uint8:
        return np.asarray(photo, dtype=np.uint8)
    return ((photo.astype(np.uint32) + 128) // 257).astype(np.uint8)


def sixteen_bits(photo: Photo) -> NDArray[np.uint16]:
    """Convert to 16 bits; 255 becomes 65535."""
    return (
        photo.astype(np.uint16) * np.uint16(257)
        if photo.dtype == np.uint8
        else np.asarray(photo, dtype=np.uint16)
    )


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
