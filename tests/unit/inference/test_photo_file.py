"""A photo file in memory: colours are denoised, and all else is that of the input."""

import io

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from PIL import Image
from unit.mixed_photos import ADOBE_RGB, DISPLAY_P3, canon_exif, canon_note
from unit.photofiles import (
    ALPHA,
    DEEP,
    DEEP_ALPHA,
    DEEP_GREY,
    GREY,
    PALETTE,
    PHOTO,
    STRAIGHT,
    chunk,
    encoded,
    orientations,
    png,
    saved,
    tiff,
    with_alpha,
)

from degrain.imaging import jpeg_segments, png_chunks, tiff_tags
from degrain.imaging.codecs import UnreadablePhotoError, read_stored
from degrain.imaging.pixels import Photo, sixteen_bits
from degrain.imaging.tiff_writer import TiffWriter
from degrain.imaging.writers import BmpWriter
from degrain.inference.config import OutputConfig, OutputFormat, ReadingConfig
from degrain.inference.denoiser import Denoiser, Identity
from degrain.inference.photo_file import DenoisedContent, denoise_content


class Halving:
    """Halves the values."""

    name = "halving"
    parameters = 0

    def __call__(self, photo: Photo, window: object = None) -> Photo:
        assert photo.ndim == 3
        assert photo.shape[2] == 3
        return photo // 2


class Tinting(Halving):
    """Tints grey photos, as networks do."""

    def __call__(self, photo: Photo, window: object = None) -> Photo:
        return photo // 2 + np.array([0, 1, 4], dtype=photo.dtype)


def denoised(
    content: bytes, denoiser: Denoiser | None = None, file_format: OutputFormat | None = None
) -> DenoisedContent:
    output = OutputConfig(format=file_format)
    return denoise_content(content, denoiser or Halving(), output=output, reading=ReadingConfig())


def stored_values(content: bytes) -> NDArray[np.generic]:
    """The values of a PNG, TIFF, WebP or BMP, decoded independently of the code under test."""
    if content[:4] == b"\x89PNG":
        return np.asarray(imagecodecs.png_decode(content))
    if content[:2] in (b"II", b"MM"):
        return np.asarray(tifffile.imread(io.BytesIO(content)))
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image)


