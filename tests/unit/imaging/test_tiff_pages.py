"""Which picture of a TIFF is the photo, and what a TIFF may claim."""

import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image
from unit.photofiles import DEEP, PHOTO, tiff

from degrain.imaging import tiff_tags
from degrain.imaging.codecs import UnreadablePhotoError, read_stored
from degrain.inference.config import OutputConfig, ReadingConfig
from degrain.inference.denoiser import Identity
from degrain.inference.photo_file import DenoisedContent, denoise_content


def denoised(content: bytes) -> DenoisedContent:
    return denoise_content(content, Identity(), output=OutputConfig(), reading=ReadingConfig())


def raw(*, version: bool) -> bytes:
    """A thumbnail with the photo in a picture below it, as in DNG and NEF."""
    buffer = io.BytesIO()
    tags = [(50706, 1, 4, b"\1\4\0\0", True)] if version else []
    with tifffile.TiffWriter(buffer) as writer:
        writer.write(PHOTO[:8, :12], photometric="rgb", subifds=1, extratags=tags)
        writer.write(DEEP[:, :, 0], photometric="minisblack")
    return buffer.getvalue()


def test_raw_photos_are_refused() -> None:
    with pytest.raises(UnreadablePhotoError, match=r"it is a raw photo \(DNG\); develop it"):
        read_stored(raw(version=True))
    with pytest.raises(UnreadablePhotoError, match="its photo of 56x40 pixels is below a smaller"):
        read_stored(raw(version=False))


def test_a_thumbnail_in_front_is_refused() -> None:
    content = tiff(PHOTO, photometric="rgb", subfiletype=1)
    with pytest.raises(UnreadablePhotoError, match="its first picture is a small copy of another"):
        read_stored(content)


@pytest.mark.parametrize("below", [0, 1], ids=["page", "subifd"])
def test_small_copies_behind_the_photo_are_named(below: int) -> None:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as writer:
        writer.write(PHOTO, photometric="rgb", subifds=below)
        writer.write(PHOTO[::2, ::2], photometric="rgb", subfiletype=1)
    done = denoised(buffer.getvalue())
    assert np.array_equal(tifffile.imread(io.BytesIO(done.content)), PHOTO)
    assert len(done.notes) == 1
    assert "dropped: " in done.notes[0]
    assert ("SubIFDs" if below else "behind it") in done.notes[0]


@pytest.mark.parametrize("number", [37724, 50784, 52545], ids=["photoshop", "alias", "credentials"])
def test_layers_that_show_the_photo_before_are_dropped(number: int) -> None:
    layers = b"Adobe Photoshop Document Data Block\0" + b"8BIMLayr" + b"x" * 500
    make = (271, 2, 6, "Canon", True)
    tags = [(number, 7, len(layers), layers, True), make]
    content = tiff(PHOTO, photometric="rgb", extratags=tags)
    done = denoised(content)
    with tifffile.TiffFile(io.BytesIO(done.content)) as file:
        assert number not in file.pages.first.tags
        assert file.pages.first.tags.valueof(271) == "Canon"
    assert done.notes == ("dropped: layers or content credentials, true of the photo before only",)
    large = tiff(
        PHOTO, photometric="rgb", extratags=[(number, 7, 80_000, bytes(80_000), True), make]
    )
    jpeg = denoise_content(
        large, Identity(), output=OutputConfig(format="jpeg"), reading=ReadingConfig()
    )
    assert jpeg.notes == done.notes
    assert Image.open(io.BytesIO(jpeg.content)).getexif()[271] == "Canon"


def test_channels_that_are_not_opacity_stay_as_they_are() -> None:
    five = np.dstack([DEEP, DEEP[:, ::-1, :2]])
    for kinds in (["unspecified", "unspecified"], ["unspecified", "unassalpha"]):
        content = tiff(five, photometric="rgb", extrasamples=kinds)
        opaque = kinds[1] == "unassalpha"
        assert (read_stored(content).alpha is not None) == opaque
        done = denoised(content)
        assert done.notes == ()
        with tifffile.TiffFile(io.BytesIO(done.content)) as file:
            assert np.array_equal(file.asarray(), five)
            assert [k.name.lower() for k in file.pages.first.extrasamples] == kinds
    png = denoise_content(
        tiff(five[:, :, :4], photometric="rgb", extrasamples=["unspecified"]),
        Identity(),
        output=OutputConfig(format="png"),
        reading=ReadingConfig(),
    )
    assert png.notes == ("dropped: channels that are neither colours nor opacity",)


