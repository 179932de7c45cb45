"""Encode photos as files of each type, with the metadata of the file that they were read from.

A file of the same type gets the metadata byte for byte; another type gets what it can hold.
`choose_writer` reads the metadata, so that the source file is no longer needed afterwards.
"""

import io
from dataclasses import dataclass, replace
from typing import Any, Protocol

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from degrain.imaging import (
    bmp_header,
    jpeg_extras,
    jpeg_segments,
    png_chunks,
    resolution,
    tiff_tags,
)
from degrain.imaging.jpeg_segments import Segment
from degrain.imaging.limits import FileType
from degrain.imaging.metadata import Metadata, read_metadata
from degrain.imaging.pixels import Photo, Plane, eight_bits, peak
from degrain.imaging.png_chunks import Chunk
from degrain.imaging.resolution import Resolution
from degrain.imaging.stored_photo import StoredPhoto, UnreadablePhotoError, first_line
from degrain.imaging.tiff_tags import TagFolder, integers
from degrain.imaging.tiff_writer import tiff_writer
from degrain.imaging.webp_chunks import held_by_webp_alone, webp_chunks

MEDIA_TYPES: dict[FileType, str] = {
    "jpeg": "image/jpeg",
    "png": "image/png",
    "tiff": "image/tiff",
    "webp": "image/webp",
    "bmp": "image/bmp",
}
_EIGHT_BIT_TYPES = ("bmp", "jpeg", "webp")
_PNG_LEVEL = 1
"""Higher levels take up to six times as long for photos, and save 3% of the bytes."""
_FASTEST_LOSSLESS = 0
"""Effort of lossless WebP."""
_LARGEST_WEBP, _LARGEST_JPEG = 16383, 65535
"""Pixels of a side."""
_RESOLUTION, _GREY_PROFILE = "the resolution", "the profile for grey"


class PhotoWriter(Protocol):
    """Encodes pixels as a file."""

    def encode(self, colours: Photo, alpha: Plane | None) -> bytes:
        """Encode (H, W, 1) or (H, W, 3) of 8 or 16 bits, and opacity."""
        ...


def choose_writer(
    stored: StoredPhoto, content: bytes, file_type: FileType, quality: int
) -> tuple[PhotoWriter, list[str]]:
    """The writer of a photo that was read from `content`, and what its file will lack.

    Raises UnreadablePhotoError if the type cannot hold the photo.
    """
    _check_type(stored, file_type)
    notes = list(stored.changes)
    if file_type in _EIGHT_BIT_TYPES and stored.colours.dtype == np.uint16:
        notes.append(f"16 bits became 8, because {file_type.upper()} holds no more")
    same = stored.file_type == file_type
    metadata = read_metadata(content, stored.file_type, stored.profile)
    writer, dropped = _WRITERS[file_type](stored, content, metadata, quality)
    if not same:
        dropped += metadata.other
    if stored.selections is not None and file_type != "tiff":
        dropped.append("channels that are neither colours nor opacity")
    return writer, list(dict.fromkeys([*notes, *(f"dropped: {name}" for name in dropped)]))


def _check_type(stored: StoredPhoto, file_type: FileType) -> None:
    height, width = stored.colours.shape[:2]
    largest = {"webp": _LARGEST_WEBP, "jpeg": _LARGEST_JPEG}.get(file_type)
    if largest is not None and max(height, width) > largest:
        raise UnreadablePhotoError(
            f"its size is {width}x{height} pixels, and {file_type.upper()} holds at most {largest} "
            "a side; choose another `format`"
        )
    alpha = stored.alpha
    if file_type == "jpeg" and alpha is not None and alpha.min() != peak(alpha):
        raise UnreadablePhotoError(
            "it is transparent in places, which a JPEG cannot hold; choose another `format`"
        )


@dataclass(frozen=True)
class JpegWriter:
    """JPEG without chroma subsampling."""

    segments: list[Segment]
    keep_jfif: bool
    quality: int
    dots_per_inch: tuple[int, int] | None = None

    def encode(self, colours: Photo, alpha: Plane | None) -> bytes:  # noqa: ARG002
        """Encode 8 bits; alpha is opaque, and is left out."""
        image = Image.fromarray(_squeezed(eight_bits(colours)))
        density = {"dpi": self.dots_per_inch} if self.dots_per_inch else {}
        file = _save(image, "JPEG", quality=self.quality, subsampling=0, **density)
        return jpeg_segments.with_segments(file, self.segments, keep_jfif=self.keep_jfif)


def _jpeg_writer(
    stored: StoredPhoto, content: bytes, metadata: Metadata, quality: int
) -> tuple[PhotoWriter, list[str]]:
    if stored.file_type == "jpeg":
        kept, dropped = jpeg_extras.copied_segments(content)
        return JpegWriter(kept, keep_jfif=False, quality=quality), dropped
    kept, dropped = jpeg_segments.new_segments(
        exif=metadata.exif,
        xmp=metadata.xmp,
        photoshop=metadata.photoshop,
        profile=metadata.profile,
    )
    has_exif = any(segment.body.startswith(jpeg_segments.EXIF_HEADER) for segment in kept)
    if stored.orientation in range(2, 9) and not has_exif:
        exif = jpeg_segments.EXIF_HEADER + _orientation_block(stored.orientation)
        kept.append(Segment(0xE1, exif))
    density = resolution.as_dots_per_inch(metadata.resolution) if metadata.resolution else None
    if metadata.resolution and density is None:
        dropped.append(_RESOLUTION)
    return JpegWriter(kept, keep_jfif=True, quality=quality, dots_per_inch=density), dropped


