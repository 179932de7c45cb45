"""The marker segments of a JPEG file: read before the pixels, and inserted into another JPEG.

A segment is kept with its bytes, so that EXIF with maker notes, XMP, IPTC and profiles are the same
in the copy. JPEG: ITU-T T.81, annex B; EXIF: CIPA DC-008; XMP: Adobe XMP Specification, part 3.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from degrain.imaging.limits import MOST_SEGMENTS
from degrain.imaging.stored_photo import UnreadablePhotoError

EXIF_HEADER = b"Exif\0\0"
XMP_HEADER = b"http://ns.adobe.com/xap/1.0/\0"
PHOTOSHOP_HEADER = b"Photoshop 3.0\0"
PROFILE_HEADER = b"ICC_PROFILE\0"
_APP0, _APP1, _APP2, _APP13, _APP14, _APP15, _COM = 0xE0, 0xE1, 0xE2, 0xED, 0xEE, 0xEF, 0xFE
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Markers of frame headers; the three others define tables."""
_HUFFMAN_FRAMES = (0xC0, 0xC1, 0xC2)
_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")
"""A marker among coded pixels, where FF 00 is a value and D0 to D7 restart the coding."""
_LARGEST = 65533
"""Bytes in a segment's body: its length takes two bytes and counts itself."""


@dataclass(frozen=True)
class Segment:
    """A marker and its body."""

    marker: int
    body: bytes

    @property
    def is_metadata(self) -> bool:
        """Whether it describes the photo, not how its pixels are coded."""
        return self.marker == _COM or _APP0 <= self.marker <= _APP15

    def __bytes__(self) -> bytes:
        return bytes([0xFF, self.marker]) + (len(self.body) + 2).to_bytes(2) + self.body


def segments(jpeg: bytes) -> Iterator[Segment]:
    """Yield the segments before the pixels; ends at the first damaged one.

    Raises UnreadablePhotoError for more than `MOST_SEGMENTS`.
    """
    for start, end in _places(jpeg):
        yield Segment(jpeg[start + 1], jpeg[start + 4 : end])


def _places(jpeg: bytes) -> Iterator[tuple[int, int]]:
    """Start and end of each segment before the pixels."""
    position, count = 2, 0
    while position + 4 <= len(jpeg) and jpeg[position] == 0xFF:
        marker = jpeg[position + 1]
        if marker == 0xFF:  # padding
            position += 1
            continue
        if marker == _START_OF_SCAN:
            return
        length = int.from_bytes(jpeg[position + 2 : position + 4])
        end = position + 2 + max(length, 2)
        yield position, end
        position, count = end, count + 1
        if count > MOST_SEGMENTS:
            raise UnreadablePhotoError(
                f"it has more than {MOST_SEGMENTS} segments before its pixels; save it anew"
            )


def frame_size(jpeg: bytes) -> tuple[int, int]:
    """Width and height by the frame header; 0 without one. ITU-T T.81, section B.2.2."""
    for segment in segments(jpeg):
        if segment.marker in _FRAMES and len(segment.body) >= 5:
            return int.from_bytes(segment.body[3:5]), int.from_bytes(segment.body[1:3])
    return 0, 0


def without_metadata(jpeg: bytes) -> bytes:
    """The file without segments of metadata, but for those that tell how colours are coded."""
    parts, rest = [jpeg[:2]], 2
    for start, end in _places(jpeg):
        if not Segment(jpeg[start + 1], b"").is_metadata or jpeg[start + 1] in (_APP0, _APP14):
            parts.append(jpeg[start:end])
        rest = end
    return b"".join([*parts, jpeg[rest:]])


