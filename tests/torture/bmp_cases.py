"""BMP files of all headers, bits and orders of rows.

Microsoft's BITMAPCOREHEADER, BITMAPINFOHEADER, BITMAPV4HEADER and BITMAPV5HEADER.
"""

import struct
from collections.abc import Iterator

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from torture.case import Case, Outcome

HEADERS = {"core": 12, "info": 40, "v2": 52, "v3": 56, "v4": 108, "v5": 124}
WIDTHS = (1, 2, 3, 4, 5, 31)
HEIGHT = 7
BIT_FIELDS = 3
MASKS: dict[tuple[int, str], tuple[int, int, int]] = {
    (16, "555"): (0x7C00, 0x3E0, 0x1F),
    (16, "565"): (0xF800, 0x7E0, 0x1F),
    (32, "888"): (0xFF0000, 0xFF00, 0xFF),
}


def rows_of(values: NDArray[np.uint8], bits: int) -> bytes:
    """(H, W) or (H, W, bytes of a pixel) as rows that end at four bytes."""
    if bits < 8:
        each = ((values[:, :, None] >> np.arange(bits - 1, -1, -1)) & 1).astype(np.uint8)
        values = np.packbits(each.reshape(len(values), -1), axis=1)
    rows = values.reshape(len(values), -1)
    return np.pad(rows, ((0, 0), (0, -rows.shape[1] % 4))).tobytes()


def bmp(
    width: int,
    bits: int,
    pixels: bytes,
    *,
    header: str = "info",
    palette: bytes = b"",
    compression: int = 0,
    masks: tuple[int, ...] = (),
    from_top: bool = False,
    colour_space: bytes = b"BGRs",
    profile: bytes = b"",
) -> bytes:
    """A BMP of seven rows."""
    size = HEADERS[header]
    height = -HEIGHT if from_top else HEIGHT
    if header == "core":
        head = struct.pack("<IHHHH", size, width, HEIGHT, 1, bits)
    else:
        colours = len(palette) // 4
        shape = (size, width, height, 1, bits, compression, len(pixels), 2835, 5669, colours, 0)
        head = struct.pack("<IiiHHIIiiII", *shape)
        fields = struct.pack(f"<{len(masks)}I", *masks)
        head += fields if header == "info" else fields.ljust(size - 40, b"\0")[: size - 40]
        if size >= 108:
            head = head[:56] + colour_space + head[60:]
        if profile:
            place = len(head) + len(palette) + len(pixels)
            head = head[:112] + struct.pack("<II", place, len(profile)) + head[120:]
    start = 14 + len(head) + len(palette)
    length = start + len(pixels) + len(profile)
    return b"BM" + struct.pack("<IHHI", length, 0, 0, start) + head + palette + pixels + profile


def cases() -> Iterator[Case]:
    """All BMP files."""
    yield from _palette_cases()
    yield from _colour_cases()
    yield from _run_length_cases()
    adobe = bytes(imagecodecs.cms_profile("adobergb"))
    pixels = rows_of(_random(5, 3), 24)
    content = bmp(5, 24, pixels, header="v5", colour_space=b"DEBM", profile=adobe)
    yield Case("bmp-profile", content, ".bmp")
    plain = bmp(5, 24, pixels)
    alpha = (0x7C00, 0x3E0, 0x1F, 0x8000)
    for name, content in {
        "cut": plain[:-9],
        "header-cut": plain[:30],
        "bits-7": plain[:28] + b"\7" + plain[29:],
        "16-alpha": bmp(
            5, 16, rows_of(_random(5, 2), 16), header="v4", compression=BIT_FIELDS, masks=alpha
        ),
    }.items():
        yield Case(f"bmp-{name}", content, ".bmp", "refused")


def _random(width: int, channels: int) -> NDArray[np.uint8]:
    rng = np.random.default_rng([width, channels])
    return rng.integers(0, 256, (HEIGHT, width, channels), dtype=np.uint8)


def _palette_cases() -> Iterator[Case]:
    for bits in (1, 4, 8):
        colours = np.random.default_rng(bits).integers(0, 256, (2**bits, 4), dtype=np.uint8)
        greys = np.repeat(np.linspace(0, 255, 2**bits).astype(np.uint8)[:, None], 4, axis=1)
        colours[:, 3] = greys[:, 3] = 0
        for width in WIDTHS:
            values = _random(width, 1)[:, :, 0] >> (8 - bits)
            for header in HEADERS:
                for kind, table in (("colour", colours), ("grey", greys)):
                    palette = (table[:, :3] if header == "core" else table).tobytes()
                    content = bmp(
                        width, bits, rows_of(values, bits), header=header, palette=palette
                    )
                    yield Case(f"bmp-{header}-{bits}-{kind}-{width}", content, ".bmp")


def _colour_cases() -> Iterator[Case]:
    for width in WIDTHS:
        for header in HEADERS:
            content = bmp(width, 24, rows_of(_random(width, 3), 24), header=header)
            yield Case(f"bmp-{header}-24-{width}", content, ".bmp")
        for from_top in (False, True):
            content = bmp(width, 24, rows_of(_random(width, 3), 24), from_top=from_top)
            yield Case(f"bmp-24-{width}-{'top' if from_top else 'bottom'}", content, ".bmp")
        for bits in (16, 32):
            content = bmp(width, bits, rows_of(_random(width, bits // 8), bits))
            yield Case(f"bmp-info-{bits}-{width}", content, ".bmp", _outcome(bits))
    for (bits, kind), masks in MASKS.items():
        for header in ("info", "v4", "v5"):
            pixels = rows_of(_random(5, bits // 8), bits)
            content = bmp(5, bits, pixels, header=header, compression=BIT_FIELDS, masks=masks)
            yield Case(f"bmp-{header}-{kind}", content, ".bmp", _outcome(bits))
    alpha = (*MASKS[32, "888"], 0xFF000000)
    for header in ("v4", "v5"):
        pixels = rows_of(_random(5, 4), 32)
        content = bmp(5, 32, pixels, header=header, compression=BIT_FIELDS, masks=alpha)
        yield Case(f"bmp-{header}-alpha", content, ".bmp")


def _outcome(bits: int) -> Outcome:
    """Decoders disagree on which 8 bits stand for the 5 or 6 of a pixel of 16."""
    return "close" if bits == 16 else "exact"


def _run_length_cases() -> Iterator[Case]:
    palette = np.random.default_rng(9).integers(0, 256, (256, 4), dtype=np.uint8)
    palette[:, 3] = 0
    for width in (4, 5, 31):
        values = np.repeat(_random(width, 1)[:, :1, 0], width, axis=1)
        whole = b"".join(bytes([width, row[0], 0, 0]) for row in values) + b"\0\1"
        yield Case(
            f"bmp-rle8-{width}",
            bmp(width, 8, whole, palette=palette.tobytes(), compression=1),
            ".bmp",
        )
        small = values % 16
        halves = b"".join(bytes([width, row[0] * 17, 0, 0]) for row in small) + b"\0\1"
        yield Case(
            f"bmp-rle4-{width}",
            bmp(width, 4, halves, palette=palette[:16].tobytes(), compression=2),
            ".bmp",
        )
        single = _random(width, 1)[:, :, 0]
        literal = b"".join(
            bytes([0, width]) + row.tobytes() + b"\0" * (width % 2) + b"\0\0" for row in single
        )
        if width >= 3:
            yield Case(
                f"bmp-rle8-literal-{width}",
                bmp(width, 8, literal + b"\0\1", palette=palette.tobytes(), compression=1),
                ".bmp",
            )
