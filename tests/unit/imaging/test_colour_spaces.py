"""Photos that state primaries and transfer curve are seen in sRGB, as formulas give it."""

import re
import struct
import zlib

import imagecodecs
import numpy as np
import pytest
from numpy.typing import NDArray
from unit.photofiles import DEEP, PHOTO, chunk, png, saved, tiff

from degrain.imaging import tiff_tags
from degrain.imaging.codecs import decode, read_stored
from degrain.imaging.colour_profiles import is_srgb
from degrain.imaging.colour_spaces import (
    D65,
    SRGB_PRIMARIES,
    Chromaticities,
    profile_from_colorimetry,
    srgb_curve,
)
from degrain.inference.config import OutputConfig, OutputFormat, ReadingConfig
from degrain.inference.denoiser import Identity
from degrain.inference.photo_file import denoise_content

P3: Chromaticities = (0.68, 0.32, 0.265, 0.69, 0.15, 0.06)
ADOBE: Chromaticities = (0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
PROPHOTO: Chromaticities = (0.7347, 0.2653, 0.1596, 0.8404, 0.0366, 0.0001)
BT2020: Chromaticities = (0.708, 0.292, 0.17, 0.797, 0.131, 0.046)
D50 = (0.3457, 0.3585)
BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)


def xyz(x: float, y: float) -> NDArray[np.float64]:
    return np.array([x / y, 1, (1 - x - y) / y])


def to_xyz(primaries: Chromaticities, white: tuple[float, float]) -> NDArray[np.float64]:
    """The matrix from linear RGB to XYZ under D65. Lindbloom, RGB/XYZ matrices."""
    columns = np.stack([xyz(*primaries[i : i + 2]) for i in (0, 2, 4)], axis=1)
    matrix = columns * np.linalg.solve(columns, xyz(*white))
    cones = BRADFORD @ xyz(*D65) / (BRADFORD @ xyz(*white))
    return np.asarray(np.linalg.inv(BRADFORD) @ np.diag(cones) @ BRADFORD @ matrix)


def expected_srgb(
    linear: NDArray[np.float64], primaries: Chromaticities, white: tuple[float, float]
) -> NDArray[np.float64]:
    """Linear RGB of a colour space as sRGB in 16 bits, by the formulas of IEC 61966-2-1."""
    inside = np.linalg.inv(to_xyz(SRGB_PRIMARIES, D65)) @ to_xyz(primaries, white)
    values = np.clip(linear @ inside.T, 0, 1)
    encoded = np.where(values <= 0.0031308, 12.92 * values, 1.055 * values ** (1 / 2.4) - 0.055)
    return np.asarray(encoded * 65535)


def in_srgb(profile: bytes) -> NDArray[np.uint16]:
    """DEEP converted from a profile, without the grid by which LittleCMS is fast."""
    return np.asarray(
        imagecodecs.cms_transform(
            DEEP,
            profile,
            imagecodecs.cms_profile("srgb"),
            colorspace="rgb",
            outcolorspace="rgb",
            flags=imagecodecs.CMS.FLAGS.NOOPTIMIZE,
        )
    )


def assert_close(
    seen: NDArray[np.uint16], expected: NDArray[np.float64], most: float = 0.3, mean: float = 0.02
) -> None:
    """Assert values of 16 bits to be close, in 255ths of white."""
    difference = np.abs(seen - expected) / 257
    assert difference.max() < most
    assert difference.mean() < mean


@pytest.mark.parametrize("primaries", [SRGB_PRIMARIES, P3, ADOBE, PROPHOTO])
@pytest.mark.parametrize("white", [D65, D50, (0.314, 0.351)])
@pytest.mark.parametrize("gamma", [1.0, 1.8, 2.2])
def test_profiles_equal_the_formulas(
    primaries: Chromaticities, white: tuple[float, float], gamma: float
) -> None:
    profile = profile_from_colorimetry(white, primaries, gamma)
    assert profile is not None
    assert_close(in_srgb(profile), expected_srgb((DEEP / 65535) ** gamma, primaries, white))


