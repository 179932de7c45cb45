"""The orientation of a photo. CIPA DC-008, section 4.6.4; Adobe XMP Specification, part 2."""

import re
import struct

_ORIENTATION = 274
_INTEGERS = {1: "B", 3: "H", 4: "I"}


def read_orientation(exif: bytes | None, xmp: bytes | None) -> int:
    """Orientation of EXIF, or of XMP if EXIF has none; 1 if both are damaged or absent."""
    found = _of_block(exif) if exif else None
    if found is None and xmp:
        match = re.search(rb"tiff:Orientation(?:=[\"']|>)([0-9])", xmp)
        found = int(match[1]) if match else None
    return 1 if found is None else found


def _of_block(block: bytes) -> int | None:
    order = {b"II": "<", b"MM": ">"}.get(block[:2])
    if order is None:
        return None
    try:
        (start,) = struct.unpack_from(f"{order}I", block, 4)
        (count,) = struct.unpack_from(f"{order}H", block, start)
        for entry in range(start + 2, start + 2 + 12 * count, 12):
            number, kind, values = struct.unpack_from(f"{order}HHI", block, entry)
            if number == _ORIENTATION:
                layout = _INTEGERS.get(kind) if values == 1 else None
                return (
                    int(struct.unpack_from(f"{order}{layout}", block, entry + 8)[0])
                    if layout
                    else None
                )
    except struct.error:
        return None
    return None
