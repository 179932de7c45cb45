"""Photo files: what is read is read exactly, what would lose something is refused with the reason."""

import io
import struct
import zlib

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from unit.support import natural_photo, random_photo, smooth_photo

from degrain.imaging.codecs import UnreadablePhotoError, decode, encode_png, is_photo

PHOTO = natural_photo(40, 56)
PNG = encode_png(PHOTO)


def encoded(image: Image.Image, format: str, **options: object) -> bytes:  # noqa: A002 - Pillow's own name
    buffer = io.BytesIO()
    image.save(buffer, format=format, **options)
    return buffer.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def raw_png(width: int, height: int, *, bits: int, colours: int, scanlines: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, bits, colours, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(scanlines)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@settings(max_examples=25, deadline=None)
@given(height=st.integers(1, 40), width=st.integers(1, 40), seed=st.integers(0, 99))
def test_png_round_trip(height: int, width: int, seed: int) -> None:
    photo = random_photo(height, width, seed)
    decoded = decode(encode_png(photo))
    assert decoded.dtype == np.uint8
    assert np.array_equal(decoded, photo)


@pytest.mark.parametrize(
    ("format", "options"),
    [("BMP", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("WEBP", {"lossless": True}), ("PNG", {})],
)
def test_lossless_formats_decode_exactly(format: str, options: dict[str, object]) -> None:  # noqa: A002
    assert np.array_equal(decode(encoded(Image.fromarray(PHOTO), format, **options)), PHOTO)


@pytest.mark.parametrize("format", ["JPEG", "WEBP"])
def test_lossy_formats_decode_nearly(format: str) -> None:  # noqa: A002
    photo = smooth_photo(40, 56)
    decoded = decode(encoded(Image.fromarray(photo), format, quality=95))
    assert decoded.shape == photo.shape
    assert np.abs(decoded.astype(int) - photo).mean() < 4


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF"])
def test_grey_is_repeated_over_the_channels(format: str) -> None:  # noqa: A002
    grey = PHOTO[:, :, 0]
    decoded = decode(encoded(Image.fromarray(grey), format))
    assert np.array_equal(decoded, np.repeat(grey[:, :, None], 3, axis=2))


def test_palette_and_bitmap_are_promoted() -> None:
    palette = Image.fromarray(PHOTO).quantize(16)
    assert np.array_equal(decode(encoded(palette, "PNG")), np.asarray(palette.convert("RGB")))
    bits = Image.fromarray(PHOTO).convert("1")
    assert set(np.unique(decode(encoded(bits, "PNG")))) == {0, 255}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"<!DOCTYPE html><html><body>404 Not Found</body></html>", "not a photo in a known format"),
        (b"\x00" * 5000, "not a photo in a known format"),
        (PNG[:5], "not a photo in a known format"),
        (encoded(Image.fromarray((PHOTO[:, :, 0].astype(np.uint16) << 8) + 3), "PNG"), "its mode is I;16, not 8-bit"),
        (encoded(Image.fromarray(PHOTO).convert("RGBA"), "PNG"), "its mode is RGBA, not 8-bit"),
        (encoded(Image.fromarray(PHOTO).convert("LA"), "PNG"), "its mode is LA, not 8-bit"),
        (encoded(Image.fromarray(PHOTO).convert("CMYK"), "JPEG"), "its mode is CMYK, not 8-bit"),
        (encoded(Image.fromarray(PHOTO[:, :, 0].astype(np.float32)), "TIFF"), "its mode is F, not 8-bit"),
    ],
    ids=["empty", "html", "zeros", "cut signature", "16-bit grey", "rgba", "grey alpha", "cmyk", "float"],
)
def test_what_would_lose_something_is_refused_with_the_reason(content: bytes, reason: str) -> None:
    with pytest.raises(UnreadablePhotoError, match=reason):
        decode(content)


@pytest.mark.parametrize("colour", [(0, 0, 0), 0])
def test_a_transparent_colour_is_refused(colour: tuple[int, int, int] | int) -> None:
    image = Image.fromarray(PHOTO if isinstance(colour, tuple) else PHOTO[:, :, 0])
    with pytest.raises(UnreadablePhotoError, match="it has a transparent colour"):
        decode(encoded(image, "PNG", transparency=colour))


