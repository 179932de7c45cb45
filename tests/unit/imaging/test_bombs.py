"""Small files that claim much: what they take of memory and time is bounded."""

import io
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image
from unit.photofiles import PHOTO, chunk, encoded, png, saved

from degrain.imaging.codecs import UnreadablePhotoError, pixels_by_header, read_stored
from degrain.imaging.jpeg_segments import Segment, with_segments
from degrain.inference.config import OutputConfig, ReadingConfig
from degrain.inference.denoiser import Identity
from degrain.inference.photo_file import denoise_content

MIB = 2**20


def zeros(mebibytes: int) -> bytes:
    """So many MiB of zeros, compressed to a thousandth."""
    machine = zlib.compressobj(9)
    return b"".join([*(machine.compress(bytes(MIB)) for _ in range(mebibytes)), machine.flush()])


ZEROS = zeros(200)
XMP_KEY = b"XML:com.adobe.xmp\0\1\0\0\0"
# A folder of 20,000 tags, each of which claims the 300 kB of the block.
TAGS = b"II*\0\x08\0\0\0" + struct.pack("<H", 20_000)
TAGS += b"".join(struct.pack("<HHII", number, 7, 230_000, 8) for number in range(20_000))
JPEG = saved(PHOTO, "JPEG")
BOMBS = {
    "XMP behind the pixels": png(PHOTO, b"", chunk(b"iTXt", XMP_KEY + ZEROS)),
    "XMP before the pixels": png(PHOTO, chunk(b"iTXt", XMP_KEY + ZEROS)),
    "text": png(PHOTO, b"", chunk(b"zTXt", b"a\0\0" + ZEROS)),
    "EXIF in a text": png(PHOTO, chunk(b"zTXt", b"Raw profile type exif\0\0" + ZEROS)),
    "profile": png(PHOTO, chunk(b"iCCP", b"a\0\0" + ZEROS)),
    "profile behind the pixels": png(PHOTO, b"", chunk(b"iCCP", b"a\0\0" + ZEROS)),
    "tags of PNG": png(PHOTO, chunk(b"eXIf", TAGS)),
    "tags of JPEG": with_segments(
        JPEG,
        [Segment(0xE1, b"Exif\0\0" + TAGS[i : i + 60_000]) for i in range(0, len(TAGS), 60_000)],
        keep_jfif=True,
    ),
    "tags of WebP": saved(PHOTO, "WEBP", exif=b"Exif\0\0" + TAGS),
    "extended XMP": with_segments(
        JPEG,
        [
            Segment(
                0xE1,
                b"http://ns.adobe.com/xmp/extension/\0" + b"A" * 32 + b"\xff" * 4 + bytes(100),
            )
        ],
        keep_jfif=True,
    ),
}


@pytest.mark.parametrize("file_format", [None, "jpeg", "webp"])
@pytest.mark.parametrize("kind", BOMBS)
def test_metadata_takes_little_memory(kind: str, file_format: None) -> None:
    tracemalloc.start()
    try:
        denoise_content(
            BOMBS[kind],
            Identity(),
            output=OutputConfig(format=file_format),
            reading=ReadingConfig(),
        )
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 60 * MIB


def not_called(*_: object, **__: object) -> None:
    raise AssertionError


@pytest.mark.parametrize("kind", ["tags of JPEG", "tags of WebP"])
def test_pillow_parses_no_tags(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Older versions take memory for all that tags claim, as soon as they open a JPEG."""
    monkeypatch.setattr(Image.Exif, "load", not_called)
    assert read_stored(BOMBS[kind]).colours.shape == PHOTO.shape
    assert pixels_by_header(BOMBS[kind]) == PHOTO[:, :, 0].size


def with_chunks_of_webp(webp: bytes, chunks: bytes) -> bytes:
    return webp[:4] + (len(webp) - 8 + len(chunks)).to_bytes(4, "little") + webp[8:] + chunks


TOO_MANY = {
    "chunks": (png(PHOTO, chunk(b"teSt", b"") * 20_000), "more than 10000 chunks"),
    "segments": (
        JPEG[:2] + bytes(Segment(0xE5, b"")) * 20_000 + JPEG[2:],
        "more than 10000 segments",
    ),
    "chunks of WebP": (
        with_chunks_of_webp(saved(PHOTO, "WEBP"), (b"teSt" + bytes(4)) * 20_000),
        "more than 10000 chunks",
    ),
}


@pytest.mark.parametrize("kind", TOO_MANY)
def test_files_of_very_many_parts_are_refused(kind: str) -> None:
    content, reason = TOO_MANY[kind]
    with pytest.raises(UnreadablePhotoError, match=reason):
        read_stored(content)
    pixels_by_header(content)


def test_a_jpeg_of_very_many_scans_is_refused() -> None:
    content = saved(PHOTO, "JPEG", progressive=True)
    last = content.rindex(b"\xff\xda")
    scan = content[last:-2]
    read_stored(content[:-2] + scan * 50 + b"\xff\xd9")
    with pytest.raises(UnreadablePhotoError, match="scans of its pixels"):
        read_stored(content[:-2] + scan * 200 + b"\xff\xd9")


def webp_of_size(width: int, height: int) -> bytes:
    """An animation that claims a canvas of some size."""
    image = Image.fromarray(PHOTO)
    content = encoded(image, "WEBP", save_all=True, append_images=[image.rotate(9)])
    sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    at = content.index(b"VP8X") + 12
    return content[:at] + sides + content[at + 6 :]


def test_the_size_of_a_webp_is_checked_before_memory_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    content = webp_of_size(30_000, 30_000)
    # Pillow takes memory for the canvas when it opens a file.
    monkeypatch.setattr(Image, "open", not_called)
    with pytest.raises(
        UnreadablePhotoError, match="its size is 30000x30000 pixels, over the limit"
    ):
        read_stored(content)
    assert pixels_by_header(content) == 900_000_000


@pytest.mark.parametrize("kind", ["VP8L", "VP8 ", "VP8X"])
def test_the_size_of_a_webp_is_that_of_its_header(kind: str) -> None:
    image = Image.fromarray(np.ascontiguousarray(PHOTO[:13]))
    options = {"lossless": kind == "VP8L"} | ({"exif": b"II*\0"} if kind == "VP8X" else {})
    content = encoded(image, "WEBP", **options)
    assert content[12:16] == kind.encode()
    assert pixels_by_header(content) == 13 * 56
    with Image.open(io.BytesIO(content)) as opened:
        assert opened.size == (56, 13)


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_that_is_too_short_for_its_size_is_refused(progressive: bool) -> None:
    content = saved(PHOTO, "JPEG", progressive=progressive)
    huge = content.replace(struct.pack(">HH", 40, 56), struct.pack(">HH", 22_000, 22_000))
    with pytest.raises(UnreadablePhotoError, match="the file is too short for its size"):
        read_stored(huge)
    flat = saved(np.full((2000, 3000), 9, np.uint8), "JPEG", quality=1, optimize=True)
    assert read_stored(flat).colours.shape == (2000, 3000, 1)
