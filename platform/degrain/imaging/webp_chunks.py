"""The chunks of a WebP file. RFC 9649, sections 2.3 to 2.7."""

from degrain.imaging.jpeg_extras import CREDENTIALS
from degrain.imaging.limits import MOST_SEGMENTS
from degrain.imaging.stored_photo import UnreadablePhotoError

_CARRIED = (b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF", b"ICCP", b"EXIF", b"XMP ")


def is_webp(content: bytes) -> bool:
    """Whether a file starts as a WebP."""
    return content[:4] == b"RIFF" and content[8:12] == b"WEBP"


def webp_chunks(webp: bytes) -> list[tuple[bytes, bytes]]:
    """Names and bodies. Raises UnreadablePhotoError for more than `MOST_SEGMENTS`."""
    found: list[tuple[bytes, bytes]] = []
    position, end = 12, min(8 + int.from_bytes(webp[4:8], "little"), len(webp))
    while position + 8 <= end:
        size = int.from_bytes(webp[position + 4 : position + 8], "little")
        found.append((webp[position : position + 4], webp[position + 8 : position + 8 + size]))
        position += 8 + size + size % 2
        if len(found) > MOST_SEGMENTS:
            raise UnreadablePhotoError(f"it has more than {MOST_SEGMENTS} chunks; save it anew")
    return found


def held_by_webp_alone(webp: bytes) -> list[str]:
    """The chunks that a file with other pixels does not get, in notes."""
    names = [name for name, _ in webp_chunks(webp) if name not in _CARRIED]
    return [
        CREDENTIALS if name == b"C2PA" else f"the WebP chunk {name.decode('latin-1')}"
        for name in dict.fromkeys(names)
    ]


def webp_size(webp: bytes) -> tuple[int, int]:
    """Width and height of the canvas by the first chunk; 0 for a damaged file."""
    kind, body = webp[12:16], webp[20:30]
    if len(body) < 10:
        return 0, 0
    if kind == b"VP8X":
        return 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        width, height = (int.from_bytes(body[at : at + 2], "little") for at in (6, 8))
        return width & 0x3FFF, height & 0x3FFF
    return 0, 0
