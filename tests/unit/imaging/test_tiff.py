"""TIFF files of all supported kinds decode exactly."""

import gc
import io
import sys

import numpy as np
import pytest
import tifffile
from PIL import Image
from unit.photofiles import (
    ALPHA,
    DEEP,
    DEEP_ALPHA,
    DEEP_GREY,
    PHOTO,
    assert_decodes,
    encoded,
    orientations,
    oriented_exif,
    repeated,
    saved,
    tiff,
    upright,
)
from unit.support import smooth_photo

from degrain.imaging.codecs import (
    UnreadablePhotoError,
    decode,
    decode_layers,
    read_stored,
)
from degrain.imaging.pixels import Photo, Plane, peak, sixteen_bits


@pytest.mark.parametrize(("photo", "alpha"), [(PHOTO, ALPHA), (DEEP, DEEP_ALPHA)], ids=["8", "16"])
@pytest.mark.parametrize("grey", [False, True], ids=["colour", "grey"])
def test_premultiplied_colours_are_divided_by_alpha(photo: Photo, alpha: Plane, grey: bool) -> None:
    """Multiplied again, they equal the stored colours."""

    def multiplied(colours: Photo) -> Photo:
        return np.round(colours * (alpha[:, :, None] / peak(photo))).astype(photo.dtype)

    straight = repeated(photo[:, :, 0]) if grey else photo
    stored = multiplied(straight)
    pixels = np.dstack([stored[:, :, :1] if grey else stored, alpha])
    photometric = "minisblack" if grey else "rgb"
    layers = decode_layers(
        tiff(pixels, photometric=photometric, planarconfig="contig", extrasamples=["assocalpha"])
    )
    assert layers.grey == grey
    assert np.array_equal(layers.alpha, alpha)
    assert np.array_equal(multiplied(layers.rgb), stored)
    nearly_opaque = alpha > 0.9 * peak(photo)
    assert np.abs(layers.rgb.astype(int) - straight)[nearly_opaque].max() <= 1


def test_premultiplied_colours_above_alpha_become_white() -> None:
    pixels = np.full((4, 5, 4), [200, 0, 100, 100], dtype=np.uint8)
    layers = decode_layers(tiff(pixels, photometric="rgb", extrasamples=["assocalpha"]))
    assert layers.rgb[0, 0].tolist() == [255, 0, 255]


@pytest.mark.parametrize("pixels", [PHOTO, DEEP], ids=["8", "16"])
@pytest.mark.parametrize(
    "compression",
    [None, "lzw", "zlib", "packbits", "zstd"],
    ids=["plain", "lzw", "deflate", "packbits", "zstd"],
)
@pytest.mark.parametrize("planes", ["contig", "separate"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_tiff_decodes_exactly(
    pixels: Photo, compression: str | None, planes: str, order: str
) -> None:
    stored = np.moveaxis(pixels, -1, 0) if planes == "separate" else pixels
    options = {"planarconfig": planes, "byteorder": order, "compression": compression}
    assert_decodes(tiff(stored, **options), pixels)
    if compression not in (None, "packbits"):
        assert_decodes(tiff(stored, predictor=True, **options), pixels)


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate"])
def test_tiff_of_pillow_decodes_exactly(compression: str | None) -> None:
    assert_decodes(saved(PHOTO, "TIFF", compression=compression), PHOTO)
    palette = Image.fromarray(PHOTO).quantize(16)
    assert_decodes(
        encoded(palette, "TIFF", compression=compression), np.asarray(palette.convert("RGB"))
    )
    bitmap = Image.fromarray(PHOTO).convert("1")
    assert_decodes(
        encoded(bitmap, "TIFF", compression=compression), np.asarray(bitmap.convert("RGB"))
    )


def test_fax_decodes_exactly() -> None:
    bitmap = Image.fromarray(PHOTO).convert("1")
    assert_decodes(encoded(bitmap, "TIFF", compression="group4"), np.asarray(bitmap.convert("RGB")))


def test_jpeg_in_tiff_decodes_nearly() -> None:
    photo = smooth_photo(40, 56)
    decoded = decode(saved(photo, "TIFF", compression="jpeg"))
    assert np.abs(decoded.astype(int) - photo).mean() < 6


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("grey", [False, True], ids=["colour", "grey"])
def test_floats_from_zero_to_one_become_sixteen_bits(kind: type[np.floating], grey: bool) -> None:
    values = (DEEP_GREY if grey else DEEP).astype(np.float64) / 65535
    expected = np.round(values.astype(kind).astype(np.float32) * 65535).astype(np.uint16)
    assert_decodes(tiff(values.astype(kind)), repeated(expected) if grey else expected)


def test_twelve_bits_become_sixteen() -> None:
    twelve = DEEP_GREY >> 4
    decoded = decode(tiff(twelve, bitspersample=12))
    assert decoded.dtype == np.uint16
    assert np.array_equal(decoded, repeated(np.round(twelve * (65535 / 4095)).astype(np.uint16)))
    assert decode(tiff(np.full((8, 8), 4095, np.uint16), bitspersample=12)).min() == 65535


@orientations
@pytest.mark.parametrize("kind", ["8", "palette", "16", "float"])
@pytest.mark.parametrize("planes", ["contig", "separate"])
def test_orientation_is_applied_to_all_pixel_types(
    kind: str, planes: str, orientation: int
) -> None:
    expected = upright(saved(PHOTO, "PNG", exif=oriented_exif(orientation)))
    if kind == "palette":
        palette = Image.fromarray(PHOTO).quantize(16)
        content = encoded(palette, "TIFF", exif=oriented_exif(orientation))
        expected = upright(encoded(palette.convert("RGB"), "PNG", exif=oriented_exif(orientation)))
    else:
        stored = {"8": PHOTO, "16": sixteen_bits(PHOTO), "float": (PHOTO / 255).astype(np.float32)}[
            kind
        ]
        stored = np.moveaxis(stored, -1, 0) if planes == "separate" else stored
        content = tiff(stored, planarconfig=planes, extratags=[(274, 3, 1, orientation, True)])
        expected = expected if kind == "8" else sixteen_bits(expected)
    assert_decodes(content, expected)


def test_a_tiff_of_several_pages_is_refused() -> None:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        for _ in range(3):
            writer.write(DEEP, photometric="rgb")
    with pytest.raises(
        UnreadablePhotoError, match="it has 3 pages or frames; store one photo per file"
    ):
        decode(buffer.getvalue())


def test_the_content_of_a_file_is_free_once_it_is_decoded() -> None:
    """It may be as large as the pixels; a cycle of references would keep it until a collection."""
    content = tiff(DEEP)
    gc.disable()
    try:
        before = sys.getrefcount(content)
        stored = read_stored(content)
        assert sys.getrefcount(content) == before
    finally:
        gc.enable()
    assert stored.colours.shape == DEEP.shape
