"""Photo files decode exactly or are refused with the reason, and PNG files are written exactly."""

import io

import imagecodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from unit.photofiles import (
    ALPHA,
    DEEP,
    DEEP_ALPHA,
    DEEP_GREY,
    GREY,
    PALETTE,
    PHOTO,
    PNG,
    STRAIGHT,
    assert_decodes,
    assert_layers,
    bmp_of_16_bits,
    chunk,
    encoded,
    orientations,
    oriented_exif,
    png,
    raw_png,
    repeated,
    saved,
    tiff,
    upright,
    with_alpha,
)
from unit.support import random_photo, smooth_photo

from degrain.imaging.codecs import (
    UnreadablePhotoError,
    decode,
    decode_layers,
    encode_png,
    is_deep,
    is_photo,
    read_stored,
)
from degrain.imaging.pixels import Photo, Plane, channel_mean, sixteen_bits
from degrain.imaging.writers import encode_png_pixels


@settings(max_examples=25, deadline=None)
@given(
    height=st.integers(1, 40), width=st.integers(1, 40), seed=st.integers(0, 99), deep=st.booleans()
)
def test_png_round_trip(height: int, width: int, seed: int, deep: bool) -> None:
    photo = random_photo(height, width, seed)
    if deep:
        photo = photo.astype(np.uint16) * 200 + photo[::-1]
    assert_decodes(encode_png(photo), photo)


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    seed=st.integers(0, 99),
    deep=st.booleans(),
    grey=st.booleans(),
    transparent=st.booleans(),
)
def test_png_round_trip_preserves_all_layers(
    height: int, width: int, seed: int, deep: bool, grey: bool, transparent: bool
) -> None:
    kind = np.uint16 if deep else np.uint8
    pixels = np.random.default_rng(seed).integers(
        0, np.iinfo(kind).max, (height, width, 4), dtype=kind, endpoint=True
    )
    rgb = repeated(pixels[:, :, 0]) if grey else np.ascontiguousarray(pixels[:, :, :3])
    alpha = pixels[:, :, 3] if transparent else None
    colours = np.ascontiguousarray(rgb[:, :, :1]) if grey else rgb
    content = encode_png_pixels(colours if alpha is None else np.dstack([colours, alpha]))
    assert_layers(decode_layers(content), rgb, alpha, grey=grey)
    stored = imagecodecs.png_decode(content)
    assert stored.reshape(height, width, -1).shape[2] == (1 if grey else 3) + transparent
    assert stored.dtype == kind


def test_encodes_a_view_of_one_pixel() -> None:
    pixel = with_alpha(DEEP, 9)[:1, :1, :3]
    assert_decodes(encode_png(pixel), pixel)


@pytest.mark.parametrize("photo", [PHOTO, DEEP], ids=["8", "16"])
def test_grey_is_the_rounded_mean_of_the_channels(photo: Photo) -> None:
    expected = np.round(photo.mean(axis=2))
    assert np.array_equal(channel_mean(photo)[:, :, 0], expected)
    assert len({int(x) for x in photo.sum(axis=2).ravel() % 3}) == 3


FLOATS = (np.dstack([DEEP, DEEP_ALPHA]) / 65535).astype(np.float32)


OPACITIES = bytes(range(0, 256, 17))
"""Alpha per palette colour."""


