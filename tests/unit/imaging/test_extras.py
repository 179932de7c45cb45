"""What a file holds beside one picture is kept if it still holds, and else named in a note."""

import io
import struct

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from unit.photofiles import ALPHA, DEEP, GREY, PHOTO, chunk, png, profile, saved, tiff

from degrain.imaging import jpeg_extras, jpeg_segments, tiff_tags
from degrain.imaging.codecs import UnreadablePhotoError, read_stored
from degrain.imaging.jpeg_segments import Segment
from degrain.imaging.writers import BmpWriter
from degrain.inference.config import OutputConfig, OutputFormat, ReadingConfig
from degrain.inference.denoiser import Identity
from degrain.inference.photo_file import DenoisedContent, denoise_content

XMP = jpeg_segments.XMP_HEADER
EXTENSION = b"http://ns.adobe.com/xmp/extension/\0"
VIDEO = b"\0\0\0\x18ftypmp42" + bytes(range(256)) * 80
CREDENTIALS = "dropped: content credentials (C2PA), which do not hold for other pixels"
GAIN_MAP = "dropped: the gain map of high dynamic range"
MOTION = "dropped: the video of a motion photo"


def denoised(content: bytes, file_format: OutputFormat | None = None) -> DenoisedContent:
    return denoise_content(
        content, Identity(), output=OutputConfig(format=file_format), reading=ReadingConfig()
    )


def jpeg(*added: Segment, **options: object) -> bytes:
    return jpeg_segments.with_segments(saved(PHOTO, "JPEG", **options), added, keep_jfif=True)


def xmp_of(content: bytes) -> bytes:
    return jpeg_segments.read_xmp(content) or b""


@pytest.mark.parametrize("file_format", [None, "png"])
def test_the_video_of_a_motion_photo(file_format: OutputFormat | None) -> None:
    packet = (
        b'<x:xmpmeta><rdf:Description GCamera:MotionPhoto="1" GCamera:MicroVideo=\'1\' a:b="1">'
        b"<Container:Directory><rdf:Seq>video</rdf:Seq></Container:Directory></x:xmpmeta>"
    )
    done = denoised(jpeg(Segment(0xE1, XMP + packet)) + VIDEO, file_format)
    assert done.notes == (MOTION,)
    assert b"ftyp" not in done.content
    assert b'GCamera:MotionPhoto="0" GCamera:MicroVideo=\'0\' a:b="1"' in done.content
    assert b"Directory" not in done.content
    if file_format is None:
        assert len(xmp_of(done.content)) == len(packet)


def test_bytes_behind_the_picture_are_named() -> None:
    content = saved(PHOTO, "JPEG", progressive=True)
    assert denoised(content).notes == ()
    assert denoised(content + bytes(64)).notes == ()
    assert denoised(content + VIDEO).notes == (MOTION,)
    assert denoised(content + b"SEFT" * 5).notes == ("dropped: 20 bytes behind the picture",)


def test_the_gain_map_of_ultra_hdr() -> None:
    packet = b"<x:xmpmeta><rdf:Description xmlns:hdrgm='ns' hdrgm:Version=\"1.0\" a:b='1'/>"
    marked = jpeg(
        Segment(0xE1, XMP + packet),
        Segment(0xE2, b"urn:iso:std:iso:ts:21496:-1\0" + bytes(4)),
        Segment(0xE2, b"MPF\0" + bytes(80)),
    )
    done = denoised(marked + saved(GREY, "JPEG"))
    assert done.notes == (GAIN_MAP, "dropped: further pictures in the file (MPF)")
    assert b"hdrgm:Version" not in done.content
    assert b"21496" not in done.content
    assert xmp_of(done.content) == packet.replace(b'hdrgm:Version="1.0"', b" " * 19)
    assert denoised(marked, "tiff").notes[:2] == done.notes


