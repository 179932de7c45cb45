"""Read TIFF files with tifffile, because Pillow reduces 16-bit colours to 8 bits silently."""

import contextlib
import io
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from tifffile import EXTRASAMPLE

from degrain.imaging.colour_spaces import profile_of_page
from degrain.imaging.pixels import Photo, Plane, peak
from degrain.imaging.stored_photo import Selections, StoredPhoto, UnreadablePhotoError
from degrain.imaging.tiff_pages import photo_page

_ORIENTATION_TAG = 274
_GREYS = (tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.MINISWHITE)
_OPACITY = (EXTRASAMPLE.ASSOCALPHA, EXTRASAMPLE.UNASSALPHA)
_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def is_tiff(content: bytes) -> bool:
    """Whether a file starts with the signature of a TIFF or BigTIFF."""
    return content[:4] in _SIGNATURES


def is_deep_tiff(content: bytes) -> bool:
    """Whether a TIFF has more than 8 bits per channel by its header. Raises the errors of
    tifffile.
    """
    with _open(content) as file:
        page = file.pages.first
        return bool(page.bitspersample > 8 and page.photometric != tifffile.PHOTOMETRIC.PALETTE)


def tiff_size(content: bytes) -> tuple[int, int]:
    """Width and height by the header. Raises the errors of tifffile."""
    with _open(content) as file:
        # Damaged tags may be tuples.
        return int(file.pages.first.imagewidth), int(file.pages.first.imagelength)


@contextlib.contextmanager
def _open(content: bytes) -> Iterator[tifffile.TiffFile]:
    """Open a file. The objects of tifffile refer to each other and outlive it for a while; without
    an end of the buffer so would `content`, which is as large as the photo.
    """
    with io.BytesIO(content) as buffer, tifffile.TiffFile(buffer) as file:
        yield file


def is_compressed(content: bytes) -> bool:
    """Whether the pixels of a TIFF that was read are compressed."""
    with _open(content) as file:
        return bool(file.pages.first.compression != tifffile.COMPRESSION.NONE)


def read_tiff(content: bytes, largest_megapixels: float) -> StoredPhoto:
    """Read the photo of a TIFF. Raises UnreadablePhotoError, and the errors of tifffile."""
    with _open(content) as file:
        if len(file.pages) == 0:
            raise UnreadablePhotoError("it is damaged (its description of the picture is cut)")
        left_out = photo_page(file, content, largest_megapixels)
        return _read_page(file.pages.first, left_out)


def _read_page(page: tifffile.TiffPage, left_out: Sequence[str]) -> StoredPhoto:
    pixels = _read_pixels(page)
    grey = page.photometric in _GREYS
    colours, others = np.split(pixels, [1 if grey else 3], axis=2)
    kinds = [int(kind) for kind in page.extrasamples][: others.shape[2]]
    kinds += [EXTRASAMPLE.UNSPECIFIED] * (others.shape[2] - len(kinds))
    opacity = next((i for i, kind in enumerate(kinds) if kind in _OPACITY), None)
    alpha = None if opacity is None else others[:, :, opacity]
    if opacity is not None:
        assert alpha is not None
        if kinds.pop(opacity) == EXTRASAMPLE.ASSOCALPHA:
            colours = _unmultiply(colours, alpha)
        others = np.delete(others, opacity, axis=2)
    if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
        colours = _inverted(colours)
    return StoredPhoto(
        colours,
        alpha,
        profile=profile_of_page(page),
        orientation=page.tags.valueof(_ORIENTATION_TAG, 1),
        file_type="tiff",
        changes=(*_changes(page, pixels), *(f"dropped: {name}" for name in left_out)),
        selections=Selections(others, tuple(kinds), opacity or 0) if kinds else None,
    )


def _changes(page: tifffile.TiffPage, pixels: NDArray[Any]) -> Iterator[str]:
    """What reading does to the values of a page."""
    bits = 8 * pixels.dtype.itemsize
    if page.photometric == tifffile.PHOTOMETRIC.PALETTE:
        yield "palette colours became RGB"
    elif page.bitspersample != bits:
        yield f"{page.bitspersample} bits became {bits}"
    if EXTRASAMPLE.ASSOCALPHA in page.extrasamples:
        yield "premultiplied colours were divided by alpha"
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        count = np.count_nonzero(~np.isfinite(pixels).all(axis=2))
        yield f"{count} pixels are NaN or infinite and stay so"


def _read_pixels(page: tifffile.TiffPage) -> NDArray[Any]:
    """The pixels of a page, (H, W, C): uint8, uint16 or floats."""
    pixels = page.asarray()
    if page.planarconfig == tifffile.PLANARCONFIG.SEPARATE and pixels.ndim == 3:
        pixels = np.moveaxis(pixels, 0, -1)
    if page.photometric == tifffile.PHOTOMETRIC.PALETTE:
        # Of one bit tifffile makes truth values, which would select, not look up.
        return np.asarray(
            _colours_of_palette(np.asarray(page.colormap).T)[pixels.astype(np.uint16)]
        )
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if pixels.dtype.kind == "f":
        return np.asarray(pixels)
    bits = page.bitspersample
    if pixels.dtype.kind not in "bu" or bits > 16:
        raise UnreadablePhotoError(
            f"its pixels are {pixels.dtype}, not 8 or 16 bits or floats; convert it first"
        )
    white, dtype = 2**bits - 1, np.uint8 if bits <= 8 else np.uint16
    if bits not in (8, 16):
        pixels = np.round(pixels * (np.iinfo(dtype).max / white))
    return np.asarray(pixels, dtype=dtype)


def _colours_of_palette(palette: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """A palette of 16 bits as 8 bits; some programs store 8 bits in it."""
    return np.asarray(palette >> 8 if palette.max() > 255 else palette, dtype=np.uint8)


def _inverted(colours: Photo) -> Photo:
    """Colours with white stored as 0."""
    if colours.dtype.kind == "f":
        raise UnreadablePhotoError("its floats have white as 0; store it with black as 0")
    return np.invert(colours)


def _unmultiply(colours: Photo, alpha: Plane) -> Photo:
    """Divide premultiplied colours, (H, W, C), by alpha; where alpha is 0 the colour is unknown."""
    opacity = alpha[:, :, None]
    if colours.dtype.kind == "f":
        with np.errstate(over="ignore", invalid="ignore"):
            return np.asarray(np.divide(colours, opacity, out=colours.copy(), where=opacity > 0))
    white, opacity = np.uint32(peak(colours)), opacity.astype(np.uint32)
    straight = (colours * white + opacity // 2) // np.maximum(opacity, 1)
    return np.asarray(np.minimum(straight, white), dtype=colours.dtype)
