"""Decode photo files into RGB arrays of shape (H, W, 3), 8 or 16 bits, and encode them as PNG.

`decode_layers` returns colours and alpha; `decode` returns the colours alone and refuses
transparency.
"""

import io
import logging
import re
import threading
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from degrain.imaging.colour_profiles import convert_to_srgb
from degrain.imaging.limits import LARGEST_MEGAPIXELS, Profiles
from degrain.imaging.pillow_formats import read_with_pillow, size_with_pillow
from degrain.imaging.pixels import Photo, Plane, is_float, peak, sixteen_bits
from degrain.imaging.png import is_deep_png, is_png, png_size, read_png
from degrain.imaging.stored_photo import StoredPhoto, UnreadablePhotoError, first_line
from degrain.imaging.tiff import is_deep_tiff, is_tiff, read_tiff, tiff_size

__all__ = [
    "SUFFIXES",
    "PhotoLayers",
    "UnreadablePhotoError",
    "apply_orientation",
    "decode",
    "decode_layers",
    "encode_png",
    "is_deep",
    "is_photo",
    "pixels_by_header",
    "read_stored",
]

T = TypeVar("T")
_SPEAK_OF_FILES = (OSError, SyntaxError, RuntimeError, zlib.error, tifffile.TiffFileError)
"""Errors that codecs raise on purpose; the words of others, such as IndexError, are about code."""
_UNREAD_KIND = re.compile(r"(?i)unsupported|not (supported|implemented|a valid)|requires the")
_loading_formats = threading.Lock()

SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".bmp", ".dib", ".tif", ".tiff", ".webp"}
)
"""File name suffixes of photos, in lower case."""


@dataclass(frozen=True)
class PhotoLayers:
    """The decoded content of a photo file, upright and in sRGB."""

    rgb: Photo
    """(H, W, 3), three equal channels for a grey photo. Not multiplied by alpha: transparent pixels
    keep the colours that the file stores, often black.
    """
    alpha: Plane | None
    """Opacity in as many bits as the colours; None without an alpha channel."""
    grey: bool
    """Whether the file has one grey channel instead of colours."""


def is_photo(name: str) -> bool:
    """Whether a file name has the suffix of a photo, in upper or lower case."""
    # Much faster than pathlib, for listings of millions of names.
    file = name.rpartition("/")[2]
    dot = file.rfind(".")
    return dot > 0 and file[dot:].lower() in SUFFIXES


def is_deep(content: bytes) -> bool:
    """Whether a file has more than 8 bits per channel by its header; False for a damaged one."""
    if is_tiff(content):
        return _of_header(content, is_deep_tiff, damaged=False)
    return is_png(content) and is_deep_png(content)


def pixels_by_header(content: bytes) -> int:
    """The number of pixels of a photo by its header; 0 for a damaged one."""
    size = tiff_size if is_tiff(content) else png_size if is_png(content) else size_with_pillow
    width, height = _of_header(content, size, damaged=(0, 0))
    return width * height


def _of_header(content: bytes, read: Callable[[bytes], T], *, damaged: T) -> T:
    """What `read` finds in the header of a file; `damaged` if it cannot be read."""
    _configure_codecs()
    try:
        return read(content)
    except Exception:  # noqa: BLE001 - damaged files raise many types in the codecs
        return damaged


def decode(
    content: bytes,
    *,
    largest_megapixels: float = LARGEST_MEGAPIXELS,
    profiles: Profiles = "convert",
) -> Photo:
    """Decode a whole photo file into RGB, (H, W, 3).

    Raises UnreadablePhotoError as `decode_layers`, and for transparency, which would be lost. An
    opaque alpha channel is dropped.
    """
    layers = decode_layers(content, largest_megapixels=largest_megapixels, profiles=profiles)
    if layers.alpha is not None and layers.alpha.min() != peak(layers.alpha):
        raise UnreadablePhotoError("it is transparent in places; flatten it first")
    return layers.rgb


def decode_layers(
    content: bytes,
    *,
    largest_megapixels: float = LARGEST_MEGAPIXELS,
    profiles: Profiles = "convert",
) -> PhotoLayers:
    """Decode a whole photo file: uint16 for files with more than 8 bits per channel, else uint8.

    EXIF orientation is applied. Colour profiles other than sRGB are converted, or ignored with
    `profiles="keep"`; those of grey photos are always ignored. Float TIFF in [0, 1] becomes 16
    bits. Premultiplied TIFF colours are divided by alpha, channels that are neither colours nor
    opacity are ignored, and a transparent colour becomes alpha. Raises UnreadablePhotoError for
    files that are empty, damaged, not a photo or too large, and for content that would be lost:
    CMYK, several pages, other number types.
    """
    return _to_layers(read_stored(content, largest_megapixels), profiles)


