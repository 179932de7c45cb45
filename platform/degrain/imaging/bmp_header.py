"""The header of a BMP file: resolution, colour profile and transparency.

Microsoft's BITMAPINFOHEADER, BITMAPV4HEADER and BITMAPV5HEADER; others are of OS/2.
"""

import struct

import numpy as np
from numpy.typing import NDArray

from degrain.imaging.resolution import Resolution
from degrain.imaging.stored_photo import UnreadablePhotoError

_FILE_HEADER = 14
_V3_WITH_ALPHA, _V4, _V5 = 56, 108, 124
_RESOLUTION = 38
_MASKS = (0x00FF0000, 0x0000FF00, 0x000000FF, 0xFF000000)
_EMBEDDED, _LINKED, _CALIBRATED, _SRGB = b"DEBM", b"KNIL", bytes(4), b"BGRs"
"""Kinds of colour space, as they stand in the file."""


def _header_size(bmp: bytes) -> int:
    return int.from_bytes(bmp[_FILE_HEADER : _FILE_HEADER + 4], "little")


def read_resolution(bmp: bytes) -> Resolution | None:
    """Pixels per metre."""
    if len(bmp) < _RESOLUTION + 8 or _header_size(bmp) < 40:
        return None
    across, down = struct.unpack_from("<ii", bmp, _RESOLUTION)
    return (across, down) if across > 0 and down > 0 else None


def read_profile(bmp: bytes) -> bytes | None:
    """The ICC profile inside the file."""
    if _header_size(bmp) < _V5 or _colour_space(bmp) != _EMBEDDED or len(bmp) < 138:
        return None
    start, size = struct.unpack_from("<II", bmp, 126)
    return bmp[_FILE_HEADER + start : _FILE_HEADER + start + size] or None


def lost_colours(bmp: bytes) -> list[str]:
    """What the header states about colours that no other file gets."""
    if _header_size(bmp) < _V4:
        return []
    if _colour_space(bmp) == _LINKED and _header_size(bmp) >= _V5:
        return ["the name of a colour profile outside of the BMP"]
    calibrated = _colour_space(bmp) == _CALIBRATED and any(bmp[74:122])
    return ["the colour calibration of the BMP"] if calibrated else []


def check_alpha(bmp: bytes) -> None:
    """Raise UnreadablePhotoError for alpha in pixels of 16 bits, which Pillow does not read."""
    bits, compression = struct.unpack_from("<HI", bmp, 28) if len(bmp) >= 70 else (0, 0)
    if _header_size(bmp) >= _V3_WITH_ALPHA and bits == 16 and compression and any(bmp[66:70]):
        raise UnreadablePhotoError("its pixels of 16 bits have alpha; convert it first")


def _colour_space(bmp: bytes) -> bytes:
    return bmp[70:74]


def encode(
    pixels: NDArray[np.uint8], resolution: Resolution | None, profile: bytes | None
) -> bytes:
    """Encode (H, W, 3) or (H, W, 4) of RGB and alpha."""
    height, width, channels = pixels.shape
    colours = pixels[::-1, :, [2, 1, 0, 3][:channels]]
    padded = np.zeros((height, -(-width * channels // 4) * 4), np.uint8)
    padded[:, : width * channels] = colours.reshape(height, -1)
    header = _V5 if profile else _V4
    start = _FILE_HEADER + header
    size = start + padded.nbytes
    across, down = resolution_integers(resolution)
    masks = _MASKS if channels == 4 else (0, 0, 0, 0)
    compression = 3 if channels == 4 else 0
    shape = (header, width, height, 1, 8 * channels, compression, padded.nbytes, across, down, 0, 0)
    parts = [
        b"BM" + struct.pack("<IHHI", size + len(profile or b""), 0, 0, start),
        struct.pack("<IiiHHIIiiII", *shape),
        struct.pack("<IIII", *masks) + (_EMBEDDED if profile else _SRGB) + bytes(48),
    ]
    if profile:
        parts.append(struct.pack("<IIII", 4, size - _FILE_HEADER, len(profile), 0))
    return b"".join([*parts, padded.tobytes(), profile or b""])


def resolution_integers(resolution: Resolution | None) -> tuple[int, int]:
    """Pixels per metre as a header has them."""
    return (0, 0) if resolution is None else (round(resolution[0]), round(resolution[1]))


def with_resolution(bmp: bytes, resolution: Resolution | None) -> bytes:
    """A BMP with this resolution in its header."""
    sides = struct.pack("<ii", *resolution_integers(resolution))
    return bmp[:_RESOLUTION] + sides + bmp[_RESOLUTION + 8 :]
