"""Broken and odd files decode correctly or are refused with the reason, without other output."""

import io
import re
import struct
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from unit.photofiles import (
    DEEP,
    DEEP_GREY,
    GREY,
    PHOTO,
    PNG,
    chunk,
    cut,
    encoded,
    flipped,
    oriented_exif,
    png,
    profile,
    raw_png,
    repeated,
    saved,
    tiff,
    with_alpha,
)

from degrain.imaging.codecs import (
    UnreadablePhotoError,
    decode,
    decode_layers,
    is_deep,
    pixels_by_header,
    read_stored,
)
from degrain.inference.config import OutputConfig, OutputFormat, ReadingConfig
from degrain.inference.denoiser import Identity
from degrain.inference.photo_file import denoise_content

IMAGE = Image.fromarray(PHOTO)
JPEG = saved(PHOTO, "JPEG")
WEBP = saved(PHOTO, "WEBP", lossless=True)
BMP = saved(PHOTO, "BMP")
TIFF = tiff(PHOTO)
TIFF_AT_THE_END = saved(PHOTO, "TIFF", compression="tiff_lzw")
"""Pillow writes the header of a compressed TIFF behind the pixels, tifffile before them."""
FLOATS = (DEEP / 65535).astype(np.float32)
NOT_FINITE = "some of its pixels are NaN or infinite; replace them"
UNKNOWN = (
    "it is not a photo in a known format, or damaged at its start; convert it to JPEG, PNG, TIFF, "
    "WebP or BMP"
)
IN_WORDS_OF_CODE = re.compile(r"[a-z]Error\b|codec can|argument|indices")
DAMAGED = r"it is damaged \(.+\)"
TRANSPARENT = "it is transparent in places; flatten it first"


