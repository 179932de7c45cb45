"""The resolution of a photo, in pixels per metre across and down, in the forms of each file type.

JFIF 1.02; PNG Specification, third edition, section 11.3.4.3; TIFF 6.0, section 8.
"""

import struct
from collections.abc import Iterable
from fractions import Fraction
from typing import TypeAlias

from degrain.imaging import tiff_tags
from degrain.imaging.jpeg_segments import Segment
from degrain.imaging.png_chunks import Chunk

Resolution: TypeAlias = tuple[float, float]

_INCH = 0.0254
_JFIF = b"JFIF\0"
_X, _Y, _UNIT = 282, 283, 296
_RATIONAL, _SHORT = 5, 3
_TIFF_INCH, _TIFF_CENTIMETRE = 2, 3


def of_jpeg(segments: Iterable[Segment]) -> Resolution | None:
    """The density of JFIF."""
    for segment in segments:
        if segment.marker == 0xE0 and segment.body.startswith(_JFIF) and len(segment.body) >= 12:
            unit, across, down = struct.unpack_from(">BHH", segment.body, 7)
            scale = {1: 1 / _INCH, 2: 100}.get(unit)
            return (across * scale, down * scale) if scale and across and down else None
    return None


def of_png(chunks: Iterable[Chunk]) -> Resolution | None:
    """The chunk pHYs."""
    for chunk in chunks:
        if chunk.name == b"pHYs" and chunk.intact and len(chunk.body) == 9:
            across, down, unit = struct.unpack(">IIB", chunk.body)
            return (across, down) if unit == 1 and across and down else None
    return None


def of_tags(order: tiff_tags.ByteOrder, folder: tiff_tags.TagFolder) -> Resolution | None:
    """The tags of a TIFF block."""
    sides: list[float] = []
    for number in (_X, _Y):
        tag = folder.tags.get(number)
        if tag is None or tag.type != _RATIONAL or tag.count != 1:
            return None
        above, below = struct.unpack(f"{order}II", tag.value)
        sides.append(above / below if below else 0)
    unit = folder.tags.get(_UNIT)
    number = _TIFF_INCH
    if unit is not None and unit.type == _SHORT and unit.count == 1:
        (number,) = struct.unpack(f"{order}H", unit.value)
    scale = {_TIFF_INCH: 1 / _INCH, _TIFF_CENTIMETRE: 100}.get(number)
    return (sides[0] * scale, sides[1] * scale) if scale and min(sides) > 0 else None


def as_tags(order: tiff_tags.ByteOrder, resolution: Resolution) -> dict[int, tiff_tags.Tag]:
    """Tags of a TIFF block, per inch."""
    tags = {_UNIT: tiff_tags.integers(order, _SHORT, [_TIFF_INCH])}
    for number, side in zip((_X, _Y), resolution, strict=True):
        # At most 32 bits for each number.
        inch = Fraction(side * _INCH).limit_denominator(10_000 if side < 10**6 else 1)
        value = struct.pack(f"{order}II", inch.numerator, inch.denominator)
        tags[number] = tiff_tags.Tag(_RATIONAL, 1, value)
    return tags


def in_exif(exif: bytes | None, resolution: Resolution) -> bytes | None:
    """EXIF with this resolution, if it has none itself; None if there is other EXIF without it."""
    if exif is None:
        return tiff_tags.write_tags("<", tiff_tags.TagFolder(as_tags("<", resolution))).block
    try:
        stated = of_tags(tiff_tags.byte_order(exif), tiff_tags.read_tags(exif))
    except tiff_tags.DamagedTagsError:
        return None
    return exif if stated else None


def as_chunk(resolution: Resolution) -> Chunk:
    """The chunk pHYs."""
    across, down = (min(round(side), 2**31 - 1) for side in resolution)
    return Chunk(b"pHYs", struct.pack(">IIB", across, down, 1))


def as_dots_per_inch(resolution: Resolution) -> tuple[int, int] | None:
    """The numbers of JFIF; None for those that it cannot hold."""
    across, down = (round(side * _INCH) for side in resolution)
    return (across, down) if 0 < across < 2**16 and 0 < down < 2**16 else None
