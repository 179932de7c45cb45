"""The chunks of a PNG file: metadata is copied from one file to another with its bytes.

PNG Specification, third edition (W3C 2025), sections 5 and 11.
"""

import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from degrain.imaging.jpeg_extras import CREDENTIALS
from degrain.imaging.limits import LARGEST_METADATA, MOST_SEGMENTS
from degrain.imaging.stored_photo import UnreadablePhotoError

SIGNATURE = b"\x89PNG\r\n\x1a\n"
COLOURS = (b"iCCP", b"sRGB", b"gAMA", b"cHRM", b"cICP", b"mDCV", b"cLLI")
_TEXTS = (b"iTXt", b"tEXt", b"zTXt")
_COPIED = frozenset({*COLOURS, *_TEXTS, b"eXIf", b"pHYs", b"tIME"})
_PIXELS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
_XMP_KEY = b"XML:com.adobe.xmp"
_RAW_EXIF = (b"Raw profile type exif", b"Raw profile type APP1")
_RAW_IPTC = (b"Raw profile type iptc",)


@dataclass(frozen=True)
class Chunk:
    """A named part of a PNG file."""

    name: bytes
    body: bytes
    intact: bool = True
    """Whether its checksum is right."""

    def __bytes__(self) -> bytes:
        checksum = zlib.crc32(self.name + self.body)
        return len(self.body).to_bytes(4) + self.name + self.body + checksum.to_bytes(4)


def chunks(png: bytes) -> Iterator[Chunk]:
    """Yield the chunks, of those with pixels (IDAT) only the first, empty; ends where the file
    does.

    Raises UnreadablePhotoError for more than `MOST_SEGMENTS`.
    """
    position, count, with_pixels = len(SIGNATURE), 0, False
    while position + 12 <= len(png):
        length = int.from_bytes(png[position : position + 4])
        name = png[position + 4 : position + 8]
        end = position + 8 + length
        if name == b"IDAT":
            if not with_pixels:
                yield Chunk(name, b"")
            with_pixels = True
        else:
            body = png[position + 8 : end]
            checksum = int.from_bytes(png[end : end + 4])
            yield Chunk(name, body, zlib.crc32(name + body) == checksum)
            count += 1
        if name == b"IEND":
            return
        if count > MOST_SEGMENTS:
            raise UnreadablePhotoError(
                f"it has more than {MOST_SEGMENTS} chunks beside its pixels; save it anew"
            )
        position = end + 4


def count_frames(png: bytes) -> int:
    """Pictures in the file: 1, or those of an animation (APNG) and the picture before it."""
    names = [chunk.name for chunk in chunks(png) if chunk.name in (b"fcTL", b"IDAT")]
    frames = names.count(b"fcTL")
    return frames + 1 if names[:1] == [b"IDAT"] else max(frames, 1)


def inflate(compressed: bytes) -> bytes | None:
    """Decompress metadata; None if it is damaged or has more than `LARGEST_METADATA` bytes."""
    machine = zlib.decompressobj()
    try:
        content = machine.decompress(compressed, LARGEST_METADATA)
    except zlib.error:
        return None
    return content if machine.eof else None


def copied_chunks(png: bytes) -> tuple[list[Chunk], list[str]]:
    """The chunks that a PNG with other pixels shares, and the names of those that it does not."""
    kept: list[Chunk] = []
    dropped: list[str] = []
    for chunk in chunks(png):
        if chunk.name in _COPIED and chunk.intact:
            kept.append(chunk)
        elif chunk.name not in _PIXELS:
            dropped.append(described(chunk))
    return kept, dropped


def described(chunk: Chunk) -> str:
    """A chunk in a note."""
    if chunk.name == b"caBX":
        return CREDENTIALS
    reason = "" if chunk.intact else ", which is damaged"
    return f"the PNG chunk {chunk.name.decode('latin-1')}{reason}"


def chunks_of_png_alone(png: bytes, carried: frozenset[bytes]) -> list[str]:
    """What no other type of file holds; it holds texts apart, and chunks of `carried` names."""
    handled = _PIXELS | {*_TEXTS, b"eXIf", b"pHYs", *carried}
    return [described(chunk) for chunk in chunks(png) if chunk.name not in handled]


def new_chunks(
    *, exif: bytes | None, xmp: bytes | None, photoshop: bytes | None, profile: bytes | None
) -> list[Chunk]:
    """Chunks of metadata from another file type.

    PNG has no chunk for IPTC; ImageMagick's `Raw profile type iptc`, which ExifTool and exiv2 read,
    holds it as text.
    """
    made: list[Chunk] = []
    if profile:
        made.append(Chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(profile)))
    if exif:
        made.append(Chunk(b"eXIf", exif))
    if xmp:
        made.append(Chunk(b"iTXt", _XMP_KEY + b"\0\0\0\0\0" + xmp))
    if photoshop:
        text = f"\niptc\n{len(photoshop):8}\n{photoshop.hex()}\n".encode()
        made.append(Chunk(b"zTXt", b"Raw profile type iptc\0\0" + zlib.compress(text)))
    return made


def with_chunks(png: bytes, inserted: Sequence[Chunk]) -> bytes:
    """A PNG with `inserted` behind its header."""
    header = next(chunks(png))
    end = len(SIGNATURE) + len(bytes(header))
    return b"".join([png[:end], *map(bytes, inserted), png[end:]])


def read_exif(png: bytes) -> bytes | None:
    """The TIFF block of EXIF, from its chunk or from ImageMagick's text."""
    stored = next((c.body for c in chunks(png) if c.name == b"eXIf" and c.intact), None)
    if stored is not None:
        return stored
    raw = _raw_profile(png, _RAW_EXIF)
    return raw.removeprefix(b"Exif\0\0") if raw else None


def read_photoshop(png: bytes) -> bytes | None:
    """Photoshop's image resources, which hold IPTC, from ImageMagick's text."""
    return _raw_profile(png, _RAW_IPTC)


def _raw_profile(png: bytes, keys: Sequence[bytes]) -> bytes | None:
    """ImageMagick's form of metadata: a name, a length, and the bytes in hexadecimal."""
    for chunk in chunks(png):
        key, _, text = chunk.body.partition(b"\0")
        if chunk.name not in (b"tEXt", b"zTXt") or key not in keys:
            continue
        raw = text if chunk.name == b"tEXt" else inflate(text[1:])
        match = re.fullmatch(rb"\s*\w+\s+\d+\s+((?:[0-9a-fA-F]{2}\s*)*)", raw or b"")
        if match:
            return bytes.fromhex(match[1].decode())
    return None


def read_xmp(png: bytes) -> bytes | None:
    """The XMP packet; None for one that cannot be decompressed."""
    for chunk in chunks(png):
        if chunk.name != b"iTXt" or not chunk.body.startswith(_XMP_KEY + b"\0"):
            continue
        flags = chunk.body[len(_XMP_KEY) + 1 :]
        # Compression flag and method, then language and translated keyword, both empty or not.
        text = flags[2:].split(b"\0", 2)[-1]
        return inflate(text) if flags[:1] == b"\1" else text
    return None


def text_keys(png: bytes) -> list[str]:
    """The keywords of texts that are not read as EXIF, XMP or IPTC."""
    read = {
        *([_XMP_KEY] if read_xmp(png) is not None else []),
        *(_RAW_EXIF if read_exif(png) is not None else []),
        *(_RAW_IPTC if read_photoshop(png) is not None else []),
    }
    keys = [c.body.split(b"\0", 1)[0] for c in chunks(png) if c.name in _TEXTS]
    return [key.decode("latin-1") for key in keys if key not in read]
