"""Colour profiles are converted to sRGB, ignored or refused."""

import io
import struct
import zlib
from collections.abc import Callable

import imagecodecs
import numpy as np
import pytest
from PIL import Image, ImageCms
from unit.photofiles import (
    ALPHA,
    DEEP,
    DEEP_ALPHA,
    DEEP_GREY,
    GREY,
    PHOTO,
    assert_decodes,
    assert_layers,
    chunk,
    encoded,
    png,
    profile,
    repeated,
    saved,
    tiff,
)

from degrain.imaging.codecs import (
    UnreadablePhotoError,
    decode,
    decode_layers,
)
from degrain.imaging.colour_profiles import is_srgb
from degrain.imaging.colour_spaces import (
    D65,
    SRGB_PRIMARIES,
    profile_from_colorimetry,
    srgb_curve,
)
from degrain.imaging.pixels import eight_bits, peak, sixteen_bits

ADOBE = profile("adobergb")


holders = pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda icc: saved(PHOTO, "PNG", icc_profile=icc), id="png"),
        pytest.param(
            lambda icc: encoded(Image.fromarray(PHOTO).convert("RGBA"), "PNG", icc_profile=icc),
            id="opaque png",
        ),
        pytest.param(lambda icc: saved(PHOTO, "TIFF", icc_profile=icc), id="tiff"),
        pytest.param(lambda icc: saved(PHOTO, "WEBP", lossless=True, icc_profile=icc), id="webp"),
        pytest.param(lambda icc: saved(PHOTO, "JPEG", quality=95, icc_profile=icc), id="jpeg"),
        pytest.param(
            lambda icc: tiff(sixteen_bits(PHOTO), extratags=[(34675, 7, len(icc), icc, True)]),
            id="tiff16",
        ),
        pytest.param(
            lambda icc: tiff(
                (PHOTO / 255).astype(np.float32), extratags=[(34675, 7, len(icc), icc, True)]
            ),
            id="float tiff",
        ),
    ],
)


@holders
def test_conversion_equals_littlecms(make: Callable[[bytes], bytes]) -> None:
    content = make(ADOBE)
    kept, converted = decode(content, profiles="keep"), decode(content)
    assert converted.dtype == kept.dtype
    source, target = ImageCms.getOpenProfile(io.BytesIO(ADOBE)), ImageCms.createProfile("sRGB")
    expected = ImageCms.profileToProfile(Image.fromarray(eight_bits(kept)), source, target)
    difference = np.abs(eight_bits(converted).astype(int) - np.asarray(expected))
    # In the dark, where gamma is steep, 16 bits know more than the 8 that the reference starts
    # from.
    assert difference.max() <= (1 if kept.dtype == np.uint8 else 3)
    assert difference.mean() < 0.2
    assert np.abs(converted.astype(int) - kept).mean() > peak(kept) / 255


@holders
def test_srgb_is_unchanged(make: Callable[[bytes], bytes]) -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert np.array_equal(decode(make(srgb)), decode(make(srgb), profiles="keep"))


@holders
@pytest.mark.parametrize(
    ("icc", "reason"),
    [
        (b"garbage" * 30, "its colour profile is damaged"),
        (ADOBE[:200], "its colour profile is damaged"),
        (ADOBE.replace(b"rTRC", b"xTRC"), r"its colour profile cannot be converted \(.+\)"),
        (profile("gray"), "its colour profile is for GRAY, not RGB"),
        (
            ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes(),
            "its colour profile is for Lab, not RGB",
        ),
    ],
    ids=["garbage", "cut", "without a curve", "grey", "lab"],
)
def test_unusable_profiles_are_refused_unless_ignored(
    make: Callable[[bytes], bytes], icc: bytes, reason: str
) -> None:
    with pytest.raises(
        UnreadablePhotoError, match=f"{reason}; set `profiles` to keep to ignore it"
    ):
        decode(make(icc))
    decode(make(icc), profiles="keep")


def test_profiles_of_grey_photos_are_ignored() -> None:
    assert_decodes(saved(GREY, "PNG", icc_profile=profile("gray")), repeated(GREY))
    held = chunk(b"iCCP", b"grey\0\0" + zlib.compress(profile("gray")))
    layers = decode_layers(png(np.dstack([DEEP_GREY, DEEP_ALPHA]), held))
    assert_layers(layers, repeated(DEEP_GREY), DEEP_ALPHA, grey=True)


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_conversion_does_not_change_alpha(format: str) -> None:  # noqa: A002
    content = encoded(Image.fromarray(np.dstack([PHOTO, ALPHA])), format, icc_profile=ADOBE)
    assert_layers(
        decode_layers(content), decode(saved(PHOTO, "PNG", icc_profile=ADOBE)), ALPHA, grey=False
    )


def named(icc: bytes, name: str) -> bytes:
    """The profile with another description. ICC.1:2022, multiLocalizedUnicodeType."""
    text = name.encode("utf-16-be")
    tag = b"mluc\0\0\0\0" + struct.pack(">II4sII", 1, 12, b"enUS", len(text), 28) + text
    content = bytearray(icc)
    for entry in range(132, 132 + 12 * int.from_bytes(icc[128:132]), 12):
        if icc[entry : entry + 4] == b"desc":
            struct.pack_into(">II", content, entry + 4, len(content), len(tag))
    content += tag
    content[:4] = len(content).to_bytes(4)
    return bytes(content)


LINEAR = profile_from_colorimetry(None, None, 1.0) or b""
WIDE = profile_from_colorimetry(None, (0.708, 0.292, 0.17, 0.797, 0.131, 0.046), None) or b""


@pytest.mark.parametrize(
    ("icc", "name"),
    [
        (LINEAR, "GIMP built-in Linear sRGB"),
        (LINEAR, "sRGB-elle-V2-g10.icc"),
        (WIDE, "Rec2020-elle-V4-srgbtrc.icc"),
    ],
)
def test_profiles_named_after_srgb_are_converted(icc: bytes, name: str) -> None:
    icc = named(icc, name)
    opened = ImageCms.getOpenProfile(io.BytesIO(icc))
    assert ImageCms.getProfileDescription(opened).strip() == name
    content = png(DEEP, chunk(b"iCCP", b"icc\0\0" + zlib.compress(icc)))
    expected = imagecodecs.cms_transform(
        DEEP, icc, profile("srgb"), colorspace="rgb", outcolorspace="rgb"
    )
    assert np.array_equal(decode(content), expected)
    assert not np.array_equal(decode(content), DEEP)


@pytest.mark.parametrize("points", [1024, 64])
def test_profiles_of_any_name_that_act_as_srgb_are_srgb(points: int) -> None:
    places = np.linspace(0, len(srgb_curve()) - 1, points).round().astype(int)
    icc = imagecodecs.cms_profile(
        "rgb",
        whitepoint=D65,
        primaries=SRGB_PRIMARIES,
        transferfunction=np.tile(srgb_curve()[places], (3, 1)),
    )
    assert is_srgb(named(bytes(icc), "Camera RGB"))
    assert not is_srgb(named(bytes(profile("adobergb")), "sRGB"))