def zip_of(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("a.png", content)
    return buffer.getvalue()


def with_size(content: bytes, width: int, height: int) -> bytes:
    """A PNG with another size in its header."""
    return (
        content[:8]
        + chunk(b"IHDR", struct.pack(">II", width, height) + content[24:29])
        + content[33:]
    )


def tiff_of_size(content: bytes, width: int, height: int) -> bytes:
    """A TIFF by tifffile with another size in its header."""
    for tag, old, new in ((256, 56, width), (257, 40, height)):
        for kind, layout in ((3, "<HHIHH"), (4, "<HHII")):
            before = struct.pack(layout, tag, kind, 1, *((old, 0) if kind == 3 else (old,)))
            content = content.replace(before, struct.pack("<HHII", tag, 4, 1, new))
    return content


def bmp_of_ten_bits() -> bytes:
    """A BMP of 32 bits a pixel, ten of each colour."""
    masks = struct.pack("<IIII", 0x3FF00000, 0xFFC00, 0x3FF, 0)
    header = struct.pack("<IiiHHIIiiII", 56, 4, 3, 1, 32, 3, 48, 2835, 2835, 0, 0) + masks
    return b"BM" + struct.pack("<IHHI", 70 + 48, 0, 0, 70) + header + bytes(48)


REFUSED = {
    "empty": (b"", "the file is empty"),
    "bmp of ten bits a colour": (
        bmp_of_ten_bits(),
        r"its kind is not read \(Unsupported BMP bitfields layout\); convert it first",
    ),
    "one byte": (b"\x89", UNKNOWN),
    "zeros": (bytes(5000), UNKNOWN),
    "html": (b"<!DOCTYPE html><html><body>404 Not Found</body></html>", UNKNOWN),
    "text": (b"no photo at all\n" * 40, UNKNOWN),
    "json": (b'{"error": "AccessDenied"}', UNKNOWN),
    "svg": (
        b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" width="8" height="8"/>',
        UNKNOWN,
    ),
    "zip": (zip_of(PNG), UNKNOWN),
    "gif": (saved(PHOTO, "GIF"), UNKNOWN),
    "postscript, which Pillow would run": (saved(PHOTO, "EPS"), UNKNOWN),
    "pdf": (b"%PDF-1.4\n" + bytes(100), UNKNOWN),
    "icon": (saved(PHOTO, "ICO"), UNKNOWN),
    "portable pixmap": (saved(PHOTO, "PPM"), UNKNOWN),
    "targa": (saved(PHOTO, "TGA"), UNKNOWN),
    "png signature cut": (PNG[:5], UNKNOWN),
    "png signature only": (PNG[:8], DAMAGED),
    "png header cut": (PNG[:20], DAMAGED),
    "png header only": (PNG[:33], "damaged"),
    "png cut at a quarter": (cut(PNG, 0.25), DAMAGED),
    "png cut in the middle": (cut(PNG, 0.5), DAMAGED),
    "png cut before its last chunk's checksum": (cut(PNG, -18), DAMAGED),
    "png with a byte flipped in the pixels": (flipped(PNG, 0.5), DAMAGED),
    "png with a byte flipped in the header": (PNG[:18] + b"\x7f" + PNG[19:], DAMAGED),
    "png with fewer rows than it claims": (
        raw_png(
            56, 41, bits=8, colours=2, scanlines=b"".join(b"\0" + row.tobytes() for row in PHOTO)
        ),
        DAMAGED,
    ),
    "png without pixels": (png(PHOTO).replace(b"IDAT", b"iDAT"), "damaged"),
    "png of no width": (with_size(PNG, 0, 40), "damaged"),
    "png with newlines converted": (PNG.replace(b"\r\n", b"\n"), UNKNOWN),
    "png with unknown compression": (
        raw_png(4, 4, bits=8, colours=2, scanlines=b"")[:40] + b"garbage" * 9,
        "damaged",
    ),
    "png16 cut": (cut(png(DEEP), 0.7), DAMAGED),
    "png16 with a byte flipped": (flipped(png(DEEP), 0.3), DAMAGED),
    "png bomb": (
        with_size(PNG, 100_000, 100_000),
        "its size is 100000x100000 pixels, over the limit of 500 megapixels",
    ),
    "jpeg bomb": (
        JPEG.replace(struct.pack(">HH", 40, 56), b"\xff\xff\xff\xff"),
        "its size is 65535x65535 pixels",
    ),
    "tiff bomb": (tiff_of_size(TIFF, 100_000, 100_000), "its size is 100000x100000 pixels"),
    "tiff16 bomb": (
        tiff_of_size(tiff(DEEP), 2**31, 2**31),
        "its size is 2147483648x2147483648 pixels",
    ),
    "tiff of no height": (tiff_of_size(TIFF, 56, 0), "its size is 56x0 pixels|damaged"),
    "transparent png": (png(with_alpha(PHOTO, 254)), TRANSPARENT),
    "transparent grey png": (png(with_alpha(GREY, 0)), TRANSPARENT),
    "transparent png16": (png(with_alpha(DEEP, 65534)), TRANSPARENT),
    "transparent grey png16": (png(with_alpha(DEEP_GREY, 65279)), TRANSPARENT),
    "png16 with a transparent colour": (
        png(DEEP, chunk(b"tRNS", DEEP[0, 0].astype(">u2").tobytes())),
        TRANSPARENT,
    ),
    "transparent webp": (encoded(Image.fromarray(with_alpha(PHOTO, 9)), "WEBP"), TRANSPARENT),
    "transparent tiff": (
        tiff(with_alpha(PHOTO, 9), photometric="rgb", extrasamples=["unassalpha"]),
        TRANSPARENT,
    ),
    "transparent tiff16": (
        tiff(with_alpha(DEEP, 9), photometric="rgb", extrasamples=["assocalpha"]),
        TRANSPARENT,
    ),
    "animated png": (
        encoded(IMAGE, "PNG", save_all=True, append_images=[IMAGE.rotate(9)]),
        "it has 2 pages or frames",
    ),
    "animated webp": (
        encoded(IMAGE, "WEBP", save_all=True, append_images=[IMAGE.rotate(9)]),
        "it has 2 pages or frames",
    ),
    "tiff of two pages": (
        encoded(IMAGE, "TIFF", save_all=True, append_images=[IMAGE]),
        "it has 2 pages or frames",
    ),
    "tiff16 of three pages": (
        tiff(np.stack([DEEP] * 3), photometric="rgb"),
        "it has 3 pages or frames",
    ),
    "cmyk jpeg": (
        encoded(IMAGE.convert("CMYK"), "JPEG"),
        "its mode is CMYK, not RGB or grey; convert it first",
    ),
    "cmyk tiff": (
        encoded(IMAGE.convert("CMYK"), "TIFF"),
        "its colours are SEPARATED, not RGB or grey; convert it first",
    ),
    "cmyk tiff16": (
        tiff(with_alpha(DEEP, 7), photometric="separated"),
        "its colours are SEPARATED",
    ),
    "lab tiff": (encoded(IMAGE.convert("LAB"), "TIFF"), "its colours are .*LAB, not RGB or grey"),
    "tiff of nine channels": (
        tiff(np.dstack([PHOTO, PHOTO, PHOTO]), photometric="rgb", planarconfig="contig"),
        "its shape is .*9.* for colours of the kind RGB",
    ),
    "tiff of 32-bit integers": (
        tiff(DEEP_GREY.astype(np.int32)),
        "its pixels are int32, not 8 or 16 bits or floats",
    ),
    "tiff of 32-bit colour": (tiff(DEEP.astype(np.uint32)), "its pixels are uint32"),
    "tiff of signed bytes": (tiff(GREY.astype(np.int8)), "its pixels are int8"),
    "tiff of signed 16 bits": (tiff(DEEP_GREY.astype(np.int16)), "its pixels are int16"),
    "tiff of complex numbers": (tiff(FLOATS.astype(np.complex64)), "its pixels are complex64"),
    "tiff of nan": (tiff(np.full((9, 9), np.nan, np.float32)), NOT_FINITE),
    "tiff with one nan": (tiff(np.where(FLOATS > 0.9999, np.nan, FLOATS)), NOT_FINITE),
    "tiff with one infinity": (tiff(np.where(FLOATS > 0.9999, np.inf, FLOATS)), NOT_FINITE),
    "tiff of infinities": (tiff(np.full((9, 9), -np.inf)), NOT_FINITE),
    "tiff of floats above one": (
        tiff(FLOATS * 2),
        r"its floats are .* to 2, not in \[0, 1\]; scale it first",
    ),
    "tiff of floats below zero": (tiff(FLOATS - np.float32(0.1)), "its floats are -0.1 to 0.9"),
    "tiff of huge floats": (tiff(FLOATS.astype(np.float64) * 1e300), r"its floats are .*1e\+300"),
    "tiff signature only": (TIFF[:4], DAMAGED),
    "tiff header cut": (TIFF[:9], DAMAGED),
    "tiff cut in its tags": (cut(TIFF, 60), DAMAGED),
    "tiff cut in the middle": (
        cut(TIFF, 0.5),
        r"it is damaged \(the file ends before its pixels\)",
    ),
    "tiff without its last byte": (cut(TIFF, -1), DAMAGED),
    "tiff16 without its last byte": (cut(tiff(DEEP), -1), DAMAGED),
    "lzw tiff16 without its last byte": (cut(tiff(DEEP, compression="lzw"), -1), DAMAGED),
    "deflated tiff16 cut": (cut(tiff(DEEP, compression="zlib"), 0.8), DAMAGED),
    "deflated tiff16 with a byte flipped": (flipped(tiff(DEEP, compression="zlib"), 0.5), DAMAGED),
    "tiff cut before its header": (cut(TIFF_AT_THE_END, 0.5), DAMAGED),
    "bmp header cut": (cut(BMP, 30), DAMAGED),
    "bmp cut in the middle": (cut(BMP, 0.5), DAMAGED),
    "bmp without its last byte": (cut(BMP, -1), DAMAGED),
    "webp header cut": (cut(WEBP, 20), DAMAGED),
    "webp cut in the middle": (cut(WEBP, 0.5), DAMAGED),
    "webp without its last byte": (cut(WEBP, -1), DAMAGED),
    "jpeg signature only": (JPEG[:3], UNKNOWN),
    "jpeg header only": (cut(JPEG, 200), "damaged"),
    "jpeg cut at a third": (cut(JPEG, 0.8), DAMAGED),
    "progressive jpeg cut": (cut(saved(PHOTO, "JPEG", progressive=True), 0.8), DAMAGED),
    "jpeg with a damaged profile": (
        saved(PHOTO, "JPEG", icc_profile=b"garbage"),
        "its colour profile is damaged",
    ),
    "png with a cut profile": (
        saved(PHOTO, "PNG", icc_profile=profile("adobergb")[:150]),
        "its colour profile is damaged",
    ),
    "png with a cmyk profile": (
        saved(
            PHOTO, "PNG", icc_profile=profile("adobergb")[:16] + b"CMYK" + profile("adobergb")[20:]
        ),
        "its colour profile is for CMYK, not RGB",
    ),
}

DAMAGED_EXIF = saved(PHOTO, "WEBP", lossless=True, exif=b"Exif\0\0garbage")

DECODED = {
    "one pixel": (png(PHOTO[:1, :1]), PHOTO[:1, :1]),
    "one deep pixel": (png(DEEP[:1, :1]), DEEP[:1, :1]),
    "tiff of one pixel": (tiff(DEEP_GREY[:1, :1]), repeated(DEEP_GREY[:1, :1])),
    "one row": (png(PHOTO[:1]), PHOTO[:1]),
    "one column": (tiff(DEEP[:, :1]), DEEP[:, :1]),
    "16-bit grey with opaque alpha": (png(with_alpha(DEEP_GREY, 65535)), repeated(DEEP_GREY)),
    "png with garbage after the end": (PNG + b"garbage" * 100, PHOTO),
    "png with two of them one after the other": (PNG + png(PHOTO[::-1]), PHOTO),
    "tiff with garbage after the end": (TIFF + b"garbage" * 100, PHOTO),
    "bmp with garbage after the end": (BMP + b"garbage" * 100, PHOTO),
    "jpeg with garbage after the end": (JPEG + b"garbage" * 100, decode(JPEG)),
    "png without its end": (cut(PNG, -12), PHOTO),
    "png with a damaged profile that no decoder can open": (
        png(PHOTO, chunk(b"iCCP", b"x\0\0garbage")),
        PHOTO,
    ),
    "png with damaged exif": (png(PHOTO, chunk(b"eXIf", b"garbage")), PHOTO),
    "png with cut exif": (png(PHOTO, chunk(b"eXIf", b"II*\0\x08\0\0\0\xff\xff")), PHOTO),
    "png with damaged exif after the pixels": (png(PHOTO, after=chunk(b"eXIf", b"garbage")), PHOTO),
    "png with an orientation that does not exist": (
        png(PHOTO, chunk(b"eXIf", oriented_exif(99).tobytes()[6:])),
        PHOTO,
    ),
    "webp with damaged exif": (DAMAGED_EXIF, PHOTO),
    "tiff with an orientation that does not exist": (
        tiff(DEEP, extratags=[(274, 3, 1, 99, True)]),
        DEEP,
    ),
    "tiff with a word for an orientation": (tiff(DEEP, extratags=[(274, 2, 4, "six", True)]), DEEP),
    "png with an unknown chunk": (png(PHOTO, chunk(b"teSt", b"anything")), PHOTO),
    "png whose text is a bomb": (
        png(PHOTO, after=chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(200_000)))),
        PHOTO,
    ),
    "floats of zero": (tiff(np.zeros((4, 5), np.float32)), np.zeros((4, 5, 3), np.uint16)),
    "floats of one": (tiff(np.ones((4, 5, 3))), np.full((4, 5, 3), 65535, np.uint16)),
}


