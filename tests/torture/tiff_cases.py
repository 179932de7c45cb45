"""TIFF files of every kind of colour, sample format, bit depth from 1 to 32, layout, compression
and byte order, written by hand.

TIFF 6.0 (Adobe 1992); Adobe Photoshop TIFF Technical Notes; BigTIFF.
"""

import struct
from collections.abc import Iterator
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from torture.case import Case, Outcome

HEIGHT, WIDTH = 33, 50
MINISWHITE, MINISBLACK, RGB, PALETTE, MASK, CMYK, YCBCR, CIELAB, ICCLAB, CFA, LOGLUV = (
    *range(7),
    *(8, 9, 32803, 32845),
)
COLOURS = {MINISWHITE: 1, MINISBLACK: 1, RGB: 3, PALETTE: 1, MASK: 1, CMYK: 4, YCBCR: 3}
COLOURS |= {CIELAB: 3, ICCLAB: 3, CFA: 1, LOGLUV: 3}
UNSIGNED, SIGNED, FLOAT, COMPLEX = 1, 2, 3, 6
COMPRESSIONS = {
    "none": (1, bytes),
    "lzw": (5, lambda raw: bytes(imagecodecs.lzw_encode(raw))),
    "deflate": (8, lambda raw: bytes(imagecodecs.deflate_encode(raw))),
    "old-deflate": (32946, lambda raw: bytes(imagecodecs.deflate_encode(raw))),
    "packbits": (32773, lambda raw: bytes(imagecodecs.packbits_encode(raw))),
    "lzma": (34925, lambda raw: bytes(imagecodecs.lzma_encode(raw))),
    "zstd": (50000, lambda raw: bytes(imagecodecs.zstd_encode(raw))),
}
LONG, SHORT, BYTE = 4, 3, 1


def cases() -> Iterator[Case]:
    """All TIFF files."""
    yield from _depth_cases()
    yield from _layout_cases()
    yield from _colour_cases()
    yield from _extra_cases()
    yield from _damaged_cases()


def _depth_cases() -> Iterator[Case]:
    for bits in range(1, 33):
        for photometric in (MINISBLACK, RGB):
            for order in "<>":
                outcome: Outcome = "exact" if bits in (8, 16) else "close"
                yield _case(
                    f"{bits}-bits-{_name(photometric)}-{_name(order)}",
                    _integers(photometric, bits),
                    photometric=photometric,
                    bits=bits,
                    order=order,
                    outcome="refused" if bits > 16 else outcome,
                )
    for bits in (16, 32, 64):
        for photometric in (MINISBLACK, RGB):
            for order in "<>":
                yield _case(
                    f"float{bits}-{_name(photometric)}-{_name(order)}",
                    _floats(photometric, bits),
                    photometric=photometric,
                    bits=bits,
                    order=order,
                    kind=FLOAT,
                )
    for kind, bits in ((SIGNED, 8), (SIGNED, 16), (SIGNED, 32), (COMPLEX, 64)):
        pixels = _integers(RGB, 8).astype(np.complex64 if kind == COMPLEX else f"i{bits // 8}")
        name = f"format{kind}-{bits}"
        yield _case(name, pixels, bits=bits, kind=kind, outcome="refused")


def _layout_cases() -> Iterator[Case]:
    for compression in COMPRESSIONS:
        for bits in (8, 16):
            for planar in (False, True):
                for tile in (None, 16, 64):
                    for order in "<>":
                        layout = "planar" if planar else "contig"
                        name = f"{compression}-{bits}-{layout}-{tile or 'strips'}-{_name(order)}"
                        yield _case(
                            name,
                            _integers(RGB, bits),
                            bits=bits,
                            order=order,
                            compression=compression,
                            planar=planar,
                            tile=tile,
                        )
    for orientation in range(10):
        yield _case(
            f"orientation-{orientation}", _integers(RGB, 8), tags=[(274, SHORT, [orientation])]
        )
    for rows in (1, 7, 33, 100):
        yield _case(f"strips-of-{rows}", _integers(RGB, 16), bits=16, rows=rows)
    for big in (False, True):
        yield _case(f"bigtiff-{big}", _integers(RGB, 16), bits=16, big=big)
    for size in ((1, 1), (1, 50), (33, 1)):
        pixels = _integers(RGB, 8)[: size[0], : size[1]]
        yield _case(f"size-{size[1]}x{size[0]}", pixels)


