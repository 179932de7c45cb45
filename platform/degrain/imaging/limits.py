"""Limits and choices of imaging that configurations need; the standard library only."""

from typing import Literal, TypeAlias

from degrain.errors import InvalidFieldError

FileType: TypeAlias = Literal["bmp", "jpeg", "png", "tiff", "webp"]
"""Types of photo files."""
Profiles: TypeAlias = Literal["convert", "keep"]
"""Colour profiles other than sRGB are converted, or kept: ignored."""
LARGEST_MEGAPIXELS = 500.0
"""Larger photos are refused by default: a small file can claim to be a huge photo."""
LARGEST_METADATA = 16 * 2**20
"""Bytes of metadata that are decompressed: a small file can hold gigabytes of zeros."""
MOST_SEGMENTS = 10_000
"""Parts of a file beside its pixels: each takes more memory than in the file."""
FilterName: TypeAlias = Literal["bilateral", "bm3d", "median", "nlm", "nlm-tuned", "tv", "wavelet"]
"""The classical filters of `imaging.filters`."""


def check_noise_level(value: float) -> None:
    """Raise InvalidFieldError unless `value` is a standard deviation in (0, 1]; white is 1."""
    if not 0 < value <= 1:
        raise InvalidFieldError(
            "noise_level",
            f"must be above 0 and at most 1, where white is 1, got {value}; divide a standard "
            "deviation of 8-bit pixels by 255, or give none to have it estimated",
        )