def assert_silent(output: tuple[str, str]) -> None:
    assert output == ("", "")


@pytest.mark.parametrize("kind", REFUSED)
def test_unsupported_and_damaged_files_are_refused_with_the_reason(
    kind: str, capfd: pytest.CaptureFixture[str]
) -> None:
    content, reason = REFUSED[kind]
    with pytest.raises(UnreadablePhotoError, match=reason) as raised:
        decode(content)
    assert "\n" not in str(raised.value)
    is_deep(content)
    assert_silent(capfd.readouterr())


@pytest.mark.parametrize("kind", DECODED)
def test_odd_but_intact_files_decode(kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    content, expected = DECODED[kind]
    decoded = decode(content)
    assert decoded.dtype == expected.dtype
    assert np.array_equal(decoded, expected)
    assert_silent(capfd.readouterr())


def test_zip_with_a_photo_suffix_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(zip_of(PNG))
    with pytest.raises(UnreadablePhotoError, match=UNKNOWN):
        decode(path.read_bytes())


SMALL = np.ascontiguousarray(PHOTO[:24, :20])
SMALL_DEEP = np.ascontiguousarray(DEEP[:24, :20])
SMALL_IMAGE = Image.fromarray(SMALL)
RICH = {"exif": oriented_exif(6), "icc_profile": profile("adobergb")}
SEEDS = {
    "png": encoded(SMALL_IMAGE, "PNG", **RICH),
    "png16": png(SMALL_DEEP, chunk(b"eXIf", oriented_exif(6).tobytes()[6:])),
    "palette": encoded(SMALL_IMAGE.quantize(8), "PNG"),
    "jpeg": encoded(SMALL_IMAGE, "JPEG", **RICH),
    "progressive jpeg": encoded(SMALL_IMAGE, "JPEG", progressive=True),
    "mpo": encoded(SMALL_IMAGE, "MPO", save_all=True, append_images=[SMALL_IMAGE]),
    "bmp": encoded(SMALL_IMAGE, "BMP"),
    "palette bmp": encoded(SMALL_IMAGE.quantize(8), "BMP"),
    "webp": encoded(SMALL_IMAGE, "WEBP", **RICH),
    "lossless webp": encoded(SMALL_IMAGE, "WEBP", lossless=True),
    "tiff": encoded(SMALL_IMAGE, "TIFF", **RICH),
    "lzw tiff": encoded(SMALL_IMAGE, "TIFF", compression="tiff_lzw"),
    "jpeg tiff": encoded(SMALL_IMAGE, "TIFF", compression="jpeg"),
    "palette tiff": encoded(SMALL_IMAGE.quantize(8), "TIFF"),
    "fax": encoded(SMALL_IMAGE.convert("1"), "TIFF", compression="group4"),
    "tiff16": tiff(SMALL_DEEP),
    "big tiff16": tiff(SMALL_DEEP, bigtiff=True, byteorder=">"),
    "deflated tiff16": tiff(SMALL_DEEP, compression="zlib", predictor=True),
    "tiff16 in tiles": tiff(SMALL_DEEP, compression="lzw", tile=(16, 16)),
    "float tiff": tiff(FLOATS[:24, :20]),
    "png with alpha": png(with_alpha(SMALL, 9)),
    "grey png16 with alpha": png(with_alpha(SMALL_DEEP[:, :, 0], 9)),
    "palette png with alpha": encoded(SMALL_IMAGE.quantize(8), "PNG", transparency=bytes(range(8))),
    "webp with alpha": encoded(Image.fromarray(with_alpha(SMALL, 9)), "WEBP"),
    "tiff16 multiplied by alpha": tiff(
        with_alpha(SMALL_DEEP, 9), photometric="rgb", extrasamples=["assocalpha"]
    ),
}
places = st.floats(0, 1, exclude_max=True)
damage = st.one_of(
    # Most of what matters stands near the start.
    st.tuples(st.just("set"), places.map(lambda x: x * x), st.integers(0, 255)),
    st.tuples(st.just("delete"), places, st.integers(1, 8)),
    st.tuples(st.just("insert"), places, st.integers(1, 8)),
    st.tuples(st.just("cut"), places, st.just(0)),
)


def damaged(content: bytes, how: str, place: float, value: int) -> bytes:
    at = int(place * len(content))
    if how == "set":
        return content[:at] + bytes([value]) + content[at + 1 :]
    if how == "insert":
        return content[:at] + b"\xff" * value + content[at:]
    return content[:at] + (content[at + value :] if how == "delete" else b"")


@pytest.mark.slow
@pytest.mark.parametrize("kind", SEEDS)
def test_random_damage_decodes_or_is_refused(kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Random damage: bytes changed, inserted, deleted or cut off."""

    @settings(max_examples=60, deadline=None, database=None)
    @given(damages=st.lists(damage, min_size=1, max_size=6))
    def decodes_or_refuses(damages: list[tuple[str, float, int]]) -> None:
        content = SEEDS[kind]
        for how, place, value in damages:
            content = damaged(content, how, place, value)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            deep = is_deep(content)
            try:
                layers = decode_layers(content, largest_megapixels=1)
            except UnreadablePhotoError as reason:
                assert not IN_WORDS_OF_CODE.search(str(reason))  # noqa: PT017
                return
        photo = layers.rgb
        assert photo.ndim == 3
        assert photo.shape[2] == 3
        assert photo.size
        assert photo.dtype == (np.uint16 if deep else np.uint8)
        assert layers.alpha is None or (layers.alpha.shape, layers.alpha.dtype) == (
            photo.shape[:2],
            photo.dtype,
        )

    decodes_or_refuses()
    assert_silent(capfd.readouterr())


RICH_SEEDS = SEEDS | {
    "png with texts": png(
        SMALL,
        chunk(b"iCCP", b"icc\0\0" + zlib.compress(profile("adobergb")))
        + chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b"<x:xmpmeta/>"))
        + chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n 4\n49492a00"))
        + chunk(b"gAMA", (100_000).to_bytes(4))
        + chunk(b"cHRM", bytes(range(32)))
        + chunk(b"cICP", bytes([9, 16, 0, 1]))
        + chunk(b"pHYs", bytes(9)),
    ),
    "animated png": encoded(SMALL_IMAGE, "PNG", save_all=True, append_images=[SMALL_IMAGE]),
    "jpeg with segments": saved(SMALL, "JPEG", comment=b"hello", xmp=b"<x:xmpmeta/>", **RICH),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", RICH_SEEDS)
def test_randomly_damaged_files_are_denoised_or_refused(kind: str) -> None:
    @settings(max_examples=40, deadline=None, database=None)
    @given(
        damages=st.lists(damage, min_size=1, max_size=6),
        file_format=st.sampled_from([None, "jpeg", "png", "tiff", "webp"]),
    )
    def denoises_or_refuses(
        damages: list[tuple[str, float, int]], file_format: OutputFormat | None
    ) -> None:
        content = RICH_SEEDS[kind]
        for how, place, value in damages:
            content = damaged(content, how, place, value)
        output, reading = OutputConfig(format=file_format), ReadingConfig(largest_megapixels=1)
        pixels_by_header(content)
        try:
            done = denoise_content(content, Identity(), output=output, reading=reading)
        except UnreadablePhotoError as error:
            assert "\n" not in str(error)  # noqa: PT017
        else:
            read_stored(done.content)

    denoises_or_refuses()


ANIMATED = encoded(IMAGE, "PNG", save_all=True, append_images=[IMAGE.rotate(9)])
CONTROL = ANIMATED[ANIMATED.index(b"acTL") - 4 :][:20]


@pytest.mark.parametrize(
    "control",
    [
        b"",
        CONTROL * 2,
        chunk(b"acTL", struct.pack(">II", 0, 0)),
        chunk(b"acTL", struct.pack(">II", 1, 0)),
        CONTROL[:-1] + b"\0",
    ],
    ids=["absent", "twice", "no frames", "one frame", "damaged"],
)
def test_animations_are_refused_whatever_their_header_claims(control: bytes) -> None:
    with pytest.raises(UnreadablePhotoError, match="it has 2 pages or frames"):
        decode(ANIMATED.replace(CONTROL, control))


def test_damage_of_compressed_metadata_does_not_escape() -> None:
    damaged_xmp = chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0garbage")
    for content in (png(PHOTO, damaged_xmp), png(PHOTO, b"", damaged_xmp)):
        for file_format in (None, "jpeg"):
            done = denoise_content(
                content,
                Identity(),
                output=OutputConfig(format=file_format),
                reading=ReadingConfig(),
            )
            lost = ("dropped: the PNG text 'XML:com.adobe.xmp'",)
            assert done.notes == (lost if file_format else ())
