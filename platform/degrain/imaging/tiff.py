"""Read TIFF files with tifffile, because Pillow reduces 16-bit colours to 8 bits silently."""

import contextlib
import io
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np
import tifffile
from numpy.typing import NDArray

from degrain.imaging.colour_spaces import profile_of_page
from degrain.imaging.pixels import Photo, Plane, peak
from degrain.imaging.stored_photo import (
    StoredPhoto,
    UnreadablePhotoError,
    check_size,
    first_line,
    refuse_pages,
    split_alpha,
)

T = TypeVar("T")
_ORIENTATION_TAG = 274
_GREYS = (tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.MINISWHITE)
_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def is_tiff(content: bytes) -> bool:
    """Whether a file starts with the signature of a TIFF or BigTIFF."""
    return content[:4] in _SIGNATURES


def is_deep_tiff(content: bytes) -> bool:
    """Whether a TIFF has more than 8 bits per channel by its header; False for a damaged one."""

    def is_deep(page: tifffile.TiffPage) -> bool:
        return bool(page.bitspersample > 8 and page.photometric != tifffile.PHOTOMETRIC.PALETTE)

    return _by_header(content, is_deep, damaged=False)


def tiff_size(content: bytes) -> tuple[int, int]:
    """Width and height by the header; 0 for a damaged file."""
    return _by_header(content, lambda page: (page.imagewidth, page.imagelength), damaged=(0, 0))


def _by_header(content: bytes, read: Callable[[tifffile.TiffPage], T], *, damaged: T) -> T:
    """What `read` returns for the first page; `damaged` if it cannot be read."""
    try:
        with _open(content) as file:
            return read(file.pages.first)
    except Exception:  # noqa: BLE001 - damaged files raise many types in tifffile
        return damaged


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
    """Read the one page of a TIFF. Raises UnreadablePhotoError."""
    try:
        with _open(content) as file:
            page = file.pages.first
            check_size(page.imagewidth, page.imagelength, largest_megapixels)
            refuse_pages(len(file.pages))
            return _read_page(page, len(content))
    except UnreadablePhotoError:
        raise
    except MemoryError:
        # A damaged header can ask for any amount of memory.
        raise UnreadablePhotoError(
            "it is damaged, or too large for the memory of this machine"
        ) from None
    except Exception as error:  # noqa: BLE001 - damaged files raise many types in tifffile
        raise UnreadablePhotoError(f"it is damaged ({first_line(error)})") from None


def _read_page(page: tifffile.TiffPage, size: int) -> StoredPhoto:
    colours, alpha = split_alpha(_read_pixels(page, size))
    if alpha is not None and tifffile.EXTRASAMPLE.ASSOCALPHA in page.extrasamples:
        colours = _unmultiply(colours, alpha)
    if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
        colours = np.invert(colours)
    return StoredPhoto(
        colours,
        alpha,
        profile=profile_of_page(page),
        orientation=page.tags.valueof(_ORIENTATION_TAG, 1),
        file_type="tiff",
        changes=tuple(_changes(page)),
    )


def _changes(page: tifffile.TiffPage) -> Iterator[str]:
    """What reading does to the values of a page."""
    if page.photometric == tifffile.PHOTOMETRIC.PALETTE:
        yield "palette colours became RGB"
    elif page.sampleformat == tifffile.SAMPLEFORMAT.IEEEFP:
        yield f"{page.bitspersample}-bit floats became 16 bits"
    elif page.bitspersample not in (8, 16):
        yield f"{page.bitspersample} bits became {8 if page.bitspersample < 8 else 16}"
    if tifffile.EXTRASAMPLE.ASSOCALPHA in page.extrasamples:
        yield "premultiplied colours were divided by alpha"


def _read_pixels(page: tifffile.TiffPage, size: int) -> NDArray[Any]:
    """The pixels of a TIFF of `size` bytes as stored: (H, W) or (H, W, C), uint8 or uint16."""
    _check_readable(page, size)
    pixels = page.asarray()
    if page.planarconfig == tifffile.PLANARCONFIG.SEPARATE and pixels.ndim == 3:
        pixels = np.moveaxis(pixels, 0, -1)
    if page.photometric == tifffile.PHOTOMETRIC.PALETTE:
        return np.asarray(np.asarray(page.colormap).T[pixels] >> 8, dtype=np.uint8)
    if pixels.dtype.kind == "f":
        return _floats_to_sixteen_bits(pixels)
    bits = page.bitspersample
    if pixels.dtype.kind not in "bu" or bits > 16:
        raise UnreadablePhotoError(
            f"its pixels are {pixels.dtype}, not 8 or 16 bits or floats; convert it first"
        )
    white, dtype = 2**bits - 1, np.uint8 if bits <= 8 else np.uint16
    if bits not in (8, 16):
        pixels = np.round(pixels * (np.iinfo(dtype).max / white))
    return np.asarray(pixels, dtype=dtype)


def _check_readable(page: tifffile.TiffPage, size: int) -> None:
    """Raise UnreadablePhotoError for other colours than RGB or grey, and for missing pixels."""
    colours = tifffile.PHOTOMETRIC(page.photometric)
    jpeg_ycbcr = (
        colours == tifffile.PHOTOMETRIC.YCBCR and page.compression == tifffile.COMPRESSION.JPEG
    )
    known = (*_GREYS, tifffile.PHOTOMETRIC.RGB, tifffile.PHOTOMETRIC.PALETTE)
    if not (jpeg_ycbcr or colours in known):
        raise UnreadablePhotoError(
            f"its colours are {colours.name}, not RGB or grey; convert it first"
        )
    if page.samplesperpixel > 4 or page.imagedepth > 1:
        raise UnreadablePhotoError(f"its shape is {page.shape}, not RGB or grey; convert it first")
    # tifffile fills in the missing end of a compressed strip.
    ends = [
        start + count for start, count in zip(page.dataoffsets, page.databytecounts, strict=True)
    ]
    if max(ends) > size:
        raise UnreadablePhotoError("it is damaged (the file ends before its pixels)")


def _floats_to_sixteen_bits(pixels: NDArray[np.floating[Any]]) -> NDArray[np.uint16]:
    values = pixels.astype(np.float32, copy=False)
    if not (values.min() >= 0 and values.max() <= 1):
        raise UnreadablePhotoError(
            f"its floats are {values.min():.3g} to {values.max():.3g}, not in [0, 1]; "
            "scale it first"
        )
    return np.round(values * 65535).astype(np.uint16)


def _unmultiply(colours: Photo, alpha: Plane) -> Photo:
    """Divide premultiplied colours, (H, W, C), by alpha; where alpha is 0 the colour is unknown."""
    white, opacity = np.uint32(peak(colours)), alpha[:, :, None].astype(np.uint32)
    straight = (colours * white + opacity // 2) // np.maximum(opacity, 1)
    return np.asarray(np.minimum(straight, white), dtype=colours.dtype)
