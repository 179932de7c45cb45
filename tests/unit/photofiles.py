"""Photo files of every supported format for the tests, intact and damaged."""

import io
import struct
import zlib

import imagecodecs
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageOps
from unit.support import natural_photo

from degrain.imaging.codecs import PhotoLayers, decode, encode_png, is_deep
from degrain.imaging.pixels import Photo, Plane

PHOTO = natural_photo(40, 56)
GREY = PHOTO[:, :, 0]
DEEP = np.random.default_rng(0).integers(0, 2**16, (40, 56, 3)).astype(np.uint16)
DEEP_GREY = DEEP[:, :, 0]
ALPHA = np.random.default_rng(1).integers(0, 256, (40, 56), dtype=np.uint8)
DEEP_ALPHA = np.random.default_rng(1).integers(0, 2**16, (40, 56)).astype(np.uint16)
PALETTE = Image.fromarray(PHOTO).quantize(16)
STRAIGHT = {"planarconfig": "contig", "extrasamples": ["unassalpha"]}
"""Options of tifffile for alpha that is not premultiplied."""
PNG = encode_png(PHOTO)


def repeated(grey: Photo) -> Photo:
    return np.repeat(grey[:, :, None], 3, axis=2)


def with_alpha(photo: Photo, alpha: int) -> Photo:
    photo = photo.reshape(*photo.shape[:2], -1)
    return np.concatenate([photo, np.full_like(photo[:, :, :1], alpha)], axis=2)


def encoded(image: Image.Image, format: str, **options: object) -> bytes:  # noqa: A002 - Pillow's own name
    buffer = io.BytesIO()
    image.save(buffer, format=format, **options)
    return buffer.getvalue()


def saved(pixels: Photo, format: str, **options: object) -> bytes:  # noqa: A002
    return encoded(Image.fromarray(pixels), format, **options)


def tiff(pixels: NDArray[np.generic], **options: object) -> bytes:
    buffer = io.BytesIO()
    colour = pixels.ndim == 3 and 3 in (pixels.shape[0], *pixels.shape[2:])
    tifffile.imwrite(
        buffer, pixels, **({"photometric": "rgb" if colour else "minisblack"} | options)
    )
    return buffer.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def raw_png(
    width: int,
    height: int,
    *,
    bits: int,
    colours: int,
    scanlines: bytes,
    before: bytes = b"",
    after: bytes = b"",
) -> bytes:
    """A PNG with other chunks before and after the pixels."""
    header = struct.pack(">IIBBBBB", width, height, bits, colours, 0, 0, 0)
    body = (
        chunk(b"IHDR", header)
        + before
        + chunk(b"IDAT", zlib.compress(scanlines))
        + after
        + chunk(b"IEND", b"")
    )
    return b"\x89PNG\r\n\x1a\n" + body


def png(pixels: Photo, before: bytes = b"", after: bytes = b"") -> bytes:
    """Encode (H, W) or (H, W, 1..4) as PNG with the same bits per channel."""
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    height, width, channels = pixels.shape
    bits = 8 * pixels.dtype.itemsize
    scanlines = b"".join(b"\x00" + row.tobytes() for row in pixels.astype(f">u{bits // 8}"))
    colours = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    return raw_png(
        width, height, bits=bits, colours=colours, scanlines=scanlines, before=before, after=after
    )


def oriented_exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[274] = orientation
    return exif


def profile(name: str) -> bytes:
    """A built-in colour profile of imagecodecs."""
    return bytes(imagecodecs.cms_profile(name))


def bmp_of_16_bits(photo: Photo) -> bytes:
    """Five, six and five bits per pixel."""
    height, width = photo.shape[:2]
    r, g, b = (photo[:, :, i].astype(np.uint16) for i in range(3))
    body = ((r >> 3 << 11) | (g >> 2 << 5) | (b >> 3))[::-1].astype("<u2").tobytes()
    start = b"BM" + struct.pack("<IHHI", 66 + len(body), 0, 0, 66)
    start += struct.pack("<IiiHHIIiiII", 40, width, height, 1, 16, 3, len(body), 0, 0, 0, 0)
    return start + struct.pack("<III", 0xF800, 0x07E0, 0x001F) + body


def cut(content: bytes, kept: float) -> bytes:
    """The start of a file: a share if `kept` is below 1, else a number of bytes, negative from the
    end.
    """
    return content[: int(len(content) * kept) if 0 < kept < 1 else int(kept)]


def flipped(content: bytes, place: float) -> bytes:
    """Invert one byte at a share of the file's length."""
    at = int(len(content) * place)
    return content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :]


orientations = pytest.mark.parametrize("orientation", range(1, 9))


def assert_decodes(content: bytes, expected: Photo) -> None:
    """Assert an exact decoding in the dtype of `expected`, and `is_deep` accordingly."""
    decoded = decode(content)
    assert decoded.dtype == expected.dtype
    assert np.array_equal(decoded, expected)
    assert decoded.flags.c_contiguous
    assert is_deep(content) == (expected.dtype == np.uint16)


def assert_layers(layers: PhotoLayers, rgb: Photo, alpha: Plane | None, *, grey: bool) -> None:
    assert layers.rgb.dtype == rgb.dtype
    assert np.array_equal(layers.rgb, rgb)
    assert layers.grey == grey
    assert (layers.alpha is None) == (alpha is None)
    if layers.alpha is not None and alpha is not None:
        assert layers.alpha.dtype == rgb.dtype
        assert np.array_equal(layers.alpha, alpha)
        assert layers.alpha.flags.c_contiguous


def upright(content: bytes) -> Photo:
    """Decode and apply the orientation with Pillow."""
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(ImageOps.exif_transpose(image))