RGBA = np.dstack([PHOTO, ALPHA])
DEEP_RGBA = np.dstack([DEEP, DEEP_ALPHA])
HALF_RGBA, HALF_DEEP_RGBA = np.dstack([PHOTO // 2, ALPHA]), np.dstack([DEEP // 2, DEEP_ALPHA])
PALETTE_RGBA = np.dstack([np.asarray(PALETTE.convert("RGB")) // 2, np.asarray(PALETTE)])


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param(png(PHOTO), PHOTO // 2, id="png"),
        pytest.param(png(DEEP), DEEP // 2, id="png16"),
        pytest.param(png(GREY), GREY // 2, id="grey"),
        pytest.param(png(DEEP_GREY), DEEP_GREY // 2, id="grey 16"),
        pytest.param(png(RGBA), HALF_RGBA, id="alpha"),
        pytest.param(png(DEEP_RGBA), HALF_DEEP_RGBA, id="alpha 16"),
        pytest.param(png(np.dstack([GREY, ALPHA])), np.dstack([GREY // 2, ALPHA]), id="grey alpha"),
        pytest.param(png(with_alpha(PHOTO, 255)), with_alpha(PHOTO // 2, 255), id="opaque"),
        pytest.param(
            encoded(PALETTE, "PNG", transparency=bytes(range(16))), PALETTE_RGBA, id="palette"
        ),
        pytest.param(
            encoded(Image.fromarray(RGBA), "WEBP", lossless=True, exact=True), HALF_RGBA, id="webp"
        ),
        pytest.param(
            tiff(DEEP_RGBA, photometric="rgb", **STRAIGHT), HALF_DEEP_RGBA, id="tiff alpha 16"
        ),
        pytest.param(tiff(PHOTO, compression="zlib"), PHOTO // 2, id="tiff deflate"),
        pytest.param(tiff(DEEP, byteorder=">"), DEEP // 2, id="tiff big endian"),
        pytest.param(tiff(GREY), GREY // 2, id="grey tiff"),
        pytest.param(saved(PHOTO, "BMP"), PHOTO // 2, id="bmp"),
        pytest.param(saved(GREY, "BMP"), GREY // 2, id="grey bmp"),
    ],
)
def test_colours_are_denoised_and_the_rest_is_the_inputs(
    content: bytes, expected: NDArray[np.generic]
) -> None:
    done = denoised(content)
    assert done.megapixels == 40 * 56 / 1e6
    stored = stored_values(done.content)
    assert stored.dtype == expected.dtype
    assert np.array_equal(stored, expected)
    assert read_stored(done.content).file_type == read_stored(content).file_type == done.file_type


@given(
    photo=arrays(
        st.sampled_from([np.uint8, np.uint16]),
        st.tuples(st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 2, 3, 4])),
    )
)
def test_unchanged_photos_keep_every_bit(photo: Photo) -> None:
    colours = "rgb" if photo.shape[2] > 2 else "minisblack"
    options = STRAIGHT if photo.shape[2] in (2, 4) else {"planarconfig": "contig"}
    squeezed = photo[:, :, 0] if photo.shape[2] == 1 else photo
    plain = {} if photo.shape[2] == 1 else options
    for content in (png(photo), tiff(squeezed, photometric=colours, **plain)):
        before = read_stored(content)
        after = read_stored(denoised(content, Identity()).content)
        assert np.array_equal(after.colours, before.colours)
        assert (after.alpha is None) == (before.alpha is None)
        assert after.alpha is None or np.array_equal(after.alpha, before.alpha)


def test_grey_photos_are_written_as_the_mean_of_channels() -> None:
    for grey in (GREY, DEEP_GREY):
        assert np.array_equal(stored_values(denoised(png(grey), Tinting()).content), grey // 2 + 2)


def test_alpha_of_a_bmp_is_kept() -> None:
    clear = denoised(png(RGBA), Identity())
    assert np.array_equal(read_stored(clear.content).alpha, ALPHA)
    content = BmpWriter().encode(PHOTO, ALPHA)
    assert np.array_equal(stored_values(content), RGBA)
    assert np.array_equal(stored_values(denoised(content).content), HALF_RGBA)


def test_jpeg_has_quality_95_without_subsampling() -> None:
    for content in (saved(PHOTO, "JPEG", quality=60), saved(GREY, "JPEG")):
        done = denoised(content, Identity())
        with Image.open(io.BytesIO(done.content)) as image:
            reference = io.BytesIO()
            with Image.open(io.BytesIO(content)) as before:
                before.save(reference, "JPEG", quality=95, subsampling=0)
            with Image.open(reference) as expected:
                assert image.quantization == expected.quantization
                assert image.layer == expected.layer
                assert np.array_equal(np.asarray(image), np.asarray(expected))
        assert (done.media_type, done.suffix) == ("image/jpeg", ".jpg")


def test_webp_stays_lossless_or_lossy() -> None:
    for lossless in (True, False):
        content = saved(PHOTO, "WEBP", lossless=lossless)
        assert (b"VP8L" in denoised(content).content[:40]) == lossless


def test_tiff_stays_uncompressed_or_compressed() -> None:
    for compression, expected in ((None, 1), ("lzw", 8), ("zlib", 8)):
        done = denoised(tiff(DEEP, compression=compression))
        with tifffile.TiffFile(io.BytesIO(done.content)) as file:
            assert file.pages.first.compression == expected


@pytest.mark.parametrize("file_format", ["jpeg", "png", "tiff", "webp"])
def test_format_overrides_the_type(file_format: OutputFormat) -> None:
    done = denoised(saved(PHOTO, "BMP"), Identity(), file_format)
    stored = read_stored(done.content)
    assert stored.file_type == done.file_type == file_format
    if file_format == "tiff":
        assert np.array_equal(stored.colours, sixteen_bits(PHOTO))
    elif file_format != "jpeg":
        assert np.array_equal(stored.colours, PHOTO)
    assert done.notes == ()


def test_losses_are_noted() -> None:
    deep = denoised(tiff(DEEP), Identity(), "jpeg")
    assert deep.notes == ("16 bits became 8, because JPEG holds no more",)
    assert denoised(encoded(PALETTE, "PNG")).notes == ("palette colours became RGB",)
    texts = png(PHOTO, chunk(b"tEXt", b"Author\0me") + chunk(b"sBIT", b"\x08\x08\x08"))
    assert denoised(texts).notes == ("dropped: the PNG chunk sBIT",)
    assert denoised(texts, file_format="tiff").notes == (
        "dropped: the PNG text 'Author'",
        "dropped: the PNG chunk sBIT",
    )
    comment = saved(PHOTO, "JPEG", comment=b"hello")
    assert denoised(comment).notes == ()
    assert denoised(comment, file_format="png").notes == ("dropped: the JPEG comment",)


def test_transparent_photo_as_jpeg_is_refused() -> None:
    with pytest.raises(UnreadablePhotoError, match="transparent in places, which a JPEG cannot"):
        denoised(png(RGBA), file_format="jpeg")
    assert denoised(png(with_alpha(PHOTO, 255)), file_format="jpeg").notes == ()


def test_side_longer_than_webp_holds_is_refused() -> None:
    with pytest.raises(UnreadablePhotoError, match="WEBP holds at most 16383 a side"):
        denoised(png(np.zeros((1, 16384, 3), np.uint8)), file_format="webp")


# Metadata


@orientations
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("file_format", [None, "jpeg", "png", "tiff", "webp"])
def test_orientation_stays_in_its_tag_and_pixels_as_stored(
    kind: str, file_format: OutputFormat | None, orientation: int
) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    content = saved(PHOTO, kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))
    stored = read_stored(denoised(content, Identity(), file_format).content)
    assert stored.orientation == orientation
    assert stored.colours.shape == PHOTO.shape


def test_maker_notes_keep_their_bytes_and_their_address() -> None:
    exif = canon_exif(6)
    address = exif.index(canon_note(0)[:2] + b"\x06\x00\x02\x00")
    note = canon_note(address)
    assert exif[address : address + len(note)] == note
    content = saved(PHOTO, "JPEG", exif=b"Exif\0\0" + exif)
    assert jpeg_segments.read_exif(denoised(content).content) == exif
    assert png_chunks.read_exif(denoised(content, file_format="png").content) == exif
    as_tiff = denoised(content, file_format="tiff").content
    assert as_tiff[address : address + len(note)] == note
    again = denoised(as_tiff).content
    assert again[address : address + len(note)] == note
    back = jpeg_segments.read_exif(denoised(again, file_format="jpeg").content)
    assert back is not None
    assert back[address : address + len(note)] == note


@pytest.mark.parametrize("address", [40_000, 3_000_001])
def test_pixels_fill_the_space_before_a_maker_note(address: int) -> None:
    photo = np.random.default_rng(0).integers(0, 256, (900, 1500, 3), np.uint8)
    note = tiff_tags.Tag(7, 50, b"n" * 50, address)
    exif = tiff_tags.TagFolder({37500: note})
    content = TiffWriter("<", tiff_tags.TagFolder({}, {34665: exif}), compressed=False).encode(
        photo, None
    )
    assert content[address : address + 50] == note.value
    assert np.array_equal(stored_values(content), photo)
    assert len(content) < photo.nbytes + 2**20
    done = denoised(content, Identity())
    assert done.content[address : address + 50] == note.value
    assert done.notes == ()
    moved = denoised(content, file_format="png").notes
    assert moved == (() if address < 2**16 else ("dropped: addresses inside the maker notes",))


def test_jpeg_segments_are_copied_byte_for_byte() -> None:
    segments = [
        jpeg_segments.Segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x/>"),
        jpeg_segments.Segment(0xED, b"Photoshop 3.0\x008BIM\x04\x04\0\0\0\0\0\0"),
        jpeg_segments.Segment(0xE5, bytes(range(256))),
        jpeg_segments.Segment(0xFE, b"a comment"),
    ]
    content = jpeg_segments.with_segments(
        saved(PHOTO, "JPEG", icc_profile=DISPLAY_P3), segments, keep_jfif=True
    )
    before = [s for s in jpeg_segments.segments(content) if s.is_metadata]
    after = [s for s in jpeg_segments.segments(denoised(content).content) if s.is_metadata]
    assert after == before


def test_further_pictures_of_a_jpeg_are_dropped_with_a_note() -> None:
    views = io.BytesIO()
    image = Image.fromarray(PHOTO)
    image.save(views, "MPO", save_all=True, append_images=[image])
    done = denoised(views.getvalue())
    assert done.notes == ("dropped: further pictures in the file (MPF)",)
    assert b"MPF\0" not in done.content


def test_xmp_and_iptc_go_to_other_types() -> None:
    resources = b"8BIM\x04\x04\0\0" + (7).to_bytes(4) + b"\x1c\x02\x19\0\x02ab\0"
    xmp = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>"
    segments, dropped = jpeg_segments.new_segments(
        exif=None, xmp=xmp, photoshop=resources, profile=ADOBE_RGB
    )
    assert dropped == []
    content = jpeg_segments.with_segments(saved(PHOTO, "JPEG"), segments, keep_jfif=True)
    as_png = denoised(content, file_format="png").content
    assert png_chunks.read_xmp(as_png) == xmp
    assert png_chunks.read_photoshop(as_png) == resources
    as_tiff = denoised(content, file_format="tiff").content
    tags = tiff_tags.read_tags(as_tiff).tags
    assert tags[700].value == xmp
    assert tags[34377].value == resources
    assert tags[34675].value == ADOBE_RGB
    back = denoised(as_tiff, file_format="jpeg").content
    assert jpeg_segments.read_xmp(back) == xmp
    assert jpeg_segments.read_photoshop(back) == resources
    as_webp = denoised(content, file_format="webp")
    assert as_webp.notes == ("dropped: IPTC",)


@pytest.mark.parametrize("file_format", [None, "png", "tiff", "webp", "jpeg"])
@pytest.mark.parametrize(
    "exif", [b"", b"II", b"II*\0\xff\xff\xff\xff", b"XX*\0" + b"\1" * 40, canon_exif(1)[:60]]
)
def test_damaged_exif_never_fails(exif: bytes, file_format: OutputFormat | None) -> None:
    content = saved(PHOTO, "JPEG", exif=b"Exif\0\0" + exif)
    assert read_stored(denoised(content, file_format=file_format).content).colours.shape[2] == 3


@given(st.data())
def test_any_change_of_a_tiffs_tags_is_read_or_noted(data: st.DataObject) -> None:
    block = bytearray(canon_exif(3))
    for _ in range(data.draw(st.integers(1, 6))):
        block[data.draw(st.integers(0, len(block) - 1))] = data.draw(st.integers(0, 255))
    try:
        tiff_tags.read_tags(bytes(block))
    except tiff_tags.DamagedTagsError as error:
        assert str(error)  # noqa: PT017


def test_exif_too_long_for_a_jpeg_is_dropped_but_the_photo_stays_upright() -> None:
    exif = Image.Exif()
    exif[274], exif[270] = 6, "x" * 70_000
    done = denoised(saved(PHOTO, "PNG", exif=exif), file_format="jpeg")
    assert read_stored(done.content).orientation == 6
    [note] = done.notes
    assert note.startswith("dropped: EXIF, ")


# Colour


class Shifting(Halving):
    """Adds a hundredth of white, and records the photo."""

    def __call__(self, photo: Photo, window: object = None) -> Photo:
        self.seen = photo
        change = int(np.iinfo(photo.dtype).max // 100)
        return np.clip(photo.astype(np.int32) + change, 0, np.iinfo(photo.dtype).max).astype(
            photo.dtype
        )


@pytest.mark.parametrize("icc", [DISPLAY_P3, ADOBE_RGB], ids=["p3", "adobe"])
@pytest.mark.parametrize("deep", [False, True])
def test_colours_outside_of_srgb_are_not_clipped(icc: bytes, deep: bool) -> None:
    ramp = np.linspace(20, 235, 56).astype(np.uint8)
    photo = np.zeros((8, 56, 3), np.uint8)
    photo[:, :, 1] = ramp  # pure green: outside of sRGB in both
    stored = sixteen_bits(photo) if deep else photo
    content = tiff(stored, extratags=[(34675, 7, len(icc), icc, True)])
    assert np.array_equal(stored_values(denoised(content, Identity()).content), stored)
    shifting = Shifting()
    result = stored_values(denoised(content, shifting).content).astype(int)
    assert shifting.seen.dtype == np.uint16
    assert shifting.seen.min() == 0  # red is clipped in what the denoiser sees
    peak = 65535 if deep else 255
    # The green ramp keeps all of its steps: a clipped conversion and back would lose saturation.
    assert np.abs(result[:, :, 1] - stored[:, :, 1].astype(int)).max() <= 0.03 * peak
    assert np.all(np.diff(result[0, :, 1]) > 0)
    assert result[:, :, 0].max() < 0.12 * peak


def test_the_denoiser_sees_srgb() -> None:
    shifting = Shifting()
    denoised(saved(PHOTO, "PNG", icc_profile=ADOBE_RGB), shifting)
    expected = imagecodecs.cms_transform(
        sixteen_bits(PHOTO), ADOBE_RGB, imagecodecs.cms_profile("srgb"), colorspace="rgb"
    )
    assert np.array_equal(shifting.seen, expected)


def test_profiles_that_are_kept_are_ignored() -> None:
    content = saved(PHOTO, "PNG", icc_profile=ADOBE_RGB)
    done = denoise_content(
        content, Halving(), output=OutputConfig(), reading=ReadingConfig(profiles="keep")
    )
    assert np.array_equal(stored_values(done.content), PHOTO // 2)
    assert read_stored(done.content).profile == ADOBE_RGB
