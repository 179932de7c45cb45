"""Odd PNG, JPEG, WebP and BMP files, written here."""

import io
import struct
from collections.abc import Iterator

import imagecodecs
import numpy as np
from PIL import Image
from torture import bmp_cases, png_cases
from torture.case import Case

SIZES = ((1, 1), (7, 9), (16, 16), (33, 50))
EXIF = b"Exif\0\0" + png_cases.EXIF
ADOBE = bytes(imagecodecs.cms_profile("adobergb"))
XMP = b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta/>"
SEGMENTS: dict[str, tuple[int, bytes]] = {
    "jfif": (0xE0, b"JFIF\0\1\2\1\1\x2c\0\x96\0\0"),
    "jfxx": (0xE0, b"JFXX\0\x13" + bytes(5)),
    "exif": (0xE1, EXIF),
    "xmp": (0xE1, XMP),
    "extended-xmp": (0xE1, b"http://ns.adobe.com/xmp/extension/\0" + b"A" * 32 + bytes(40)),
    "profile": (0xE2, b"ICC_PROFILE\0\1\1" + ADOBE),
    "profile-part": (0xE2, b"ICC_PROFILE\0\1\2" + ADOBE),
    "pictures": (0xE2, b"MPF\0" + bytes(80)),
    "gain-map": (0xE2, b"urn:iso:std:iso:ts:21496:-1\0" + bytes(4)),
    "flashpix": (0xE2, b"FPXR\0" + bytes(9)),
    "credentials": (0xEB, b"JP\0\1\0\0\0\1" + struct.pack(">I", 60) + b"jumbc2pa" + bytes(48)),
    "ducky": (0xEC, b"Ducky\0\1"),
    "photoshop": (0xED, b"Photoshop 3.0\x008BIM\4\4\0\0\0\0\0\0"),
    "comment": (0xFE, b"a comment"),
    "empty": (0xE5, b""),
    "longest": (0xE9, bytes(65533)),
}


def photo(size: tuple[int, int], channels: int = 3) -> Image.Image:
    """Waves with some noise, (H, W)."""
    rng = np.random.default_rng([*size, channels])
    rows, columns, layers = np.ogrid[: size[0], : size[1], :channels]
    waves = 128 + 90 * np.sin(rows / 5 + layers) * np.cos(columns / 7 + layers)
    values = np.clip(waves + rng.normal(0, 5, (*size, channels)), 0, 255).astype(np.uint8)
    return Image.fromarray(values[:, :, 0] if channels == 1 else values)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    """The file of an image by Pillow."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def segment(marker: int, body: bytes) -> bytes:
    """A segment of a JPEG."""
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def cases() -> Iterator[Case]:
    """All files of the types that Pillow and imagecodecs read, but TIFF."""
    yield from png_cases.cases()
    yield from bmp_cases.cases()
    yield from _jpeg_cases()
    yield from _jpeg_segment_cases()
    yield from _webp_cases()


def _jpeg_cases() -> Iterator[Case]:
    for size in SIZES:
        for name, options in {
            "444": {"subsampling": 0},
            "422": {"subsampling": 1},
            "420": {"subsampling": 2},
            "progressive": {"progressive": True},
            "progressive-444": {"progressive": True, "subsampling": 0},
            "optimized": {"optimize": True},
            "restarts": {"restart_marker_blocks": 1},
            "restart-rows": {"restart_marker_rows": 1, "progressive": True},
            "quality-1": {"quality": 1},
            "quality-100": {"quality": 100},
            "rgb": {"keep_rgb": True},
        }.items():
            for channels in (1, 3):
                image = photo(size, channels)
                if channels == 1 and name in ("422", "420", "rgb"):
                    continue
                kind = f"jpeg-{name}-{'grey' if channels == 1 else 'colour'}-{size[1]}x{size[0]}"
                yield Case(kind, saved(image, "JPEG", **options), ".jpg", "close")
    plain = saved(photo((33, 50)), "JPEG")
    yield Case("jpeg-no-jfif", plain[:2] + plain[20:], ".jpg", "close")
    yield Case("jpeg-fill-bytes", plain[:2] + b"\xff" * 5 + plain[2:], ".jpg", "close")
    yield Case("jpeg-zeros-behind", plain + bytes(100), ".jpg", "close")
    yield Case("jpeg-video-behind", plain + b"\0\0\0\x18ftypmp42" + bytes(99), ".jpg", "close")
    deep = np.zeros((16, 16, 3), np.uint16)
    for name, content in {
        "cmyk": saved(photo((33, 50)).convert("CMYK"), "JPEG"),
        "cut": plain[:-30],
        "header": plain[:300],
        "12-bits": bytes(imagecodecs.jpeg8_encode(deep, bitspersample=12)),
        "lossless": bytes(imagecodecs.ljpeg_encode(np.zeros((16, 16), np.uint16))),
    }.items():
        yield Case(f"jpeg-{name}", content, ".jpg", "refused")


def _jpeg_segment_cases() -> Iterator[Case]:
    for channels in (1, 3):
        plain = saved(photo((33, 50), channels), "JPEG")
        for name, (marker, body) in SEGMENTS.items():
            content = plain[:2] + segment(marker, body) + plain[2:]
            yield Case(f"jpeg-{name}-{channels}", content, ".jpg", "close")
        every = b"".join(segment(marker, body) for marker, body in SEGMENTS.values())
        yield Case(f"jpeg-all-{channels}", plain[:2] + every + plain[2:], ".jpg", "close")


def _webp_cases() -> Iterator[Case]:
    metadata = {"exif": EXIF, "xmp": b"<x:xmpmeta/>", "icc_profile": ADOBE}
    for size in SIZES:
        for channels in (3, 4):
            image = photo(size, channels)
            name = f"{channels}-{size[1]}x{size[0]}"
            for method in (0, 6):
                lossless = saved(image, "WEBP", lossless=True, exact=True, method=method)
                yield Case(f"webp-lossless-{method}-{name}", lossless, ".webp")
                lossy = saved(image, "WEBP", quality=80, method=method)
                yield Case(f"webp-lossy-{method}-{name}", lossy, ".webp", "close")
            for kind, body in metadata.items():
                content = saved(image, "WEBP", lossless=True, exact=True, **{kind: body})
                yield Case(f"webp-{kind}-{name}", content, ".webp")
    plain = saved(photo((33, 50)), "WEBP", lossless=True)
    unknown = plain + b"teSt\4\0\0\0body"
    unknown = plain[:4] + struct.pack("<I", len(unknown) - 8) + unknown[8:]
    yield Case("webp-unknown-chunk", unknown, ".webp")
    yield Case("webp-zeros-behind", plain + bytes(50), ".webp")
    frames = [photo((33, 50)), photo((33, 50)).rotate(9)]
    animated = saved(frames[0], "WEBP", save_all=True, append_images=frames[1:])
    yield Case("webp-animation", animated, ".webp", "refused")
    yield Case("webp-cut", plain[:-20], ".webp", "refused")
