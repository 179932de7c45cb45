"""PNG files of all colour types, bits and orders of pixels, with each chunk.

PNG Specification, third edition (W3C 2025).
"""

import struct
import zlib
from collections.abc import Iterator

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from torture.case import Case

SIGNATURE = b"\x89PNG\r\n\x1a\n"
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
SIZES = ((1, 1), (3, 2), (9, 17), (32, 33))
PASSES = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2))
PASSES += ((1, 0, 2, 1),)
"""First row and column, and steps of rows and columns, of Adam7."""
LINEAR = (100_000).to_bytes(4)
P3 = struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)
EXIF = b"II*\0\x08\0\0\0\1\0" + struct.pack("<HHIHH", 274, 3, 1, 6, 0) + bytes(4)
ADOBE = zlib.compress(bytes(imagecodecs.cms_profile("adobergb")))
CHUNKS: dict[str, bytes] = {
    "gAMA": LINEAR,
    "cHRM": P3,
    "sRGB": b"\0",
    "iCCP": b"icc\0\0" + ADOBE,
    "cICP": bytes([12, 13, 0, 1]),
    "mDCV": bytes(24),
    "cLLI": bytes(8),
    "sBIT": b"\5\5\5",
    "bKGD": bytes(6),
    "hIST": bytes(8),
    "pHYs": struct.pack(">IIB", 2835, 5669, 1),
    "sPLT": b"name\0\x08" + bytes(6),
    "tIME": bytes([7, 230, 2, 28, 23, 59, 60]),
    "tEXt": b"Comment\0text",
    "zTXt": b"Comment\0\0" + zlib.compress(b"text"),
    "iTXt": b"Comment\0\0\0en\0\0text",
    "eXIf": EXIF,
    "sTER": b"\0",
    "oFFs": struct.pack(">iiB", 1, 2, 0),
    "pCAL": b"name\0" + bytes(10),
    "sCAL": b"\x011\x001",
    "caBX": bytes(40),
    "vpAg": bytes(9),
    "prVt": b"private",
}
BEFORE_PIXELS = ("gAMA", "cHRM", "sRGB", "iCCP", "cICP", "mDCV", "cLLI", "sBIT", "bKGD", "hIST")


def chunk(name: str, body: bytes) -> bytes:
    """A chunk with its length and checksum."""
    kind = name.encode()
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def packed(values: NDArray[np.uint16], bits: int) -> NDArray[np.uint8]:
    """(H, W, C) of so many bits -> (H, bytes), rows that end at a byte."""
    rows = values.reshape(len(values), -1)
    if bits == 16:
        return np.ascontiguousarray(rows.astype(">u2")).view(np.uint8)
    if bits == 8:
        return rows.astype(np.uint8)
    each = ((rows[:, :, None] >> np.arange(bits - 1, -1, -1)) & 1).astype(np.uint8)
    return np.packbits(each.reshape(len(rows), -1), axis=1)