def _orientation_block(orientation: int) -> bytes:
    tags = TagFolder({tiff_tags.ORIENTATION: integers("<", 3, [orientation])})
    return tiff_tags.write_tags("<", tags).block


@dataclass(frozen=True)
class PngWriter:
    """PNG with 8 or 16 bits."""

    chunks: list[Chunk]

    def encode(self, colours: Photo, alpha: Plane | None) -> bytes:
        """Encode colours, or grey, with or without alpha."""
        return png_chunks.with_chunks(encode_png_pixels(_with_alpha(colours, alpha)), self.chunks)


def encode_png_pixels(pixels: NDArray[Any]) -> bytes:
    """Encode (H, W) or (H, W, 1..4) of 8 or 16 bits as PNG."""
    # A copy, because imagecodecs refuses the strides of some views of a single pixel.
    squeezed = _squeezed(pixels)
    single = squeezed.shape[0] == 1 or squeezed.shape[1] == 1
    return bytes(imagecodecs.png_encode(squeezed.copy() if single else squeezed, level=_PNG_LEVEL))


def _png_writer(
    stored: StoredPhoto, content: bytes, metadata: Metadata, _quality: int
) -> tuple[PhotoWriter, list[str]]:
    if stored.file_type == "png":
        kept, dropped = png_chunks.copied_chunks(content)
        return PngWriter(kept), dropped
    made = png_chunks.new_chunks(
        exif=metadata.exif,
        xmp=metadata.xmp,
        photoshop=metadata.photoshop,
        profile=metadata.profile,
    )
    if metadata.resolution:
        made.append(resolution.as_chunk(metadata.resolution))
    return PngWriter(made), []


@dataclass(frozen=True)
class WebpWriter:
    """WebP, lossless or not; grey becomes RGB."""

    metadata: Metadata
    lossless: bool
    quality: int

    def encode(self, colours: Photo, alpha: Plane | None) -> bytes:
        """Encode 8 bits; transparent pixels keep their colours."""
        rgb = np.broadcast_to(eight_bits(colours), (*colours.shape[:2], 3))
        opacity = None if alpha is None else eight_bits(alpha)
        image = Image.fromarray(np.ascontiguousarray(_with_alpha(rgb, opacity)))
        return _save(
            image,
            "WEBP",
            lossless=self.lossless,
            quality=_FASTEST_LOSSLESS if self.lossless else self.quality,
            method=0 if self.lossless else 4,
            exact=True,
            icc_profile=self.metadata.profile,
            exif=self.metadata.exif or b"",
            xmp=self.metadata.xmp or b"",
        )


def _webp_writer(
    stored: StoredPhoto, content: bytes, metadata: Metadata, quality: int
) -> tuple[PhotoWriter, list[str]]:
    if stored.file_type == "webp":
        lossless = any(name == b"VP8L" for name, _ in webp_chunks(content))
        dropped = held_by_webp_alone(content)
    else:
        lossless = stored.file_type != "jpeg"
        dropped = ["IPTC"] if metadata.photoshop else []
        if metadata.resolution:
            exif = resolution.in_exif(metadata.exif, metadata.resolution)
            dropped += [] if exif else [_RESOLUTION]
            metadata = replace(metadata, exif=exif or metadata.exif)
    if stored.colours.shape[2] == 1 and metadata.profile:
        dropped.append(_GREY_PROFILE)
        metadata = metadata.without_profile()
    return WebpWriter(metadata, lossless, quality), dropped


@dataclass(frozen=True)
class BmpWriter:
    """BMP with 8 bits."""

    resolution: Resolution | None = None
    profile: bytes | None = None

    def encode(self, colours: Photo, alpha: Plane | None) -> bytes:
        """Encode colours or grey; with alpha 32 bits a pixel."""
        if alpha is None and self.profile is None:
            file = _save(Image.fromarray(_squeezed(eight_bits(colours))), "BMP")
            return bmp_header.with_resolution(file, self.resolution)
        rgb = np.broadcast_to(eight_bits(colours), (*colours.shape[:2], 3))
        return bmp_header.encode(_with_alpha(rgb, alpha), self.resolution, self.profile)


def _bmp_writer(
    stored: StoredPhoto, content: bytes, metadata: Metadata, _quality: int
) -> tuple[PhotoWriter, list[str]]:
    dropped = bmp_header.lost_colours(content)
    if stored.colours.shape[2] == 1 and metadata.profile:
        dropped.append(_GREY_PROFILE)
        metadata = metadata.without_profile()
    return BmpWriter(metadata.resolution, metadata.profile), dropped


_WRITERS = {
    "bmp": _bmp_writer,
    "jpeg": _jpeg_writer,
    "png": _png_writer,
    "tiff": tiff_writer,
    "webp": _webp_writer,
}


def _squeezed(pixels: NDArray[Any]) -> NDArray[Any]:
    """(H, W, 1) -> (H, W); other shapes as they are."""
    return pixels[:, :, 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels


def _with_alpha(colours: Photo, alpha: Plane | None) -> NDArray[Any]:
    """(H, W, C), and C + 1 with alpha."""
    return colours if alpha is None else np.dstack([colours, alpha])


def _save(image: Image.Image, file_type: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    try:
        image.save(buffer, format=file_type, **options)
    except (OSError, ValueError) as error:
        raise UnreadablePhotoError(
            f"it cannot be written as {file_type}: {first_line(error)}"
        ) from None
    return buffer.getvalue()
