"""Photo files to pixels and back: 8-bit RGB arrays of shape (H, W, 3)."""

import io
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

Photo: TypeAlias = NDArray[np.uint8]
"""RGB pixels, (H, W, 3), uint8."""

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
"""File name endings that are taken for photos, in lower case."""

_LARGEST_PIXELS = 500_000_000
_EIGHT_BIT_MODES = frozenset({"RGB", "L", "P", "1"})


class UnreadablePhotoError(ValueError):
    """The bytes are not a photo that Degrain reads; the message says why, without the file's name."""


def is_photo(name: str) -> bool:
    """Whether a file name ends like a photo's, in any case."""
    return Path(name).suffix.lower() in SUFFIXES


def decode(content: bytes) -> Photo:
    """Decode a whole photo file into RGB, (H, W, 3) uint8; grey is repeated over the channels.

    Raises UnreadablePhotoError if the file is empty, truncated or no photo, or has a mode that would lose something:
    16-bit, transparency, CMYK.
    """
    if not content:
        raise UnreadablePhotoError("the file is empty")
    # Pillow's own limit is a warning and lies below what cameras make today; ours follows.
    Image.MAX_IMAGE_PIXELS = None
    try:
        with Image.open(io.BytesIO(content)) as image:
            if image.width * image.height > _LARGEST_PIXELS:
                raise UnreadablePhotoError(f"it has {image.width}x{image.height} pixels, over {_LARGEST_PIXELS}")
            _check_eight_bits(image)
            image.load()
            return np.asarray(image.convert("RGB"))
    except UnidentifiedImageError:
        raise UnreadablePhotoError("it is not a photo in a known format") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, UnreadablePhotoError):
            raise
        raise UnreadablePhotoError(f"it is damaged ({str(error).splitlines()[0]})") from None


def _check_eight_bits(image: Image.Image) -> None:
    """Raise UnreadablePhotoError if making 8-bit RGB of an opened, not yet loaded, image would lose something."""
    if image.mode not in _EIGHT_BIT_MODES:
        raise UnreadablePhotoError(f"its mode is {image.mode}, not 8-bit RGB or grey; convert it first")
    if "transparency" in image.info:
        raise UnreadablePhotoError("it has a transparent colour, so it is not 8-bit RGB or grey; convert it first")
    # Pillow makes 8 bits of 16-bit colour without a word; only the name of the raw mode tells, or TIFF's BitsPerSample.
    raw_modes = [tile.args[0] if isinstance(tile.args, tuple) else tile.args for tile in getattr(image, "tile", [])]
    sample_bits = getattr(image, "tag_v2", {}).get(258, ())
    if any(";16" in str(raw_mode) for raw_mode in raw_modes) or any(bits > 8 for bits in sample_bits):
        raise UnreadablePhotoError(f"it has 16 bits per channel (mode {image.mode}); convert it to 8 bits first")


def encode_png(photo: Photo) -> bytes:
    """Encode (H, W, 3) uint8 as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(photo).save(buffer, format="PNG", compress_level=4)
    return buffer.getvalue()