def test_content_credentials_are_dropped() -> None:
    box = b"\0\1" + struct.pack(">II", 1, 60) + b"jumb" + b"c2pa" + bytes(48)
    next_part = b"\0\1" + struct.pack(">II", 2, 60) + b"jumb" + bytes(52)
    other = b"\0\2" + struct.pack(">II", 1, 60) + b"jumb" + bytes(52)
    boxes = [Segment(0xEB, b"JP" + body) for body in (box, next_part, other)]
    for file_format in (None, "png"):
        done = denoised(jpeg(*boxes), file_format)
        assert done.notes[0] == CREDENTIALS
        assert b"c2pa" not in done.content
    kept = list(jpeg_segments.segments(denoised(jpeg(*boxes)).content))
    assert [s for s in kept if s.marker == 0xEB] == boxes[2:]
    assert denoised(png(PHOTO, chunk(b"caBX", box))).notes == (CREDENTIALS,)
    webp = saved(PHOTO, "WEBP", lossless=True) + b"C2PA\4\0\0\0jumb"
    webp = webp[:4] + struct.pack("<I", len(webp) - 8) + webp[8:]
    assert denoised(webp).notes == (CREDENTIALS,)
    assert denoised(webp, "png").notes == (CREDENTIALS,)


def test_the_extension_of_xmp() -> None:
    packet = b"<x:xmpmeta><a xmpNote:HasExtendedXMP='" + b"A" * 32 + b"' b='1'/></x:xmpmeta>"
    added = [
        Segment(0xE1, XMP + packet),
        *(Segment(0xE1, EXTENSION + b"A" * 32 + bytes(8) + b"x" * 60_000) for _ in range(3)),
    ]
    content = jpeg(*added)
    done = denoised(content)
    assert done.notes == ()
    assert jpeg_extras.copied_segments(done.content) == jpeg_extras.copied_segments(content)
    other = denoised(content, "webp")
    assert other.notes == ("dropped: the extension of XMP, which a JPEG alone holds",)
    assert b"HasExtendedXMP" not in other.content
    assert b"b='1'" in other.content


def test_unknown_parts_are_named_when_the_type_changes() -> None:
    content = jpeg(Segment(0xEC, b"Ducky\0\1\0"), Segment(0xE5, b"\1\2"))
    assert denoised(content).notes == ()
    assert denoised(content, "png").notes == (
        "dropped: the JPEG segment APP12 (Ducky)",
        "dropped: the JPEG segment APP5",
    )
    clock = png(PHOTO, chunk(b"tIME", bytes(7)))
    assert denoised(clock).notes == ()
    assert denoised(clock, "tiff").notes == ("dropped: the PNG chunk tIME",)


def test_an_animation_of_one_frame_is_a_photo() -> None:
    height, width = PHOTO.shape[:2]
    control = chunk(b"acTL", struct.pack(">II", 1, 0))
    frame = chunk(b"fcTL", struct.pack(">5I2H2B", 0, width, height, 0, 0, 1, 1, 0, 0))
    content = png(PHOTO, control + frame)
    assert Image.open(io.BytesIO(content)).format == "PNG"
    done = denoised(content)
    assert np.array_equal(read_stored(done.content).colours, PHOTO)
    assert done.notes == ("dropped: the PNG chunk acTL", "dropped: the PNG chunk fcTL")


# Resolution


def resolution_of(content: bytes) -> tuple[float, float]:
    """Dots per inch, by Pillow."""
    with Image.open(io.BytesIO(content)) as image:
        across, down = image.info["dpi"]
        return float(across), float(down)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "TIFF"])
@pytest.mark.parametrize("file_format", [None, "jpeg", "png", "tiff"])
def test_resolution_is_that_of_the_input(kind: str, file_format: OutputFormat | None) -> None:
    content = saved(PHOTO, kind, dpi=(300, 200))
    done = denoised(content, file_format)
    assert resolution_of(done.content) == pytest.approx(resolution_of(content), abs=0.02)
    assert resolution_of(done.content) == pytest.approx((300, 200), abs=0.02)
    assert done.notes == ()