@pytest.mark.parametrize("points", [256, 65536])
def test_tables_equal_the_power_that_they_tabulate(points: int) -> None:
    exponents = np.array([[1.2], [1.8], [2.4]])
    table = np.round(np.linspace(0, 1, points) ** exponents * 65535).astype(np.uint16)
    profile = profile_from_colorimetry(None, P3, table)
    assert profile is not None
    linear = np.stack([(DEEP[:, :, i] / 65535) ** exponents[i] for i in range(3)], axis=-1)
    assert_close(in_srgb(profile), expected_srgb(linear, P3, D65))


def test_srgb_nothing_and_impossible_values_make_no_profile() -> None:
    curve = srgb_curve()
    assert profile_from_colorimetry(None, None, None) is None
    assert profile_from_colorimetry(D65, SRGB_PRIMARIES, curve) is None
    assert profile_from_colorimetry((0.31271, 0.32902), SRGB_PRIMARIES, None) is None
    assert profile_from_colorimetry(None, None, curve[::-1]) is None
    assert profile_from_colorimetry(None, None, 0.0) is None
    assert profile_from_colorimetry(None, None, float("nan")) is None
    assert profile_from_colorimetry((0.3, 0.0), None, 1.0) is None
    assert profile_from_colorimetry(None, (0.3, 0.3) * 3, 1.0) is None


def test_a_profile_has_the_same_bytes_whenever_it_is_made() -> None:
    made = profile_from_colorimetry(D65, P3, 2.2)
    assert made is not None
    assert made[24:36] == bytes.fromhex("07ea 0001 0001 0000 0000 0000")
    assert not is_srgb(made)


def rationals(values: tuple[float, ...]) -> tuple[int, ...]:
    return tuple(part for value in values for part in (round(value * 10000), 10000))


def colour_tags(white: tuple[float, float], primaries: Chromaticities) -> list[object]:
    return [(318, 5, 2, rationals(white), True), (319, 5, 6, rationals(primaries), True)]


def test_tags_of_a_tiff_are_interpreted() -> None:
    table = np.round((np.arange(65536) / 65535) ** 1.8 * 65535).astype(np.uint16)
    transfer = (301, 3, 65536, table, True)
    seen = decode(tiff(DEEP, extratags=[*colour_tags(D50, PROPHOTO), transfer]))
    # At the border of sRGB, where colours are clipped, the grid of LittleCMS is coarse.
    assert_close(seen, expected_srgb((DEEP / 65535) ** 1.8, PROPHOTO, D50), most=30, mean=0.5)
    linear = (301, 3, 768, np.tile(np.arange(256, dtype=np.uint16) * 257, 3), True)
    seen = decode(tiff(PHOTO, extratags=[linear]))
    assert_close(
        seen.astype(np.uint16) * 257,
        expected_srgb(PHOTO / 255, SRGB_PRIMARIES, D65),
        most=1,
        mean=0.5,
    )


def test_stated_colours_stay_in_a_tiff() -> None:
    adobe = bytes(imagecodecs.cms_profile("adobergb"))
    curve = (np.linspace(0, 1, 256) ** 1.8 * 65535).astype(np.uint16)
    tags = [*colour_tags(D50, PROPHOTO), (301, 3, 256, curve, True)]
    profile = [(34675, 7, len(adobe), adobe, True)]
    for stated, numbers in ((tags, {301, 318, 319}), (profile, {34675})):
        content = tiff(PHOTO, extratags=stated)
        done = denoise_content(content, Identity(), output=OutputConfig(), reading=ReadingConfig())
        assert done.notes == ()
        before, after = (tiff_tags.read_tags(file).tags for file in (content, done.content))
        assert after.keys() & {301, 318, 319, 34675} == numbers
        assert all(after[number].value == before[number].value for number in numbers)


def test_an_icc_profile_precedes_the_tags_of_a_tiff() -> None:
    srgb = bytes(imagecodecs.cms_profile("srgb"))
    both = [*colour_tags(D50, PROPHOTO), (34675, 7, len(srgb), srgb, True)]
    assert np.array_equal(decode(tiff(DEEP, extratags=both)), DEEP)
    assert np.array_equal(decode(tiff(DEEP, extratags=colour_tags(D65, SRGB_PRIMARIES))), DEEP)