def lacks_pixels(jpeg: bytes) -> bool:
    """Whether a file is too short for its size: libjpeg fills in what is missing.

    Each block of 8x8 pixels takes one bit at least in Huffman coding.
    """
    frame = next((s for s in segments(jpeg) if s.marker in _HUFFMAN_FRAMES), None)
    if frame is None or len(frame.body) < 5:
        return False
    height, width = int.from_bytes(frame.body[1:3]), int.from_bytes(frame.body[3:5])
    return len(jpeg) * 8 < (height // 8) * (width // 8)


def end_of_picture(jpeg: bytes) -> tuple[int, int]:
    """Where the picture ends, behind its last marker, and its number of scans."""
    position, scans = max((end for _, end in _places(jpeg)), default=2), 0
    while (found := _MARKER.search(jpeg, position)) is not None:
        marker = found[1][0]
        if marker == _END_OF_IMAGE:
            return found.end(), scans
        scans += marker == _START_OF_SCAN
        position = found.end() + int.from_bytes(jpeg[found.end() : found.end() + 2])
    return len(jpeg), scans


def new_segments(
    *, exif: bytes | None, xmp: bytes | None, photoshop: bytes | None, profile: bytes | None
) -> tuple[list[Segment], list[str]]:
    """Segments of metadata from another file type, and what is too long for a segment."""
    kept: list[Segment] = []
    dropped: list[str] = []
    for name, marker, header, content in (
        ("EXIF", _APP1, EXIF_HEADER, exif),
        ("XMP", _APP1, XMP_HEADER, xmp),
        ("IPTC", _APP13, PHOTOSHOP_HEADER, photoshop),
    ):
        if content and len(header) + len(content) > _LARGEST:
            dropped.append(f"{name}, {len(content)} bytes, of which a JPEG holds {_LARGEST}")
        elif content:
            kept.append(Segment(marker, header + content))
    return kept + _profile_segments(profile or b""), dropped


def _profile_segments(profile: bytes) -> list[Segment]:
    """A profile in numbered parts. ICC.1:2022, annex B.4."""
    size = _LARGEST - len(PROFILE_HEADER) - 2
    parts = [profile[start : start + size] for start in range(0, len(profile), size)]
    return [
        Segment(_APP2, PROFILE_HEADER + bytes([number, len(parts)]) + part)
        for number, part in enumerate(parts, 1)
    ]


def with_segments(jpeg: bytes, inserted: Sequence[Segment], *, keep_jfif: bool) -> bytes:
    """A JPEG with `inserted` at its start, in place of its own JFIF header unless it is kept."""
    own = next(segments(jpeg), None)
    start = 2
    if own is not None and own.marker == _APP0:
        end = 2 + len(bytes(own))
        if keep_jfif:
            inserted = [own, *inserted]
        start = end
    return b"".join([jpeg[:2], *map(bytes, inserted), jpeg[start:]])


def body_after(found: Iterable[Segment], header: bytes) -> bytes | None:
    """The body behind `header` of the first segment APP1 with it."""
    return next(
        (s.body[len(header) :] for s in found if s.marker == _APP1 and s.body.startswith(header)),
        None,
    )


def read_exif(jpeg: bytes) -> bytes | None:
    """The TIFF block of EXIF."""
    return body_after(segments(jpeg), EXIF_HEADER)


def read_xmp(jpeg: bytes) -> bytes | None:
    """The main XMP packet; its extension, for packets above 64 KiB, is not part of it."""
    return body_after(segments(jpeg), XMP_HEADER)


def read_profile(jpeg: bytes) -> tuple[bytes | None, bool]:
    """The ICC profile from its numbered parts, and whether all of them are there."""
    parts: dict[int, bytes] = {}
    count = 0
    for segment in segments(jpeg):
        body = segment.body.removeprefix(PROFILE_HEADER)
        if segment.marker == _APP2 and len(body) < len(segment.body) and len(body) > 2:
            parts.setdefault(body[0], body[2:])
            count = body[1]
    complete = sorted(parts) == list(range(1, count + 1))
    joined = b"".join(parts[number] for number in sorted(parts))
    return (joined or None) if complete else None, complete


def read_photoshop(jpeg: bytes) -> bytes | None:
    """Photoshop's image resources, which hold IPTC."""
    parts = [
        s.body[len(PHOTOSHOP_HEADER) :]
        for s in segments(jpeg)
        if s.marker == _APP13 and s.body.startswith(PHOTOSHOP_HEADER)
    ]
    return b"".join(parts) or None