@pytest.mark.parametrize("kind", ["PNG", "BMP"])
def test_a_webp_has_the_resolution_in_exif(kind: str) -> None:
    done = denoised(saved(PHOTO, kind, dpi=(300, 200)), "webp")
    with Image.open(io.BytesIO(done.content)) as image:
        exif = image.getexif()
    assert (exif[282], exif[283]) == pytest.approx((300, 200), abs=0.02)
    assert exif[296] == 2
    exif = Image.Exif()
    exif[271] = "maker"
    other = denoised(saved(PHOTO, "PNG", dpi=(300, 200), exif=exif), "webp")
    assert other.notes == ("dropped: the resolution",)


def test_resolution_in_centimetres_and_absent_resolution() -> None:
    content = tiff(DEEP, resolution=(100, 50), resolutionunit=3)
    done = denoised(content, "png")
    assert resolution_of(done.content) == pytest.approx((254, 127), abs=0.02)
    for kind in ("PNG", "WEBP"):
        assert b"pHYs" not in denoised(saved(PHOTO, kind, lossless=True), "png").content
    assert 282 not in tiff_tags.read_tags(denoised(png(PHOTO), "tiff").content).tags


def test_huge_resolutions_do_not_fail() -> None:
    huge = png(PHOTO, chunk(b"pHYs", struct.pack(">IIB", 2**32 - 1, 2**31, 1)))
    for file_format in (None, "tiff", "webp"):
        denoised(huge, file_format)
    assert denoised(huge, "jpeg").notes == ("dropped: the resolution",)
    rational = struct.pack("<II", 2**32 - 1, 1)
    content = tiff(np.zeros((4, 4, 3), np.uint8))
    tags = tiff_tags.read_tags(content)
    assert tags.tags[282].type == 5
    content = content.replace(tags.tags[282].value, rational)
    denoised(content, "png")


# BMP


@pytest.mark.parametrize("alpha", [None, ALPHA])
def test_the_profile_of_a_bmp(alpha: NDArray[np.uint8] | None) -> None:
    adobe, display_p3 = profile("adobergb"), profile("adobergb") + bytes(3)
    for icc in (adobe, display_p3):
        photo = PHOTO[:, :55]  # rows that are padded
        content = BmpWriter((2835, 5000), icc).encode(
            photo, None if alpha is None else alpha[:, :55]
        )
        with Image.open(io.BytesIO(content)) as image:
            expected = photo if alpha is None else np.dstack([photo, alpha[:, :55]])
            assert np.array_equal(np.asarray(image), expected)
        done = denoised(content)
        assert done.content == content
        assert done.notes == ()
        stored = read_stored(denoised(content, "png").content)
        assert stored.profile == icc


def test_colours_of_a_bmp_that_are_not_kept_are_named() -> None:
    content = bytearray(BmpWriter(None, profile("adobergb")).encode(PHOTO, None))
    content[70:74] = b"KNIL"
    assert denoised(bytes(content)).notes == (
        "dropped: the name of a colour profile outside of the BMP",
    )
    content[70:74], content[80] = bytes(4), 1
    for file_format in (None, "png"):
        assert denoised(bytes(content), file_format).notes == (
            "dropped: the colour calibration of the BMP",
        )


def test_alpha_in_16_bits_of_a_bmp_is_refused() -> None:
    body = bytes(PHOTO.shape[0] * PHOTO.shape[1] * 2)
    shape = (108, 56, 40, 1, 16, 3, len(body), 0, 0, 0, 0)
    masks = struct.pack("<IIII", 0x7C00, 0x3E0, 0x1F, 0x8000) + b"BGRs" + bytes(48)
    content = b"BM" + struct.pack("<IHHI", 122 + len(body), 0, 0, 122)
    content += struct.pack("<IiiHHIIiiII", *shape) + masks + body
    with pytest.raises(UnreadablePhotoError, match="16 bits have alpha"):
        read_stored(content)