def filtered(rows: NDArray[np.uint8], step: int, rng: np.random.Generator) -> bytes:
    """Rows behind one of the five filters each."""
    out: list[bytes] = []
    above = np.zeros(rows.shape[1] + step, int)
    for row in rows:
        now = np.concatenate([np.zeros(step, int), row])
        left, up, corner = now[:-step], above[step:], above[:-step]
        distances = np.abs(np.stack([up - corner, left - corner, left + up - 2 * corner]))
        nearest = distances.argmin(axis=0)
        paeth = np.choose(nearest, [left, up, corner])
        kind = int(rng.integers(5))
        guess = (np.zeros_like(left), left, up, (left + up) // 2, paeth)[kind]
        out.append(bytes([kind]) + ((now[step:] - guess) % 256).astype(np.uint8).tobytes())
        above = now
    return b"".join(out)


def scanlines(
    values: NDArray[np.uint16], bits: int, *, interlaced: bool, rng: np.random.Generator
) -> bytes:
    """The coded pixels of (H, W, C)."""
    step = max(values.shape[2] * bits // 8, 1)
    if not interlaced:
        return filtered(packed(values, bits), step, rng)
    parts = (values[top::down, left::across] for top, left, down, across in PASSES)
    return b"".join(filtered(packed(part, bits), step, rng) for part in parts if part.size)


def png(
    size: tuple[int, int],
    colour_type: int,
    bits: int,
    *,
    interlaced: bool = False,
    before: bytes = b"",
    after: bytes = b"",
    pieces: int = 1,
) -> bytes:
    """A PNG of random values, with chunks before and behind pixels in so many pieces."""
    height, width = size
    rng = np.random.default_rng([height, width, colour_type, bits])
    shape = (height, width, CHANNELS[colour_type])
    values = rng.integers(0, 2**bits, shape).astype(np.uint16)
    coded = zlib.compress(scanlines(values, bits, interlaced=interlaced, rng=rng))
    length = -(-len(coded) // pieces)
    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, interlaced)
    palette = chunk("PLTE", rng.bytes(3 * 2**bits)) if colour_type == 3 else b""
    return b"".join(
        [
            SIGNATURE + chunk("IHDR", header),
            *([before, palette] if b"tRNS" not in before else [palette, before]),
            *(chunk("IDAT", coded[i : i + length]) for i in range(0, len(coded), length)),
            after + chunk("IEND", b""),
        ]
    )


def cases() -> Iterator[Case]:
    """All PNG files."""
    yield from _pixel_cases()
    yield from _chunk_cases()
    yield from _damaged_cases()


def _pixel_cases() -> Iterator[Case]:
    for colour_type, depths in DEPTHS.items():
        for bits in depths:
            for size in SIZES:
                for interlaced in (False, True):
                    order = "adam7" if interlaced else "rows"
                    name = f"png-{colour_type}-{bits}-{size[1]}x{size[0]}-{order}"
                    yield Case(name, png(size, colour_type, bits, interlaced=interlaced), ".png")
            name = f"png-{colour_type}-{bits}-trns"
            if colour_type in (0, 2):
                body = bytes(2 * CHANNELS[colour_type])
                yield Case(
                    name, png((9, 17), colour_type, bits, before=chunk("tRNS", body)), ".png"
                )
            if colour_type == 3:
                body = bytes(range(0, 2**bits, 2))
                yield Case(name, png((9, 17), 3, bits, before=chunk("tRNS", body)), ".png")
    for pieces in (2, 40, 400):
        yield Case(f"png-{pieces}-idat", png((32, 33), 2, 8, pieces=pieces), ".png")


def _chunk_cases() -> Iterator[Case]:
    for name, body in CHUNKS.items():
        for colour_type in (0, 2, 6):
            content = png((9, 17), colour_type, 16, before=chunk(name, body))
            yield Case(f"png-{colour_type}-{name}-before", content, ".png")
        if name not in BEFORE_PIXELS:
            content = png((9, 17), 2, 8, after=chunk(name, body))
            yield Case(f"png-{name}-behind", content, ".png")
        yield Case(f"png-{name}-empty", png((9, 17), 2, 8, before=chunk(name, b"")), ".png")
        wrong = chunk(name, body)[:-1] + b"?"
        yield Case(f"png-{name}-checksum", png((9, 17), 2, 8, before=wrong), ".png")
    every = b"".join(chunk(name, body) for name, body in CHUNKS.items())
    yield Case("png-all-chunks", png((9, 17), 2, 8, before=every), ".png")
    hdr = chunk("cICP", bytes([9, 16, 0, 1]))
    yield Case("png-cICP-pq", png((9, 17), 2, 16, before=hdr), ".png")


def _damaged_cases() -> Iterator[Case]:
    plain = png((9, 17), 2, 8)
    control = chunk("acTL", struct.pack(">II", 2, 0))
    frame = chunk("fcTL", struct.pack(">5IHHBB", 0, 17, 9, 0, 0, 1, 10, 0, 0))
    second = chunk("fcTL", struct.pack(">5IHHBB", 1, 17, 9, 0, 0, 1, 10, 0, 0))
    second += chunk("fdAT", struct.pack(">I", 2) + zlib.compress(bytes(9 * 52)))
    animated = png((9, 17), 2, 8, before=control + frame, after=second)
    pixels = plain.index(b"IDAT")
    for name, content in {
        "animation": animated,
        "hidden-picture": png((9, 17), 2, 8, before=control, after=second),
        "critical-chunk": png((9, 17), 2, 8, before=chunk("CRIT", b"")),
        "checksum-of-pixels": plain[:-14] + b"?" + plain[-13:],
        "cut": plain[: pixels + 40],
        "no-pixels": plain[: pixels - 4] + chunk("IEND", b""),
        "no-header": plain[:8] + plain[33:],
        "bits-3": plain[:24] + b"\3" + plain[25:],
        "colour-type-5": plain[:25] + b"\5" + plain[26:],
    }.items():
        yield Case(f"png-{name}", content, ".png", "refused")