def test_grey_tiffs_are_left_alone() -> None:
    grey = DEEP[:, :, 0]
    content = tiff(grey, extratags=colour_tags(D50, PROPHOTO))
    assert np.array_equal(decode(content)[:, :, 1], grey)


def gamma(value: int) -> bytes:
    return chunk(b"gAMA", value.to_bytes(4))


def chromaticity_chunk(white: tuple[float, float], primaries: Chromaticities) -> bytes:
    return chunk(
        b"cHRM", struct.pack(">8I", *(round(value * 100_000) for value in (*white, *primaries)))
    )


def cicp(*codes: int) -> bytes:
    return chunk(b"cICP", bytes(codes))


LINEAR_P3 = gamma(100_000) + chromaticity_chunk(D65, P3)
ICC = chunk(b"iCCP", b"icc\0\0" + zlib.compress(bytes(imagecodecs.cms_profile("adobergb"))))
SRGB = chunk(b"sRGB", b"\0")


def seen(content: bytes) -> NDArray[np.uint16]:
    """What a denoiser sees of a PNG."""
    return np.asarray(decode(content))


def test_chunks_of_a_png_are_interpreted() -> None:
    values = DEEP / 65535
    assert_close(seen(png(DEEP, LINEAR_P3)), expected_srgb(values, P3, D65), most=20, mean=0.3)
    prophoto = gamma(100_000) + chromaticity_chunk(D50, PROPHOTO)
    assert_close(seen(png(DEEP, prophoto)), expected_srgb(values, PROPHOTO, D50), most=30, mean=0.5)
    assert_close(
        seen(png(DEEP, gamma(55_556))), expected_srgb(values**1.8, SRGB_PRIMARIES, D65), most=1
    )
    assert_close(
        seen(png(DEEP, cicp(9, 8, 0, 1))), expected_srgb(values, BT2020, D65), most=20, mean=0.3
    )
    curve = np.where(values < 0.081, values / 4.5, ((values + 0.099) / 1.099) ** (1 / 0.45))
    assert_close(
        seen(png(DEEP, cicp(1, 1, 0, 1))), expected_srgb(curve, SRGB_PRIMARIES, D65), most=1
    )


@pytest.mark.parametrize(
    ("chunks", "equal"),
    [
        (cicp(12, 8, 0, 1) + ICC + SRGB + gamma(50_000), LINEAR_P3),
        (ICC + SRGB + LINEAR_P3, ICC),
        (SRGB + LINEAR_P3, b""),
        (gamma(45_455), b""),
        (gamma(45_455) + chromaticity_chunk(D65, SRGB_PRIMARIES), b""),
        (cicp(1, 13, 0, 1) + ICC, b""),
        (gamma(0), b""),
        (chunk(b"gAMA", b"\0") + chunk(b"cHRM", b"\0"), b""),
        (chunk(b"gAMA", struct.pack(">I", 100_000))[:-1] + b"\0", b""),
    ],
)
def test_chunks_precede_each_other(chunks: bytes, equal: bytes) -> None:
    assert np.array_equal(seen(png(DEEP, chunks)), seen(png(DEEP, equal)))


@pytest.mark.parametrize(
    ("codes", "reason"),
    [
        ((9, 16, 0, 1), r"high dynamic range \(PQ\)"),
        ((9, 18, 0, 1), r"high dynamic range \(HLG\)"),
        ((2, 2, 0, 1), r"its colours \(cICP 2-2-0-1\) are not known"),
        ((1, 13, 0, 0), r"its colours \(cICP 1-13-0-0\) are not known"),
        ((1, 13), r"its colours \(cICP\) are damaged"),
    ],
)
def test_colours_that_are_not_known_are_denoised_as_stored(
    codes: tuple[int, ...], reason: str
) -> None:
    content = png(DEEP, cicp(*codes))
    assert np.array_equal(seen(content), DEEP)
    done = denoise_content(content, Identity(), output=OutputConfig(), reading=ReadingConfig())
    assert cicp(*codes) in done.content
    [note] = done.notes
    assert re.fullmatch(f"denoised as stored: .*{reason}", note)
    other = denoise_content(
        content, Identity(), output=OutputConfig(format="tiff"), reading=ReadingConfig()
    )
    assert "dropped: the PNG chunk cICP" in other.notes


