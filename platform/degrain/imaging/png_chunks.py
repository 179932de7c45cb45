"""The chunks of a PNG file: metadata is copied from one file to another with its bytes.

PNG Specification, third edition (W3C 2025), sections 5 and 11.
"""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_SIGNATURE_BYTES = 8
_COLOURS = (b"iCCP", b"sRGB", b"gAMA", b"cHRM", b"cICP", b"mDCV", b"cLLI")
_COPIED = frozenset({*_COLOURS, b"eXIf", b"iTXt", b"tEXt", b"zTXt", b"pHYs", b"tIME"})
_PIXELS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
_XMP_KEY = b"XML:com.adobe.xmp"


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
    """Yield the chunks but for the pixels; ends where the file does."""
    position = _SIGNATURE_BYTES
    while position + 12 <= len(png):
        length = int.from_bytes(png[position : position + 4])
        name = png[position + 4 : position + 8]
        end = position + 8 + length
        if name != b"IDAT":
            body = png[position + 8 : end]
            checksum = int.from_bytes(png[end : end + 4])
            yield Chunk(name, body, zlib.crc32(name + body) == checksum)
        position = end + 4


def copied_chunks(png: bytes) -> tuple[list[Chunk], list[str]]:
    """The chunks that a PNG with other pixels shares, and the names of those that it does not."""
    kept: list[Chunk] = []
    dropped: list[str] = []
    for chunk in chunks(png):
        if chunk.name in _COPIED and chunk.intact:
            kept.append(chunk)
        elif chunk.name not in _PIXELS:
            reason = "" if chunk.intact else ", which is damaged"
            dropped.append(f"the PNG chunk {chunk.name.decode('latin-1')}{reason}")
    return kept, dropped


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
    end = _SIGNATURE_BYTES + len(bytes(header))
    return b"".join([png[:end], *map(bytes, inserted), png[end:]])


def read_exif(png: bytes) -> bytes | None:
    """The TIFF block of EXIF."""
    return next((c.body for c in chunks(png) if c.name == b"eXIf"), None)


def read_xmp(png: bytes) -> bytes | None:
    """The XMP packet."""
    for chunk in chunks(png):
        if chunk.name != b"iTXt" or not chunk.body.startswith(_XMP_KEY + b"\0"):
            continue
        flags = chunk.body[len(_XMP_KEY) + 1 :]
        # Compression flag and method, then language and translated keyword, both empty or not.
        text = flags[2:].split(b"\0", 2)[-1]
        return zlib.decompress(text) if flags[:1] == b"\1" else text
    return None


def text_keys(png: bytes) -> list[str]:
    """The keywords of texts other than XMP."""
    keys = [c.body.split(b"\0", 1)[0] for c in chunks(png) if c.name in (b"tEXt", b"zTXt", b"iTXt")]
    return [key.decode("latin-1") for key in keys if key != _XMP_KEY]
