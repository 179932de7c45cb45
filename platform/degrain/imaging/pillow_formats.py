"""Read JPEG, BMP and WebP files with Pillow, which refuses truncated ones.

Metadata is read apart: Pillow parses EXIF of any size when it opens a file.
"""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from degrain.imaging import bmp_header, jpeg_segments
from degrain.imaging.colour_spaces import D65, Chromaticities, profile_from_colorimetry
from degrain.imaging.exif import is_adobe_rgb, read_orientation
from degrain.imaging.limits import FileType
from degrain.imaging.stored_photo import (
    StoredPhoto,
    UnreadablePhotoError,
    check_size,
    refuse_pages,
    split_alpha,
)
from degrain.imaging.webp_chunks import is_webp, webp_chunks, webp_size

_FILE_TYPES: dict[str | None, FileType] = {"JPEG": "jpeg", "BMP": "bmp", "WEBP": "webp"}
_FORMATS = ("JPEG", "BMP", "WEBP")
"""The only formats that Pillow may open: some others run external programs."""
_JPEG_START = b"\xff\xd8"
_EIGHT_BIT_MODES = frozenset({"RGB", "L", "P", "1", "RGBA", "LA", "PA"})
_ADOBE_RGB_PRIMARIES: Chromaticities = (0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
_ADOBE_RGB_GAMMA = 563 / 256
"""Adobe RGB (1998) Color Image Encoding, sections 4.3.1 and 4.3.4."""
_MOST_SCANS = 100
"""Progressive JPEGs have about ten; each takes time for the whole photo, and few bytes."""


def size_with_pillow(content: bytes) -> tuple[int, int]:
    """Width and height by the header. Raises the errors of Pillow for damaged files."""
    if is_webp(content):
        return webp_size(content)
    with Image.open(io.BytesIO(_pixels_of(content)), formats=_FORMATS) as image:
        return image.size


def read_with_pillow(content: bytes, largest_megapixels: float) -> StoredPhoto:
    """Read a JPEG, BMP or WebP file.

    Raises UnreadablePhotoError, and for damaged files the errors of Pillow.
    """
    if is_webp(content):
        # Pillow takes memory for the canvas when it opens a file.
        check_size(*webp_size(content), largest_megapixels)
    with _open(content) as image:
        check_size(image.width, image.height, largest_megapixels)
        if image.format == "JPEG" and jpeg_segments.lacks_pixels(content):
            raise UnreadablePhotoError("it is damaged (the file is too short for its size)")
        refuse_pages(getattr(image, "n_frames", 1))
        file_type = _FILE_TYPES[image.format]
        profile, orientation, changes = _described(content, file_type)
        if image.mode in ("P", "PA"):
            changes.append("palette colours became RGB")
        pixels = _read_pixels(image)
    return StoredPhoto(
        *split_alpha(pixels),
        profile=profile,
        orientation=orientation,
        file_type=file_type,
        changes=tuple(changes),
    )


def _open(content: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(_pixels_of(content)), formats=_FORMATS)
    except UnidentifiedImageError:
        raise UnreadablePhotoError(
            "it is not a photo in a known format, or damaged at its start; convert it to JPEG, "
            "PNG, TIFF, WebP or BMP"
        ) from None


def _pixels_of(content: bytes) -> bytes:
    """What Pillow reads of a file."""
    if not content.startswith(_JPEG_START):
        return content
    _, scans = jpeg_segments.end_of_picture(content)
    if scans > _MOST_SCANS:
        raise UnreadablePhotoError(f"it has {scans} scans of its pixels; save it anew")
    return jpeg_segments.without_metadata(content)


def _described(content: bytes, file_type: FileType) -> tuple[bytes | None, int, list[str]]:
    """Profile, orientation, and what of the profile is not interpreted."""
    if file_type == "jpeg":
        profile, complete = jpeg_segments.read_profile(content)
        exif = jpeg_segments.read_exif(content)
        orientation = read_orientation(exif, jpeg_segments.read_xmp(content))
        if profile is None and complete and is_adobe_rgb(exif):
            profile = profile_from_colorimetry(D65, _ADOBE_RGB_PRIMARIES, _ADOBE_RGB_GAMMA)
        return profile, orientation, [] if complete else ["its colour profile lacks parts: ignored"]
    if file_type == "webp":
        found = dict(webp_chunks(content))
        exif = found.get(b"EXIF", b"").removeprefix(jpeg_segments.EXIF_HEADER)
        return found.get(b"ICCP"), read_orientation(exif, found.get(b"XMP ")), []
    bmp_header.check_alpha(content)
    return bmp_header.read_profile(content), 1, []


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