def _colour_cases() -> Iterator[Case]:
    for photometric in COLOURS:
        grey = photometric in (MINISWHITE, MINISBLACK)
        accepted = grey or photometric in (RGB, PALETTE)
        for bits in (1, 2, 4, 8, 16):
            if photometric == PALETTE:
                palette = np.random.default_rng(bits).integers(0, 256, 3 * 2**bits) * 257
                tags = [(320, SHORT, palette.tolist())]
                outcome: Outcome = "close" if bits < 16 else "exact"
            else:
                tags, outcome = [], "exact" if bits in (8, 16) else "close"
            yield _case(
                f"photometric-{photometric}-{bits}",
                _integers(photometric, bits),
                photometric=photometric,
                bits=bits,
                tags=tags,
                outcome=outcome if accepted else "refused",
            )
    small = np.random.default_rng(0).integers(0, 256, 3 * 256).tolist()
    yield _case(
        "palette-of-8-bit-values",
        _integers(PALETTE, 8),
        photometric=PALETTE,
        tags=[(320, SHORT, small)],
        outcome="close",
    )
    curve = (65535 * (np.arange(256) / 255) ** 2.2).astype(int).tolist()
    yield _case("transfer-function", _integers(RGB, 8), tags=[(301, SHORT, 3 * curve)])


def _extra_cases() -> Iterator[Case]:
    for photometric in (MINISBLACK, RGB):
        for kinds in ((0,), (2,), (0, 2), (2, 0), (0, 0), (0, 0, 0)):
            for bits in (8, 16):
                name = f"extra-{_name(photometric)}-{'-'.join(map(str, kinds))}-{bits}"
                pixels = _integers(photometric, bits, len(kinds))
                tags = [(338, SHORT, list(kinds))]
                yield _case(name, pixels, photometric=photometric, bits=bits, tags=tags)
        many = _integers(photometric, 8, 12)
        yield _case(
            f"extra-12-{_name(photometric)}",
            many,
            photometric=photometric,
            tags=[(338, SHORT, [0] * 12)],
            outcome="refused",
        )
    # Opaque, because premultiplied colours change where they are divided by opacity.
    opaque = _integers(RGB, 16, 1)
    opaque[:, :, 3] = 65535
    yield _case("extra-premultiplied-opaque", opaque, bits=16, tags=[(338, SHORT, [1])])


