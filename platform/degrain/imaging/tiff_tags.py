"""The tags of a TIFF block: of a TIFF file, or of EXIF in a file of any type.

A block is read into a tree with the bytes of each value, and written again at new addresses. Maker
notes hold addresses of their own in a form that only their camera's maker knows, so a writer puts
them at the address that they had. TIFF 6.0 (Adobe 1992), section 2; BigTIFF; CIPA DC-008, section
4.6.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

ByteOrder: TypeAlias = Literal["<", ">"]
"""Little endian and big endian, as in `struct`."""
Strip: TypeAlias = bytes | memoryview
"""Bytes, or those of an array, which large photos have no memory to copy."""
ORIENTATION, XMP, IPTC, PHOTOSHOP, PROFILE = 274, 700, 33723, 34377, 34675
_EXIF_FOLDER, _GPS_FOLDER, _INTEROPERABILITY_FOLDER, _MAKER_NOTE = 34665, 34853, 40965, 37500
_FOLDERS = frozenset({_EXIF_FOLDER, _GPS_FOLDER, _INTEROPERABILITY_FOLDER})
_SIZES = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    13: 4,
    16: 8,
    17: 8,
    18: 8,
}
"""Bytes of one value by type; the last three are of BigTIFF alone."""
_LONG, _SLONG, _IFD, _LONG8, _SLONG8, _IFD8 = 4, 9, 13, 16, 17, 18
_INTEGERS = {_LONG: "I", _SLONG: "i", _IFD: "I", _LONG8: "Q", _SLONG8: "q", _IFD8: "Q"}
_SLACK = 4096
"""Bytes of overlapping values that any block may have: some programs share equal ones."""
_STRIP_ADDRESSES = 273
_DEEPEST = 4
_LARGEST_GAP = 2**16
"""Bytes of EXIF before a maker note that may stay unused; EXIF of a JPEG is shorter."""
LARGEST_FILE = 2**32 - 1
"""Bytes: addresses have 32 bits."""


class DamagedTagsError(ValueError):
    """The tags cannot be read."""


@dataclass(frozen=True)
class Tag:
    """A value as stored, in the byte order of its block."""

    type: int
    count: int
    value: bytes
    address: int = 0
    """Where the value was stored; 0 for a new one."""


@dataclass(frozen=True)
class TagFolder:
    """The tags of one image file directory (IFD), and the folders below it, by number."""

    tags: dict[int, Tag] = field(default_factory=dict)
    folders: dict[int, "TagFolder"] = field(default_factory=dict)

    def without(self, numbers: frozenset[int]) -> "TagFolder":
        """A copy that lacks some tags at its top."""
        kept = {number: tag for number, tag in self.tags.items() if number not in numbers}
        return TagFolder(kept, dict(self.folders))

    def maker_note(self) -> Tag | None:
        """The maker note of EXIF."""
        exif = self.folders.get(_EXIF_FOLDER)
        return exif.tags.get(_MAKER_NOTE) if exif else None


def byte_order(block: bytes) -> ByteOrder:
    """`<` or `>`. Raises DamagedTagsError."""
    if block[:2] == b"II":
        return "<"
    if block[:2] == b"MM":
        return ">"
    raise DamagedTagsError("it is not a TIFF block")


def read_tags(block: bytes) -> TagFolder:
    """Read the first folder of a block, with EXIF and GPS below it. Raises DamagedTagsError."""
    order = byte_order(block)
    try:
        big = struct.unpack_from(f"{order}H", block, 2)[0] == 43
        address = struct.unpack_from(f"{order}{'Q' if big else 'I'}", block, 8 if big else 4)[0]
        return _Reader(block, order, big=big).folder(address)
    except struct.error:
        raise DamagedTagsError("a folder of tags lies outside the file") from None


class _Reader:
    """Reads the folders of one block."""

    def __init__(self, block: bytes, order: ByteOrder, *, big: bool) -> None:
        self._block, self._order = block, order
        self._count, self._head, self._inside = ("Q", "HHQ", 8) if big else ("H", "HHI", 4)
        self._address = "Q" if big else "I"
        self._left = 2 * len(block) + _SLACK
        """Bytes that values may still take: more than there are only if they overlap."""

    def folder(self, address: int, depth: int = 0) -> TagFolder:
        """The tags at an address. Raises DamagedTagsError and struct.error."""
        if depth > _DEEPEST:
            raise DamagedTagsError("its folders of tags lie in each other")
        made = TagFolder()
        (count,) = self._unpack(self._count, address)
        start, step = address + struct.calcsize(f"={self._count}"), 4 + 2 * self._inside
        for entry in range(start, start + min(count, 2**16) * step, step):
            number, kind, values = self._unpack(self._head, entry)
            if kind not in _SIZES:
                continue
            value, place = self._value(number, _SIZES[kind] * values, entry + 4 + self._inside)
            if number in _FOLDERS and kind in (_LONG, _IFD, _LONG8, _IFD8):
                (below,) = struct.unpack(f"{self._order}{_INTEGERS[kind]}", value[: _SIZES[kind]])
                made.folders[number] = self.folder(below, depth + 1)
            elif (tag := self._classic(kind, values, value, place)) is not None:
                made.tags[number] = tag
        return made

    def _unpack(self, layout: str, place: int) -> tuple[int, ...]:
        return struct.unpack_from(f"{self._order}{layout}", self._block, place)

    def _value(self, number: int, size: int, place: int) -> tuple[bytes, int]:
        if size > self._inside:
            (place,) = self._unpack(self._address, place)
        self._left -= size
        if self._left < 0:
            raise DamagedTagsError("its tags overlap")
        value = self._block[place : place + size]
        if len(value) < size:
            raise DamagedTagsError(f"tag {number} lies outside the file")
        return value, place

    def _classic(self, kind: int, count: int, value: bytes, place: int) -> Tag | None:
        """A value as a TIFF of 32 bits stores it; None for one that needs 64 bits."""
        if kind not in (_LONG8, _SLONG8, _IFD8):
            return Tag(kind, count, value, place)
        numbers = struct.unpack(f"{self._order}{count}{_INTEGERS[kind]}", value)
        short = {_LONG8: _LONG, _SLONG8: _SLONG, _IFD8: _IFD}[kind]
        try:
            packed = struct.pack(f"{self._order}{count}{_INTEGERS[short]}", *numbers)
        except struct.error:
            return None
        return Tag(short, count, packed)


def integers(order: ByteOrder, kind: int, values: list[int]) -> Tag:
    """A tag of SHORT (3) or LONG (4) integers."""
    letter = "H" if kind == 3 else "I"
    return Tag(kind, len(values), struct.pack(f"{order}{len(values)}{letter}", *values))


def opaque(value: bytes, kind: int = 7) -> Tag:
    """A tag of bytes: UNDEFINED (7) or BYTE (1)."""
    return Tag(kind, len(value), value)


@dataclass(frozen=True)
class Written:
    """A block, and what could not be kept in it."""

    block: bytes
    moved_maker_note: bool
    """Whether the maker note has another address than before."""


def write_tags(order: ByteOrder, folder: TagFolder, strips: Sequence[Strip] = ()) -> Written:
    """Write a block: the header, the pixels, the tags; EXIF has no pixels.

    A maker note lies where it did; pixels fill the space before it. Raises DamagedTagsError for
    more than 4 GiB.
    """
    out = _Writer(order)
    note = folder.maker_note()
    waiting = note if note is not None and _can_stay(note, has_pixels=bool(strips)) else None
    moved = note is not None and waiting is None
    addresses: list[int] = []
    for strip in strips:
        if waiting is not None and out.position + len(strip) > waiting.address:
            out.place(waiting)
            waiting = None
        addresses.append(out.append(strip))
    if waiting is not None:
        out.place(waiting)
    if strips:
        folder.tags[_STRIP_ADDRESSES] = integers(order, _LONG, addresses)
    block = out.finish(folder)
    if len(block) > LARGEST_FILE:
        raise DamagedTagsError("it is larger than 4 GiB, which a TIFF cannot address")
    return Written(block, moved_maker_note=moved)


def _can_stay(note: Tag, *, has_pixels: bool) -> bool:
    """Whether a maker note is written where it was; pixels fill the space before it."""
    return (
        len(note.value) > 4 and note.address >= 8 and (has_pixels or note.address <= _LARGEST_GAP)
    )


class _Writer:
    def __init__(self, order: ByteOrder) -> None:
        self.order = order
        self.parts: list[Strip] = []
        self.position = 8
        self.placed: dict[int, int] = {}
        """Addresses of values that are written already, by `id`."""

    def append(self, value: Strip) -> int:
        """Write a value at the next even address, which is returned."""
        address = self.position
        odd = len(value) % 2
        self.parts += [value, b"\0" * odd]
        self.position += len(value) + odd
        return address

    def place(self, tag: Tag) -> None:
        """Write a value at the address that it had, which is not yet reached."""
        end = tag.address + len(tag.value)
        self.parts += [b"\0" * (tag.address - self.position), tag.value, b"\0" * (end % 2)]
        self.position = end + end % 2
        self.placed[id(tag)] = tag.address

    def finish(self, folder: TagFolder) -> bytes:
        """Write the tags; returns the whole block."""
        address = self._write_folder(folder)
        mark = b"II*\0" if self.order == "<" else b"MM\0*"
        return b"".join([mark, struct.pack(f"{self.order}I", address), *self.parts])

    def _write_folder(self, folder: TagFolder) -> int:
        entries = dict(self._entries(folder))
        body = b"".join(entries[number] for number in sorted(entries))
        head = struct.pack(f"{self.order}H", len(entries))
        return self.append(head + body + b"\0\0\0\0")

    def _entries(self, folder: TagFolder) -> Iterator[tuple[int, bytes]]:
        for number, below in folder.folders.items():
            address = struct.pack(f"{self.order}I", self._write_folder(below))
            yield number, struct.pack(f"{self.order}HHI", number, _LONG, 1) + address
        for number, tag in folder.tags.items():
            head = struct.pack(f"{self.order}HHI", number, tag.type, tag.count)
            if len(tag.value) <= 4:
                yield number, head + tag.value.ljust(4, b"\0")
            else:
                place = self.placed.get(id(tag)) or self.append(tag.value)
                yield number, head + struct.pack(f"{self.order}I", place)