def read_stored(content: bytes, largest_megapixels: float = LARGEST_MEGAPIXELS) -> StoredPhoto:
    """Decode the pixels of a whole photo file as they are stored.

    Raises UnreadablePhotoError as `decode_layers`, but not for colour profiles.
    """
    if not content:
        raise UnreadablePhotoError("the file is empty")
    _configure_codecs()
    try:
        with warnings.catch_warnings():
            # Pillow warns about damaged EXIF and the like; damaged pixels raise errors.
            warnings.simplefilter("ignore")
            read = (
                read_tiff if is_tiff(content) else read_png if is_png(content) else read_with_pillow
            )
            return read(content, largest_megapixels)
    except UnreadablePhotoError:
        raise
    except MemoryError:
        raise UnreadablePhotoError(
            "it is damaged, or too large for the memory of this machine"
        ) from None
    except Exception as error:  # noqa: BLE001 - damaged files raise many types in the codecs
        raise UnreadablePhotoError(_reason(error)) from None


def _reason(error: Exception) -> str:
    """Why a codec cannot read a file, in words of the photo."""
    words = first_line(error)
    if _UNREAD_KIND.search(words) and not isinstance(error, TypeError):
        return f"its kind is not read ({words}); convert it first"
    if not isinstance(error, _SPEAK_OF_FILES):
        return "it is damaged (its parts contradict each other)"
    return f"it is damaged ({words})"


def _to_layers(stored: StoredPhoto, profiles: Profiles) -> PhotoLayers:
    """Convert to sRGB and apply the orientation; the profile of a grey photo is ignored."""
    colours, alpha = stored.colours, stored.alpha
    if is_float(colours):
        if not np.isfinite(colours).all():
            raise UnreadablePhotoError(
                "some of its pixels are NaN or infinite; replace them with values in [0, 1] first"
            )
        if colours.min() < 0 or colours.max() > 1:
            raise UnreadablePhotoError(
                f"its floats are {colours.min():.3g} to {colours.max():.3g}, not in [0, 1]; "
                "scale it first"
            )
        colours, alpha = sixteen_bits(colours), None if alpha is None else sixteen_bits(alpha)
    grey = colours.shape[2] == 1
    rgb = np.ascontiguousarray(np.broadcast_to(colours, (*colours.shape[:2], 3)))
    if not grey and profiles == "convert":
        rgb = convert_to_srgb(rgb, stored.profile)
    return PhotoLayers(
        rgb=apply_orientation(rgb, stored.orientation),
        alpha=None if alpha is None else apply_orientation(alpha, stored.orientation),
        grey=grey,
    )


def apply_orientation(layer: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Apply EXIF orientation to (H, W) or (H, W, 3): 2-4 flip, 5 transposes, 6-8 transpose and
    flip.
    """
    if orientation in (5, 6, 7, 8):
        layer = layer.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        layer = layer[::-1]
    if orientation in (2, 3, 6, 7):
        layer = layer[:, ::-1]
    return np.ascontiguousarray(layer)


def _configure_codecs() -> None:
    """Lift Pillow's size limit and turn off the logs of imagecodecs and tifffile.

    Pillow's limit is smaller than today's photos; `check_size` applies the project's. The logs
    repeat errors that are raised, or concern metadata. Pillow loads its formats when the first file
    is opened; in two threads at one time it misses some (KeyError: 'WEBP').
    """
    with _loading_formats:
        Image.init()
    Image.MAX_IMAGE_PIXELS = None
    for name in ("imagecodecs", "tifffile"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)


def encode_png(photo: Photo) -> bytes:
    """Encode (H, W, 3) uint8 or uint16 as PNG with the same bits per channel."""
    if photo.dtype == np.uint16:
        # A copy, because imagecodecs refuses the strides of some views of a single pixel.
        return bytes(imagecodecs.png_encode(photo.copy(), level=4))
    buffer = io.BytesIO()
    Image.fromarray(photo).save(buffer, format="PNG", compress_level=4)
    return buffer.getvalue()
