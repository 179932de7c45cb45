"""Read PNG, JPEG, BMP and WebP files.

Pillow opens them all. The pixels of most PNG files are decoded by imagecodecs, measured nearly
twice as fast and the only one of the two that decodes 16-bit colour. The rest stays with Pillow,
which alone refuses a truncated JPEG.
"""

import io
import warnings
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from degrain.imaging.limits import FileType
from degrain.imaging.stored_photo import (
    StoredPhoto,
    UnreadablePhotoError,
    check_size,
    refuse_pages,
    split_alpha,
)

T = TypeVar("T")
_FILE_TYPES: dict[str | None, FileType] = {
    "PNG": "png",
    "JPEG": "jpeg",
    "MPO": "jpeg",
    "BMP": "bmp",
    "WEBP": "webp",
}
_FORMATS = ("PNG", "JPEG", "BMP", "WEBP")
"""The only formats that Pillow may open: some others run external programs."""
DAMAGE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, imagecodecs.PngError)
"""Errors of Pillow and imagecodecs for damaged files."""
_IMAGECODECS_MODES = frozenset({"RGB", "RGBA", "L", "LA", "1"})
_EIGHT_BIT_MODES = frozenset({"RGB", "L", "P", "1", "RGBA", "LA", "PA"})
_ORIENTATION_TAG = 274
_PNG_DEPTH = 24
"""Position of the bits per channel in the first chunk of a PNG."""


def is_deep_with_pillow(content: bytes) -> bool:
    """Whether a file has more than 8 bits per channel by its header; False for a damaged one."""
    return _by_header(content, _is_deep, damaged=False)


def size_with_pillow(content: bytes) -> tuple[int, int]:
    """Width and height by the header; 0 for a damaged file."""
    return _by_header(content, lambda image: image.size, damaged=(0, 0))


def _by_header(content: bytes, read: Callable[[Image.Image], T], *, damaged: T) -> T:
    """What `read` returns for a file that is opened but not decoded; `damaged` if that fails."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
                return read(image)
    except DAMAGE_ERRORS:
        return damaged


def read_with_pillow(content: bytes, largest_megapixels: float) -> StoredPhoto:
    """Read a PNG, JPEG, BMP or WebP file.

    Raises UnreadablePhotoError, and for damaged files the errors of Pillow and imagecodecs.
    """
    with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
        check_size(image.width, image.height, largest_megapixels)
        # The further images of an MPO file are other views of the first.
        refuse_pages(1 if image.format == "MPO" else getattr(image, "n_frames", 1))
        profile = image.info.get("icc_profile")
        with_imagecodecs = image.format == "PNG" and (
            _is_deep(image) or image.mode in _IMAGECODECS_MODES
        )
        orientation = _read_orientation(image, content)
        file_type = _FILE_TYPES[image.format]
        changes = tuple(_changes(image, content))
        pixels: NDArray[Any] = (
            imagecodecs.png_decode(content) if with_imagecodecs else _read_pixels(image)
        )
    return StoredPhoto(
        *split_alpha(pixels),
        profile=profile,
        orientation=orientation,
        file_type=file_type,
        changes=changes,
    )


def _changes(image: Image.Image, content: bytes) -> Iterator[str]:
    """What reading does to the values of an opened image."""
    if image.mode in ("P", "PA"):
        yield "palette colours became RGB"
    elif image.format == "PNG" and content[_PNG_DEPTH] < 8:
        yield f"{content[_PNG_DEPTH]} bits became 8"


def _is_deep(image: Image.Image) -> bool:
    """Whether an opened image, not yet loaded, has more than 8 bits per channel.

    Of colour images only the raw mode of a PNG shows it.
    """
    raw_modes = [
        tile.args[0] if isinstance(tile.args, tuple) else tile.args
        for tile in getattr(image, "tile", [])
    ]
    return image.format == "PNG" and (
        image.mode.startswith("I") or any(";16" in str(raw) for raw in raw_modes)
    )


def _read_orientation(image: Image.Image, content: bytes) -> int:
    """The EXIF orientation of an opened image; 1 for damaged EXIF, as in viewers."""
    # Pillow would decode the whole PNG to search for EXIF after the pixels.
    without_decoding = image.format == "PNG" and not _has_png_chunk(content, b"eXIf")
    try:
        exif = Image.Image.getexif(image) if without_decoding else image.getexif()
    except SyntaxError:
        return 1
    value = exif.get(_ORIENTATION_TAG, 1)
    return value if isinstance(value, int) else 1


def _has_png_chunk(content: bytes, name: bytes) -> bool:
    """Whether a PNG file has a chunk of that name, by the headers of its chunks."""
    position = 8
    while position + 8 <= len(content):
        if content[position + 4 : position + 8] == name:
            return True
        position += 12 + int.from_bytes(content[position : position + 4])
    return False


def _read_pixels(image: Image.Image) -> NDArray[np.uint8]:
    """(H, W) for a grey image, (H, W, 4) for one with alpha or transparent palette colours, else
    (H, W, 3).
    """
    if image.mode not in _EIGHT_BIT_MODES:
        raise UnreadablePhotoError(f"its mode is {image.mode}, not RGB or grey; convert it first")
    image.load()
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        return np.asarray(image.convert("RGBA"))
    return np.asarray(image.convert("L" if image.mode in ("L", "1") else "RGB"))