@pytest.mark.parametrize("file_format", ["jpeg", "tiff", "webp"])
def test_stated_colours_stay_in_a_png_and_go_to_other_types_as_a_profile(
    file_format: OutputFormat,
) -> None:
    content = png(PHOTO, LINEAR_P3)
    reading = ReadingConfig()
    same = denoise_content(content, Identity(), output=OutputConfig(), reading=reading)
    assert LINEAR_P3 in same.content
    assert b"iCCP" not in same.content
    assert same.notes == ()
    other = denoise_content(
        content, Identity(), output=OutputConfig(format=file_format), reading=reading
    )
    assert other.notes == ()
    assert read_stored(other.content).profile == read_stored(content).profile is not None


def test_stated_colours_of_grey_are_not_interpreted() -> None:
    grey = DEEP[:, :, 0]
    content = png(grey, LINEAR_P3)
    assert np.array_equal(seen(content)[:, :, 1], grey)
    done = denoise_content(
        content, Identity(), output=OutputConfig(format="tiff"), reading=ReadingConfig()
    )
    assert done.notes == ("dropped: the PNG chunk gAMA",)


def test_a_profile_of_more_than_a_mebibyte_is_read() -> None:
    adobe = bytearray(imagecodecs.cms_profile("adobergb"))
    adobe += np.random.default_rng(0).bytes(3 * 2**20)
    adobe[:4] = len(adobe).to_bytes(4)
    content = png(PHOTO, chunk(b"iCCP", b"icc\0\0" + zlib.compress(bytes(adobe))))
    assert np.array_equal(seen(content), seen(png(PHOTO, ICC)))


def exif_block(order: str, space: int, index: bytes) -> bytes:
    """EXIF with a colour space and an index of interoperability."""
    mark = b"II*\0" if order == "<" else b"MM\0*"
    entry, long, short, text = f"{order}HHI", 4, 3, 2
    first = struct.pack(f"{order}H{entry[1:]}II", 1, 34665, long, 1, 26, 0)
    colour = struct.pack(entry, 40961, short, 1) + struct.pack(f"{order}HH", space, 0)
    below = struct.pack(f"{entry}I", 40965, long, 1, 56)
    inner = struct.pack(f"{order}H", 2) + colour + below + bytes(4)
    last = struct.pack(f"{order}H", 1) + struct.pack(entry, 1, text, 4) + index + bytes(4)
    return mark + struct.pack(f"{order}I", 8) + first + inner + last


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("space", "index", "adobe"),
    [
        (65535, b"R03\0", True),
        (2, b"R03\0", True),
        (65535, b"R98\0", False),
        (1, b"R98\0", False),
        (1, b"R03\0", False),
    ],
)
def test_jpegs_of_cameras_state_adobe_rgb_in_exif(
    order: str, space: int, index: bytes, adobe: bool
) -> None:
    plain = saved(PHOTO, "JPEG", quality=95)
    exif = exif_block(order, space, index)
    content = saved(PHOTO, "JPEG", quality=95, exif=b"Exif\0\0" + exif)
    stored = decode(plain)
    if not adobe:
        assert np.array_equal(decode(content), stored)
        return
    expected = imagecodecs.cms_transform(
        stored,
        imagecodecs.cms_profile("adobergb"),
        imagecodecs.cms_profile("srgb"),
        colorspace="rgb",
        outcolorspace="rgb",
    )
    assert np.abs(decode(content).astype(int) - expected).max() <= 1
    done = denoise_content(content, Identity(), output=OutputConfig(), reading=ReadingConfig())
    assert b"ICC_PROFILE" not in done.content
    for cut in range(len(exif)):
        decode(saved(PHOTO[:8, :8], "JPEG", exif=b"Exif\0\0" + exif[:cut]))