def test_sixteen_bit_colour_is_refused() -> None:
    """Pillow would drop the lower eight bits without a word."""
    pixels = np.random.default_rng(0).integers(0, 2**16, (4, 5, 3)).astype(">u2")
    scanlines = b"".join(b"\x00" + row.tobytes() for row in pixels)
    with pytest.raises(UnreadablePhotoError, match=r"16|8-bit"):
        decode(raw_png(5, 4, bits=16, colours=2, scanlines=scanlines))


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("planes", ["contig", "separate"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_sixteen_bit_tiff_is_refused(compression: str | None, planes: str, order: str) -> None:
    shape = (3, 5, 6) if planes == "separate" else (5, 6, 3)
    pixels = np.random.default_rng(0).integers(0, 2**16, shape).astype(np.uint16)
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, photometric="rgb", compression=compression, planarconfig=planes, byteorder=order)
    with pytest.raises(UnreadablePhotoError, match=r"16|8-bit"):
        decode(buffer.getvalue())


def test_tiff_in_separate_planes_decodes_exactly() -> None:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, PHOTO.transpose(2, 0, 1), photometric="rgb", planarconfig="separate")
    assert np.array_equal(decode(buffer.getvalue()), PHOTO)


def test_too_many_pixels_are_refused_by_their_number() -> None:
    with pytest.raises(UnreadablePhotoError, match="it has 30000x20000 pixels, over"):
        decode(raw_png(30000, 20000, bits=8, colours=2, scanlines=b""))


def test_a_photo_of_a_hundred_megapixels_is_no_cause_for_a_warning() -> None:
    """Cameras take them. The test spares itself the pixels: it is only after the header that the file is found cut."""
    with pytest.raises(UnreadablePhotoError, match="damaged"):
        decode(raw_png(12000, 8400, bits=8, colours=2, scanlines=b""))


@pytest.mark.parametrize("kept", [9, 20, 40, 0.25, 0.5, 0.9])
def test_a_truncated_png_is_refused(kept: float) -> None:
    cut = PNG[: kept if isinstance(kept, int) else int(len(PNG) * kept)]
    with pytest.raises(UnreadablePhotoError, match=r"damaged \(.+\)|not a photo in a known format"):
        decode(cut)


@pytest.mark.parametrize("kept", [0.3, 0.8])
def test_a_truncated_jpeg_is_refused(kept: float) -> None:
    content = encoded(Image.fromarray(PHOTO), "JPEG")
    with pytest.raises(UnreadablePhotoError, match="damaged"):
        decode(content[: int(len(content) * kept)])


def test_a_flipped_bit_is_refused() -> None:
    middle = len(PNG) // 2
    with pytest.raises(UnreadablePhotoError, match="damaged"):
        decode(PNG[:middle] + bytes([PNG[middle] ^ 0xFF]) + PNG[middle + 1 :])


@settings(max_examples=60, deadline=None)
@given(kept=st.integers(0, len(PNG) - 1))
def test_a_cut_png_is_refused_or_whole(kept: int) -> None:
    """Only the closing chunk may be missing; a photo with grey rows in place of the lost ones never comes out."""
    try:
        decoded = decode(PNG[:kept])
    except UnreadablePhotoError:
        return
    assert np.array_equal(decoded, PHOTO)


@pytest.mark.parametrize("suffix", ["png", "jpg", "jpeg", "bmp", "tif", "tiff", "webp"])
def test_photos_are_known_by_suffix_in_any_case(suffix: str) -> None:
    assert is_photo(f"a b/%41é.x.{suffix}")
    assert is_photo(f"A.{suffix.upper()}")
    assert is_photo(f"a.{suffix.capitalize()}")


@pytest.mark.parametrize("name", ["a.txt", "png", ".png", "a.png.part", "a.png/b", "a.pngx", "a", ""])
def test_other_names_are_no_photos(name: str) -> None:
    assert not is_photo(name)