def test_palettes_of_eight_bits_are_read() -> None:
    indices = (PHOTO[:, :, 0] // 4).astype(np.uint8)
    palette = np.random.default_rng(0).integers(0, 256, (3, 256), np.uint16)
    for factor in (1, 256, 257):
        colours = (palette * factor).astype(np.uint16)
        stored = read_stored(tiff(indices, photometric="palette", colormap=colours))
        assert np.array_equal(stored.colours, palette.T[indices])


def directory(entries: list[tuple[int, int, int, int]], body: bytes, behind: int = 0) -> bytes:
    """A little-endian TIFF of one folder; `body` begins at the value that is 0 in an entry."""
    at = 8 + 2 + 12 * len(entries) + 4
    packed = b"".join(
        struct.pack("<HHII", tag, kind, count, value or at) for tag, kind, count, value in entries
    )
    head = struct.pack("<2sHIH", b"II", 42, 8, len(entries))
    return head + packed + bytes(4) + body + bytes(behind)


GREY = [(256, 4, 1, 64), (257, 4, 1, 64), (258, 3, 1, 8), (262, 3, 1, 1), (277, 3, 1, 1)]


def tile_of(side: int) -> bytes:
    packed = zlib.compress(bytes(side * side))
    tags = [(259, 3, 1, 8), (322, 4, 1, side), (323, 4, 1, side), (324, 4, 1, 0)]
    return directory(sorted([*GREY, *tags, (325, 4, 1, len(packed))]), packed)


def jpeg_strip(side: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (side, side)).save(buffer, "JPEG")
    tags = [(259, 3, 1, 7), (273, 4, 1, 0), (278, 4, 1, 64), (279, 4, 1, len(buffer.getvalue()))]
    return directory(sorted([*GREY, *tags]), buffer.getvalue())


@pytest.mark.parametrize("claim", [tile_of, jpeg_strip])
def test_parts_that_claim_more_than_the_photo_are_refused_before_they_are_decoded(
    claim: object,
) -> None:
    content = claim(5000)  # type: ignore[operator]
    tracemalloc.start()
    with pytest.raises(UnreadablePhotoError, match="a part of its pixels claims 25 megapixels"):
        read_stored(content)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10e6
    assert read_stored(claim(512)).colours.shape[1] == 64  # type: ignore[operator]


def test_tags_that_overlap_are_not_copied() -> None:
    """2000 tags that each hold most of the file would take 800 MB."""
    size = 400_000
    base = [*GREY, (259, 3, 1, 1), (273, 4, 1, 0), (278, 4, 1, 64), (279, 4, 1, 64 * 64)]
    odd = [(60_000 + number, 7, size, 8) for number in range(2000)]
    content = directory([*sorted(base), *odd], bytes(64 * 64), behind=size)
    tracemalloc.start()
    done = denoised(content)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert done.notes == ("dropped: the tags of the TIFF (its tags overlap)",)
    assert peak < 20e6


@pytest.mark.parametrize("kind", [4, 13, 16, 18], ids=["LONG", "IFD", "LONG8", "IFD8"])
def test_exif_of_bigtiff_is_copied(kind: int) -> None:
    content = bytearray(
        tiff(PHOTO, photometric="rgb", bigtiff=True, extratags=[(60_000, 4, 1, 0, True)])
    )
    exif = len(content)
    content += struct.pack("<QHHQQQ", 1, 34855, 3, 1, 6400, 0)
    (folder,) = struct.unpack_from("<Q", content, 8)
    (count,) = struct.unpack_from("<Q", content, folder)
    for entry in range(folder + 8, folder + 8 + 20 * count, 20):
        if struct.unpack_from("<H", content, entry) == (60_000,):
            struct.pack_into("<HHQQ", content, entry, 34665, kind, 1, exif)
    done = denoised(bytes(content))
    assert Image.open(io.BytesIO(done.content)).getexif().get_ifd(34665) == {34855: 6400}


def test_tags_of_64_bits_become_32_bits_where_they_fit() -> None:
    unsigned, signed = 16, 17
    values = [
        (60_000, unsigned, 2, (7, 2**32 - 1), True),
        (60_001, signed, 2, (-7, 2**31 - 1), True),
        (60_002, unsigned, 2, (7, 2**32), True),
        (60_003, signed, 1, 2**31, True),
    ]
    done = denoised(tiff(PHOTO, photometric="rgb", bigtiff=True, extratags=values))
    tags = tiff_tags.read_tags(done.content).tags
    assert (tags[60_000].type, tags[60_001].type) == (4, 9)
    assert struct.unpack("<2I", tags[60_000].value) == (7, 2**32 - 1)
    assert struct.unpack("<2i", tags[60_001].value) == (-7, 2**31 - 1)
    assert not {60_002, 60_003} & tags.keys()
