"""Read PNG files with imagecodecs, which decodes all their kinds."""

from collections.abc import Iterator

import imagecodecs

from degrain.imaging import png_chunks
from degrain.imaging.exif import read_orientation
from degrain.imaging.png_colours import stated_profile
from degrain.imaging.stored_photo import (
    StoredPhoto,
    UnreadablePhotoError,
    check_size,
    refuse_pages,
    split_alpha,
)

_HEADER_BYTES = 33
_PALETTE = 3


def is_png(content: bytes) -> bool:
    """Whether a file starts as a PNG."""
    return content.startswith(png_chunks.SIGNATURE)


def is_deep_png(content: bytes) -> bool:
    """Whether a PNG has 16 bits per channel by its header; False for a damaged one."""
    return len(content) >= _HEADER_BYTES and content[24] == 16


def png_size(content: bytes) -> tuple[int, int]:
    """Width and height by the header; 0 for a damaged file."""
    if len(content) < _HEADER_BYTES:
        return 0, 0
    return int.from_bytes(content[16:20]), int.from_bytes(content[20:24])


def read_png(content: bytes, largest_megapixels: float) -> StoredPhoto:
    """Read a PNG. Raises UnreadablePhotoError, and the errors of imagecodecs for damaged files."""
    header = next(png_chunks.chunks(content), None)
    if header is None or header.name != b"IHDR" or not header.intact or len(header.body) != 13:
        raise UnreadablePhotoError("it is damaged (in its header)")
    check_size(*png_size(content), largest_megapixels)
    refuse_pages(png_chunks.count_frames(content))
    bits, colour_type = content[24], content[25]
    profile, uninterpreted = stated_profile(content)
    orientation = read_orientation(png_chunks.read_exif(content), png_chunks.read_xmp(content))
    return StoredPhoto(
        *split_alpha(imagecodecs.png_decode(content)),
        profile=profile,
        orientation=orientation,
        file_type="png",
        changes=(*_changes(bits, colour_type), *uninterpreted),
    )


def _changes(bits: int, colour_type: int) -> Iterator[str]:
    """What reading does to the stored values."""
    if colour_type == _PALETTE:
        yield "palette colours became RGB"
    elif bits < 8:
        yield f"{bits} bits became 8"