def _damaged_cases() -> Iterator[Case]:
    plain = tiff(_integers(RGB, 8))
    for kept in (0, 3, 8, 40, 200, len(plain) // 2, len(plain) - 200):
        yield Case(f"tiff-cut-{kept}", plain[:kept], ".tif", "refused")
    for name, tags in {
        "thumbnail": [(254, LONG, [1])],
        "dng": [(50706, BYTE, [1, 4, 0, 0])],
        "depth": [(32997, LONG, [2])],
    }.items():
        yield _case(f"refused-{name}", _integers(RGB, 8), tags=tags, outcome="refused")
    layers = list(b"Adobe Photoshop Document Data Block\0" + bytes(99))
    yield _case("layers", _integers(RGB, 8), tags=[(37724, BYTE, layers)])
    for width, height in ((0, 33), (50, 0), (2**31, 2**31), (100_000, 100_000)):
        odd = tiff(_integers(RGB, 8), stated=(height, width))
        yield Case(f"tiff-states-{width}x{height}", odd, ".tif", "refused")


def _name(value: object) -> str:
    return {MINISBLACK: "grey", RGB: "rgb", "<": "little", ">": "big"}[value]  # type: ignore[index]


def _integers(photometric: int, bits: int, extra: int = 0) -> NDArray[Any]:
    """Waves with some noise over all values of a depth, (H, W, C)."""
    channels = COLOURS[photometric] + extra
    rng = np.random.default_rng([photometric, bits, extra])
    rows, columns, layers = np.ogrid[:HEIGHT, :WIDTH, :channels]
    waves = 0.5 + 0.4 * np.sin(rows / 5 + layers) * np.cos(columns / 7 + layers)
    waves = np.clip(waves + rng.normal(0, 0.02, (HEIGHT, WIDTH, channels)), 0, 1)
    return np.round(waves * (2**bits - 1)).astype(np.uint64)


def _floats(photometric: int, bits: int) -> NDArray[Any]:
    values = _integers(photometric, 16) / 65535 * 1.5 - 0.1
    return values.astype(f"f{bits // 8}")


def _case(
    name: str,
    pixels: NDArray[Any],
    outcome: Outcome = "exact",
    **options: Any,  # noqa: ANN401
) -> Case:
    return Case(f"tiff-{name}", tiff(pixels, **options), ".tif", outcome)


def tiff(
    pixels: NDArray[Any],
    *,
    photometric: int = RGB,
    bits: int = 8,
    kind: int = UNSIGNED,
    order: str = "<",
    compression: str = "none",
    planar: bool = False,
    tile: int | None = None,
    rows: int = 16,
    big: bool = False,
    tags: list[tuple[int, int, list[int]]] | None = None,
    stated: tuple[int, int] | None = None,
) -> bytes:
    """A TIFF file of (H, W, C)."""
    height, width, channels = pixels.shape
    number, encode = COMPRESSIONS[compression]
    planes = [pixels[:, :, i : i + 1] for i in range(channels)] if planar else [pixels]
    parts = [
        encode(_packed(part, bits, kind, order))
        for plane in planes
        for part in (_tiles(plane, tile) if tile else _strips(plane, rows))
    ]
    stated_height, stated_width = stated or (height, width)
    entries = {
        256: (LONG, [stated_width]),
        257: (LONG, [stated_height]),
        258: (SHORT, [bits] * channels),
        259: (SHORT, [number]),
        262: (SHORT, [photometric]),
        277: (SHORT, [channels]),
        284: (SHORT, [2 if planar else 1]),
        339: (SHORT, [kind] * channels),
    }
    if tile:
        entries |= {322: (LONG, [tile]), 323: (LONG, [tile])}
    else:
        entries |= {278: (LONG, [rows])}
    entries |= {tag: (type_, values) for tag, type_, values in tags or []}
    return _file(entries, parts, order, big=big, tiled=tile is not None)


def _strips(plane: NDArray[Any], rows: int) -> Iterator[NDArray[Any]]:
    for top in range(0, len(plane), rows):
        yield plane[top : top + rows]


def _tiles(plane: NDArray[Any], side: int) -> Iterator[NDArray[Any]]:
    for top in range(0, plane.shape[0], side):
        for left in range(0, plane.shape[1], side):
            part = plane[top : top + side, left : left + side]
            missing = [(0, side - part.shape[0]), (0, side - part.shape[1]), (0, 0)]
            yield np.pad(part, missing)


def _packed(part: NDArray[Any], bits: int, kind: int, order: str) -> bytes:
    """Samples in a row of bits; each row begins with a new byte."""
    if kind != UNSIGNED:
        return part.astype(part.dtype.newbyteorder(order)).tobytes()
    if bits in (8, 16, 32):
        return part.astype(f"{order}u{bits // 8}").tobytes()
    shifts = np.arange(bits - 1, -1, -1, dtype=np.uint64)
    ones = (part[..., None] >> shifts & 1).astype(np.uint8)  # (h, w, C) -> (h, w, C, bits)
    return np.packbits(ones.reshape(len(part), -1), axis=1).tobytes()


def _file(
    entries: dict[int, tuple[int, list[int]]],
    parts: list[bytes],
    order: str,
    *,
    big: bool,
    tiled: bool,
) -> bytes:
    address, inside = ("Q", 8) if big else ("I", 4)
    at, places = 16 if big else 8, []
    for part in parts:
        places.append(at)
        at += len(part) + len(part) % 2
    entries[324 if tiled else 273] = (LONG, places)
    entries[325 if tiled else 279] = (LONG, [len(part) for part in parts])
    body = b"".join(part + b"\0" * (len(part) % 2) for part in parts)
    rows, behind = b"", b""
    start = at + (8 if big else 2) + (20 if big else 12) * len(entries) + inside
    for tag, (type_, values) in sorted(entries.items()):
        letter = {BYTE: "B", SHORT: "H", LONG: "I"}[type_]
        value = struct.pack(f"{order}{len(values)}{letter}", *values)
        rows += struct.pack(f"{order}HH{address}", tag, type_, len(values))
        if len(value) <= inside:
            rows += value.ljust(inside, b"\0")
        else:
            rows += struct.pack(f"{order}{address}", start + len(behind))
            behind += value + b"\0" * (len(value) % 2)
    mark = {"<": b"II", ">": b"MM"}[order]
    head = struct.pack(f"{order}HHHQ", 43, 8, 0, at) if big else struct.pack(f"{order}HI", 42, at)
    count = struct.pack(f"{order}{'Q' if big else 'H'}", len(entries))
    return mark + head + body + count + rows + bytes(inside) + behind
