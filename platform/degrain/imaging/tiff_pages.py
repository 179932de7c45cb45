"""Which page of a TIFF is the photo, and whether it may be decoded: checked before any allocation
that the numbers of a file ask for.

A TIFF may hold several pictures: pages, and pictures below a page (SubIFDs). Raw files and pyramids
are such files. TIFF 6.0, section 8; TIFF/EP (ISO 12234-2); Adobe DNG 1.7.
"""

import io

import tifffile
from PIL import Image
from tifffile import COMPRESSION, PHOTOMETRIC

from degrain.imaging.jpeg_segments import frame_size
from degrain.imaging.stored_photo import UnreadablePhotoError, check_size, refuse_pages

_DNG_VERSION, _JPEG_TABLES = 50706, 347
_REDUCED = 1
"""NewSubfileType, bit 0: a smaller copy of another picture of the file."""
_MOST_PAGES = 100
_MOST_SAMPLES = 8
"""Channels of a photo: colours, opacity, and selections that an editor saved."""
_LEAST_SEGMENT = 2**22
"""Pixels of a strip or tile that are always allowed: tiles extend beyond small photos."""
_GREYS = (PHOTOMETRIC.MINISBLACK, PHOTOMETRIC.MINISWHITE)
_SELF_SIZED = {COMPRESSION.WEBP: "WEBP", COMPRESSION.JPEG2000: "JPEG2000", COMPRESSION.PNG: "PNG"}
"""Compressions whose data has a size of its own, with the format that Pillow knows them by."""
_SIZED_BY_TAGS = frozenset(
    {
        *(COMPRESSION.NONE, COMPRESSION.CCITTRLE, COMPRESSION.CCITT_T4, COMPRESSION.CCITT_T6),
        *(COMPRESSION.LZW, COMPRESSION.ADOBE_DEFLATE, COMPRESSION.DEFLATE, COMPRESSION.PACKBITS),
        *(COMPRESSION.LZMA, COMPRESSION.ZSTD, COMPRESSION.PIXTIFF),
    }
)
"""Compressions of which at most the bytes are decoded that the tags ask for."""


def photo_page(file: tifffile.TiffFile, content: bytes, largest_megapixels: float) -> list[str]:
    """Check that the first page is the photo and can be decoded; returns what is left out.

    Raises UnreadablePhotoError.
    """
    page = file.pages.first
    check_size(page.imagewidth, page.imagelength, largest_megapixels)
    if _DNG_VERSION in page.tags:
        raise UnreadablePhotoError("it is a raw photo (DNG); develop it and store it as TIFF first")
    if page.subfiletype & _REDUCED:
        raise UnreadablePhotoError(
            "its first picture is a small copy of another, as in raw photos and pyramids; store "
            "the full picture alone"
        )
    left_out = _other_pages(file)
    if page.subifds:
        _refuse_larger_pictures(page)
        left_out.append("smaller copies of the picture (SubIFDs)")
    _check_kind(page)
    _check_segments(page, content)
    return left_out


def _other_pages(file: tifffile.TiffFile) -> list[str]:
    count = len(file.pages)
    refuse_pages(count if count > _MOST_PAGES else 1)
    copies = sum(bool(file.pages[i].aspage().subfiletype & _REDUCED) for i in range(1, count))
    refuse_pages(count - copies)
    return ["the small copy of the picture behind it"] if copies else []


def _refuse_larger_pictures(page: tifffile.TiffPage) -> None:
    assert page.subifds is not None
    if len(page.subifds) > _MOST_PAGES:
        refuse_pages(len(page.subifds))
    for below in page.pages or ():
        picture = below.aspage()
        if picture.imagewidth * picture.imagelength > page.imagewidth * page.imagelength:
            raise UnreadablePhotoError(
                f"its photo of {picture.imagewidth}x{picture.imagelength} pixels is below a "
                "smaller picture, as in raw files; develop or store it alone first"
            )


def _check_kind(page: tifffile.TiffPage) -> None:
    """Raise UnreadablePhotoError for other colours than RGB or grey, and for other shapes."""
    colours = PHOTOMETRIC(page.photometric)
    jpeg_ycbcr = colours == PHOTOMETRIC.YCBCR and page.compression == COMPRESSION.JPEG
    if not (jpeg_ycbcr or colours in (*_GREYS, PHOTOMETRIC.RGB, PHOTOMETRIC.PALETTE)):
        raise UnreadablePhotoError(
            f"its colours are {colours.name}, not RGB or grey; convert it first"
        )
    least = 1 if colours in (*_GREYS, PHOTOMETRIC.PALETTE) else 3
    most = 1 if colours == PHOTOMETRIC.PALETTE else _MOST_SAMPLES
    if not least <= page.samplesperpixel <= most or page.imagedepth > 1:
        raise UnreadablePhotoError(
            f"its shape is {page.shape} for colours of the kind {colours.name}; convert it first"
        )


def _check_segments(page: tifffile.TiffPage, content: bytes) -> None:
    """Raise UnreadablePhotoError for missing pixels, and for strips or tiles far beyond the photo.

    tifffile would fill in the missing end of a compressed strip, and a small file can claim a huge
    tile.
    """
    segments = [
        (start, start + count)
        for start, count in zip(page.dataoffsets, page.databytecounts, strict=True)
    ]
    if not segments or max(end for _, end in segments) > len(content):
        raise UnreadablePhotoError("it is damaged (the file ends before its pixels)")
    most = max(_LEAST_SEGMENT, 4 * page.imagewidth * page.imagelength)
    claimed = [page.tilewidth * page.tilelength] if page.is_tiled else []
    compression = COMPRESSION(page.compression)
    if compression not in _SIZED_BY_TAGS:
        for start, end in segments:
            width, height = _own_size(compression, content[start:end])
            claimed.append(width * height)
    if claimed and max(claimed) > most:
        raise UnreadablePhotoError(
            f"it is damaged (a part of its pixels claims {max(claimed) / 1e6:.0f} megapixels)"
        )


def _own_size(compression: COMPRESSION, data: bytes) -> tuple[int, int]:
    """Width and height by the header of a strip or tile that is a picture of its own."""
    if compression == COMPRESSION.JPEG:
        return frame_size(data)
    if compression not in _SELF_SIZED:
        raise UnreadablePhotoError(
            f"its pixels are compressed as {compression.name}; store it with LZW, Deflate or "
            "without compression"
        )
    with Image.open(io.BytesIO(data), formats=[_SELF_SIZED[compression]]) as image:
        return image.size