@pytest.mark.parametrize(
    ("content", "rgb", "alpha", "grey"),
    [
        pytest.param(png(PHOTO), PHOTO, None, False, id="png"),
        pytest.param(png(GREY), repeated(GREY), None, True, id="grey png"),
        pytest.param(png(DEEP_GREY), repeated(DEEP_GREY), None, True, id="grey png16"),
        pytest.param(png(np.dstack([PHOTO, ALPHA])), PHOTO, ALPHA, False, id="png with alpha"),
        pytest.param(
            png(np.dstack([DEEP, DEEP_ALPHA])), DEEP, DEEP_ALPHA, False, id="png16 with alpha"
        ),
        pytest.param(
            png(np.dstack([GREY, ALPHA])), repeated(GREY), ALPHA, True, id="grey png with alpha"
        ),
        pytest.param(
            png(np.dstack([DEEP_GREY, DEEP_ALPHA])),
            repeated(DEEP_GREY),
            DEEP_ALPHA,
            True,
            id="grey png16 with alpha",
        ),
        pytest.param(
            png(with_alpha(DEEP, 65535)),
            DEEP,
            np.full_like(DEEP_GREY, 65535),
            False,
            id="png16, opaque",
        ),
        pytest.param(
            png(with_alpha(GREY, 255)),
            repeated(GREY),
            np.full_like(GREY, 255),
            True,
            id="grey png, opaque",
        ),
        pytest.param(
            encoded(PALETTE, "PNG", transparency=OPACITIES),
            np.asarray(PALETTE.convert("RGB")),
            np.asarray(PALETTE) * np.uint8(17),
            False,
            id="palette png with transparent colours",
        ),
        pytest.param(
            png(GREY, chunk(b"tRNS", bytes([0, GREY[0, 0]]))),
            repeated(GREY),
            np.where(GREY[0, 0] == GREY, 0, 255).astype(np.uint8),
            True,
            id="grey png with a transparent colour",
        ),
        pytest.param(
            png(DEEP, chunk(b"tRNS", DEEP[0, 0].astype(">u2").tobytes())),
            DEEP,
            np.where((DEEP[0, 0] == DEEP).all(axis=2), 0, 65535).astype(np.uint16),
            False,
            id="png16 with a transparent colour",
        ),
        pytest.param(
            encoded(Image.fromarray(np.dstack([PHOTO, ALPHA])), "WEBP", lossless=True, exact=True),
            PHOTO,
            ALPHA,
            False,
            id="webp with alpha",
        ),
        pytest.param(
            tiff(np.dstack([PHOTO, ALPHA]), photometric="rgb", **STRAIGHT),
            PHOTO,
            ALPHA,
            False,
            id="tiff with alpha",
        ),
        pytest.param(
            tiff(np.dstack([DEEP, DEEP_ALPHA]), photometric="rgb", **STRAIGHT),
            DEEP,
            DEEP_ALPHA,
            False,
            id="tiff16 with alpha",
        ),
        pytest.param(
            tiff(
                np.moveaxis(np.dstack([DEEP, DEEP_ALPHA]), -1, 0),
                photometric="rgb",
                planarconfig="separate",
                extrasamples=["unassalpha"],
            ),
            DEEP,
            DEEP_ALPHA,
            False,
            id="tiff16 with alpha in planes",
        ),
        pytest.param(
            tiff(FLOATS, photometric="rgb", **STRAIGHT),
            DEEP,
            DEEP_ALPHA,
            False,
            id="float tiff with alpha",
        ),
        pytest.param(
            tiff(np.dstack([GREY, ALPHA]), **STRAIGHT),
            repeated(GREY),
            ALPHA,
            True,
            id="grey tiff with alpha",
        ),
        pytest.param(
            tiff(np.dstack([DEEP_GREY, DEEP_ALPHA]), **STRAIGHT),
            repeated(DEEP_GREY),
            DEEP_ALPHA,
            True,
            id="grey tiff16 with alpha",
        ),
        pytest.param(
            tiff(np.dstack([GREY, ALPHA]), photometric="miniswhite", **STRAIGHT),
            repeated(255 - GREY),
            ALPHA,
            True,
            id="tiff with alpha, white is zero",
        ),
        pytest.param(
            tiff(np.dstack([PHOTO, ALPHA]), photometric="rgb", extrasamples=["unspecified"]),
            PHOTO,
            None,
            False,
            id="tiff with an unspecified channel",
        ),
        pytest.param(
            tiff(with_alpha(DEEP, 65535), photometric="rgb", extrasamples=["assocalpha"]),
            DEEP,
            np.full_like(DEEP_GREY, 65535),
            False,
            id="tiff16 multiplied by opaque alpha",
        ),
    ],
)
def test_alpha_and_grey_are_read_exactly(
    content: bytes, rgb: Photo, alpha: Plane | None, grey: bool
) -> None:
    assert_layers(decode_layers(content), rgb, alpha, grey=grey)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param(encoded(Image.fromarray(PHOTO).convert("1"), "PNG"), True, id="bitmap"),
        pytest.param(
            encoded(Image.fromarray(PHOTO).convert("1"), "TIFF", compression="group4"),
            True,
            id="fax",
        ),
        pytest.param(saved(GREY, "JPEG"), True, id="grey jpeg"),
        pytest.param(saved(GREY, "BMP"), True, id="grey bmp"),
        pytest.param(tiff(DEEP_GREY), True, id="grey tiff16"),
        pytest.param(saved(PHOTO, "JPEG"), False, id="jpeg"),
        pytest.param(saved(repeated(GREY), "PNG"), False, id="colours that happen to be grey"),
        pytest.param(encoded(PALETTE, "PNG"), False, id="palette"),
    ],
)
def test_files_of_one_channel_are_grey(content: bytes, expected: bool) -> None:
    layers = decode_layers(content)
    assert layers.grey == expected
    assert layers.alpha is None


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param(saved(PHOTO, "BMP"), PHOTO, id="bmp"),
        pytest.param(
            encoded(Image.fromarray(PHOTO).convert("RGBA"), "BMP"), PHOTO, id="bmp of 32 bits"
        ),
        pytest.param(saved(PHOTO, "WEBP", lossless=True), PHOTO, id="webp"),
        pytest.param(
            encoded(Image.fromarray(PHOTO).convert("RGBA"), "WEBP", lossless=True),
            PHOTO,
            id="webp, opaque",
        ),
        pytest.param(saved(GREY, "BMP"), repeated(GREY), id="grey bmp"),
        pytest.param(png(PHOTO), PHOTO, id="png"),
        pytest.param(png(GREY), repeated(GREY), id="grey png"),
        pytest.param(png(with_alpha(PHOTO, 255)), PHOTO, id="png, opaque"),
        pytest.param(png(with_alpha(GREY, 255)), repeated(GREY), id="grey png, opaque"),
        pytest.param(png(DEEP), DEEP, id="png16"),
        pytest.param(png(DEEP_GREY), repeated(DEEP_GREY), id="grey png16"),
        pytest.param(png(with_alpha(DEEP, 65535)), DEEP, id="png16, opaque"),
        pytest.param(
            png(with_alpha(DEEP_GREY, 65535)), repeated(DEEP_GREY), id="grey png16, opaque"
        ),
        pytest.param(
            png(DEEP, chunk(b"tRNS", DEEP.max(axis=(0, 1)).astype(">u2").tobytes())),
            DEEP,
            id="png16, unused colour",
        ),
        pytest.param(
            png(PHOTO // 2, chunk(b"tRNS", bytes([0, 200] * 3))),
            PHOTO // 2,
            id="png, unused colour",
        ),
        pytest.param(png(PHOTO, chunk(b"gAMA", b"\0\0\xb1\x8f")), PHOTO, id="png with gamma"),
        pytest.param(
            tiff(with_alpha(PHOTO, 255), photometric="rgb", extrasamples=["unassalpha"]),
            PHOTO,
            id="tiff, opaque",
        ),
        pytest.param(
            tiff(with_alpha(DEEP, 65535), photometric="rgb", extrasamples=["unassalpha"]),
            DEEP,
            id="tiff16, opaque",
        ),
        pytest.param(
            tiff(with_alpha(DEEP_GREY, 65535), planarconfig="contig", extrasamples=["unassalpha"]),
            repeated(DEEP_GREY),
            id="grey tiff16, opaque",
        ),
        pytest.param(tiff(GREY), repeated(GREY), id="grey tiff"),
        pytest.param(
            tiff(GREY, photometric="miniswhite"),
            repeated(255 - GREY),
            id="grey tiff, white is zero",
        ),
        pytest.param(
            tiff(DEEP_GREY, photometric="miniswhite"),
            repeated(65535 - DEEP_GREY),
            id="tiff16, white is zero",
        ),
        pytest.param(tiff(DEEP, tile=(16, 16)), DEEP, id="tiff16 in tiles"),
        pytest.param(tiff(DEEP, bigtiff=True), DEEP, id="big tiff16"),
        pytest.param(
            tiff(PHOTO, compression="jpeg2000"),
            PHOTO,
            id="tiff of a compression that Pillow does not know",
        ),
    ],
)
def test_lossless_files_decode_exactly(content: bytes, expected: Photo) -> None:
    assert_decodes(content, expected)


