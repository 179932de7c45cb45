"""Orientation, colour space, camera and ISO of a photo in EXIF. CIPA DC-008 and DC-010; Adobe XMP
Specification.

Single tags are looked up, and the rest is not parsed: tags of one address can claim any amount of
memory.
"""

import re
import struct

_ORIENTATION, _EXIF_FOLDER, _COLOUR_SPACE, _INTEROPERABILITY_FOLDER = 274, 34665, 40961, 40965
_INTEROPERABILITY_INDEX = 1
_INTEGERS = {1: "B", 3: "H", 4: "I"}
_MODEL, _TEXT = 272, 2
_ISO = (34855, 34867, 34866, 34865)
"""Where the ISO is; the first is 65535 for larger ones, which one of the others has."""
_LARGEST_ISO = 65534
_LONGEST_MODEL = 100
_ADOBE_RGB, _UNCALIBRATED = 2, 65535
_ADOBE_RGB_INDEX = b"R03\0"


def read_orientation(exif: bytes | None, xmp: bytes | None) -> int:
    """Orientation of EXIF, or of XMP if EXIF has none; 1 if both are damaged or absent."""
    found = _integer(exif, _find(exif, _first_folder(exif), _ORIENTATION)) if exif else None
    if found is None and xmp:
        match = re.search(rb"tiff:Orientation(?:=[\"']|>)([0-9])", xmp)
        found = int(match[1]) if match else None
    return 1 if found is None else found


def is_adobe_rgb(exif: bytes | None) -> bool:
    """Whether a camera states Adobe RGB, the optional colour space of DCF, as most do: without a
    profile.
    """
    if not exif:
        return False
    folder = _integer(exif, _find(exif, _first_folder(exif), _EXIF_FOLDER))
    space = _integer(exif, _find(exif, folder, _COLOUR_SPACE))
    below = _integer(exif, _find(exif, folder, _INTEROPERABILITY_FOLDER))
    entry = _find(exif, below, _INTEROPERABILITY_INDEX)
    index = None if entry is None else exif[entry + 8 : entry + 12]
    return space == _ADOBE_RGB or (space == _UNCALIBRATED and index == _ADOBE_RGB_INDEX)


def read_camera(exif: bytes | None) -> tuple[str | None, int | None]:
    """Model of the camera, and ISO; None for what is damaged or absent."""
    if not exif:
        return None, None
    first = _first_folder(exif)
    folder = _integer(exif, _find(exif, first, _EXIF_FOLDER))
    short, *long = (_integer(exif, _find(exif, folder, number)) for number in _ISO)
    isos = [short if short is not None and short <= _LARGEST_ISO else None, *long]
    return _text(exif, _find(exif, first, _MODEL)), next(filter(None, isos), None)


def _order(block: bytes) -> str:
    return ">" if block[:2] == b"MM" else "<"


def _first_folder(block: bytes) -> int | None:
    if block[:2] not in (b"II", b"MM") or len(block) < 8:
        return None
    return int(struct.unpack_from(f"{_order(block)}I", block, 4)[0])


def _find(block: bytes, folder: int | None, number: int) -> int | None:
    """Where the entry of a tag begins in the folder at an address."""
    if folder is None or folder + 2 > len(block):
        return None
    (count,) = struct.unpack_from(f"{_order(block)}H", block, folder)
    for entry in range(folder + 2, min(folder + 2 + 12 * count, len(block) - 11), 12):
        if struct.unpack_from(f"{_order(block)}H", block, entry)[0] == number:
            return entry
    return None


def _integer(block: bytes, entry: int | None) -> int | None:
    """The value of an entry with a single integer."""
    if entry is None:
        return None
    kind, count = struct.unpack_from(f"{_order(block)}HI", block, entry + 2)
    if kind not in _INTEGERS or count != 1:
        return None
    return int(struct.unpack_from(f"{_order(block)}{_INTEGERS[kind]}", block, entry + 8)[0])


def _text(block: bytes, entry: int | None) -> str | None:
    """The value of an entry with a short text, on one line."""
    if entry is None:
        return None
    kind, count, address = struct.unpack_from(f"{_order(block)}HII", block, entry + 2)
    if kind != _TEXT:
        return None
    start = entry + 8 if count <= 4 else address
    value = block[start : start + min(count, _LONGEST_MODEL)].partition(b"\0")[0]
    words = value.decode(errors="replace").split()
    return "".join(c for c in " ".join(words) if c.isprintable()) or None