@pytest.mark.parametrize("format", ["JPEG", "WEBP", "MPO"])
def test_lossy_formats_decode_nearly(format: str) -> None:  # noqa: A002
    photo = smooth_photo(40, 56)
    content = saved(photo, format, quality=95)
    decoded = decode(content)
    assert decoded.shape == photo.shape
    assert np.abs(decoded.astype(int) - photo).mean() < 4
    assert np.array_equal(decoded, np.asarray(Image.open(io.BytesIO(content)).convert("RGB")))
    assert not is_deep(content)


def test_stereo_mpo_decodes_its_first_view() -> None:
    view = smooth_photo(40, 56)
    content = encoded(
        Image.fromarray(view), "MPO", save_all=True, append_images=[Image.fromarray(255 - view)]
    )
    assert np.abs(decode(content).astype(int) - view).mean() < 8


def test_grey_jpeg_is_repeated_over_the_channels() -> None:
    decoded = decode(saved(GREY, "JPEG"))
    assert np.array_equal(decoded, repeated(decoded[:, :, 1]))


def test_bmp_of_five_bits_is_not_deep() -> None:
    content = bmp_of_16_bits(PHOTO)
    decoded = decode(content)
    assert decoded.dtype == np.uint8
    assert np.abs(decoded.astype(int) - PHOTO).max() <= 8
    assert not is_deep(content)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_few_bits_and_palettes_are_promoted(bits: int) -> None:
    random = np.random.default_rng(bits)
    indices = random.integers(0, 2**bits, (6, 16)).astype(np.uint8)
    each_bit = np.unpackbits(indices[:, :, None], axis=2)[:, :, 8 - bits :]
    scanlines = b"".join(b"\x00" + np.packbits(row).tobytes() for row in each_bit)
    grey = (indices * (255 // (2**bits - 1))).astype(np.uint8)
    assert_decodes(raw_png(16, 6, bits=bits, colours=0, scanlines=scanlines), repeated(grey))
    transparent = chunk(b"tRNS", bytes([0, indices[0, 0]]))
    layers = decode_layers(
        raw_png(16, 6, bits=bits, colours=0, scanlines=scanlines, before=transparent)
    )
    assert_layers(
        layers, repeated(grey), np.where(grey[0, 0] == grey, 0, 255).astype(np.uint8), grey=True
    )
    stored = read_stored(raw_png(16, 6, bits=bits, colours=0, scanlines=scanlines))
    assert stored.changes == ((f"{bits} bits became 8",) if bits < 8 else ())
    colours = random.integers(0, 256, (2**bits, 3), dtype=np.uint8)
    palette = chunk(b"PLTE", colours.tobytes())
    assert_decodes(
        raw_png(16, 6, bits=bits, colours=3, scanlines=scanlines, before=palette), colours[indices]
    )
    opaque = palette + chunk(b"tRNS", b"\xff" * 2**bits)
    assert_decodes(
        raw_png(16, 6, bits=bits, colours=3, scanlines=scanlines, before=opaque), colours[indices]
    )
    with pytest.raises(UnreadablePhotoError, match="transparent in places"):
        decode(
            raw_png(
                16,
                6,
                bits=bits,
                colours=3,
                scanlines=scanlines,
                before=palette + chunk(b"tRNS", bytes(2**bits)),
            )
        )


@orientations
@pytest.mark.parametrize("format", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_orientation_equals_pillows(format: str, orientation: int) -> None:  # noqa: A002
    options = {"lossless": True} if format == "WEBP" else {}
    content = saved(PHOTO, format, exif=oriented_exif(orientation), **options)
    assert_decodes(content, upright(content))


@orientations
@pytest.mark.parametrize("late", [False, True], ids=["before the pixels", "after the pixels"])
@pytest.mark.parametrize("photo", [PHOTO, sixteen_bits(PHOTO)], ids=["8", "16"])
def test_png_orientation_before_or_after_the_pixels_is_applied(
    photo: Photo, late: bool, orientation: int
) -> None:
    exif = chunk(b"eXIf", oriented_exif(orientation).tobytes()[6:])
    expected = upright(saved(PHOTO, "PNG", exif=oriented_exif(orientation)))
    content = png(photo, after=exif) if late else png(photo, exif)
    assert_decodes(content, expected if photo.dtype == np.uint8 else sixteen_bits(expected))


@orientations
@pytest.mark.parametrize("kind", ["png", "png16", "grey png16", "webp", "tiff", "tiff16"])
def test_orientation_is_applied_to_alpha(kind: str, orientation: int) -> None:
    pixels = np.dstack([PHOTO, ALPHA])
    expected = upright(encoded(Image.fromarray(pixels), "PNG", exif=oriented_exif(orientation)))
    exif = chunk(b"eXIf", oriented_exif(orientation).tobytes()[6:])
    tags = {"photometric": "rgb", "extratags": [(274, 3, 1, orientation, True)], **STRAIGHT}
    content = {
        "png": lambda: png(pixels, exif),
        "png16": lambda: png(sixteen_bits(pixels), exif),
        "grey png16": lambda: png(sixteen_bits(pixels[:, :, 2:]), exif),
        "webp": lambda: encoded(
            Image.fromarray(pixels),
            "WEBP",
            lossless=True,
            exact=True,
            exif=oriented_exif(orientation),
        ),
        "tiff": lambda: tiff(pixels, **tags),
        "tiff16": lambda: tiff(sixteen_bits(pixels), **tags),
    }[kind]()
    colours, alpha = expected[:, :, :3], expected[:, :, 3]
    rgb = repeated(expected[:, :, 2]) if kind.startswith("grey") else colours
    deep = kind.endswith("16")
    assert_layers(
        decode_layers(content),
        sixteen_bits(rgb) if deep else rgb,
        sixteen_bits(alpha) if deep else alpha,
        grey=kind.startswith("grey"),
    )


@pytest.mark.parametrize(
    "colour", [tuple(PHOTO[0, 0].tolist()), int(GREY[0, 0])], ids=["colour", "grey"]
)
def test_decode_refuses_a_used_transparent_colour(colour: tuple[int, int, int] | int) -> None:
    with pytest.raises(UnreadablePhotoError, match="it is transparent in places; flatten it first"):
        decode(saved(PHOTO if isinstance(colour, tuple) else GREY, "PNG", transparency=colour))


@pytest.mark.parametrize("limit", [0.5, 600.0])
def test_size_above_the_limit_is_refused_from_the_header(limit: float) -> None:
    content = raw_png(30000, 30000, bits=8, colours=2, scanlines=b"")
    with pytest.raises(
        UnreadablePhotoError,
        match=rf"its size is 30000x30000 pixels, over the limit of {limit:g} megapixels",
    ):
        decode(content, largest_megapixels=limit)


@pytest.mark.parametrize(
    "content", [PNG, saved(PHOTO, "JPEG"), tiff(PHOTO), tiff(DEEP), saved(PHOTO, "BMP")]
)
def test_size_limit_is_an_argument(content: bytes) -> None:
    megapixels = 40 * 56 / 1e6
    assert decode(content, largest_megapixels=megapixels).shape == PHOTO.shape
    with pytest.raises(UnreadablePhotoError, match="its size is 56x40 pixels"):
        decode(content, largest_megapixels=megapixels * 0.999)


def test_a_hundred_megapixels_raise_no_warning() -> None:
    """Cameras have them. The test has a header alone, because the limit is checked before the
    pixels.
    """
    with pytest.raises(UnreadablePhotoError, match="damaged"):
        decode(raw_png(12000, 8400, bits=8, colours=2, scanlines=b""))


def test_depth_does_not_depend_on_what_was_decoded_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert is_deep(raw_png(15000, 15000, bits=16, colours=2, scanlines=b""))


@pytest.mark.parametrize("suffix", ["png", "jpg", "jpeg", "mpo", "bmp", "tif", "tiff", "webp"])
def test_photo_suffixes_match_in_any_case(suffix: str) -> None:
    assert is_photo(f"a b/%41é.x.{suffix}")
    assert is_photo(f"A.{suffix.upper()}")
    assert is_photo(f"a.{suffix.capitalize()}")


@pytest.mark.parametrize(
    "name", ["a.txt", "png", ".png", "a.png.part", "a.png/b", "a.pngx", "a", ""]
)
def test_other_suffixes_are_not_photos(name: str) -> None:
    assert not is_photo(name)
