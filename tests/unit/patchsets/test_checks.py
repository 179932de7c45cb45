"""Checks of a pair: every refusal with its message, and the correction of shifts."""

from dataclasses import replace
from math import inf, nan

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage import data as skimage_data
from unit.support import natural_photo, random_photo, with_noise

from degrain.corpora.record import PairRecord
from degrain.imaging.alignment import Shift
from degrain.imaging.camera_noise import ISO_LEVELS, photograph, to_linear, to_srgb
from degrain.imaging.codecs import UnreadablePhotoError, encode_png
from degrain.imaging.exposure import apply_gains, estimate_exposure
from degrain.imaging.noise_synthesis import add_noise
from degrain.imaging.pixels import Photo, sixteen_bits
from degrain.patchsets.check_rules import CheckRules
from degrain.patchsets.checks import (
    BELIEVED_GAIN,
    apply_shift,
    correct,
    decode_pair,
    is_misaligned,
    measure,
)

PAIR = PairRecord(
    id="scene/1",
    corpus="scene",
    scene="scene/1",
    noisy="s3://corpus/noisy.png",
    clean="s3://corpus/clean.png",
)
RULES = CheckRules()
CLEAN = natural_photo(40, 56)
NOISY = with_noise(CLEAN)
SCENE: Photo = skimage_data.coffee()


def shifted(down: int, right: int) -> tuple[Photo, Photo]:
    """A noisy photo that has to be moved down and right to lie on the clean one, and that one."""
    return with_noise(SCENE[20 + down : 340 + down, 20 + right : 420 + right]), SCENE[
        20:340, 20:420
    ]


def test_a_pair_is_decoded() -> None:
    noisy, clean = decode_pair(PAIR, encode_png(NOISY), encode_png(CLEAN), RULES)
    assert np.array_equal(noisy, NOISY)
    assert np.array_equal(clean, CLEAN)


def test_the_noisy_photo_of_a_synthetic_pair_is_made() -> None:
    pair = replace(PAIR, noisy=PAIR.clean, noise="gaussian:20")
    noisy, clean = decode_pair(pair, None, encode_png(CLEAN), RULES)
    assert np.array_equal(clean, CLEAN)
    assert np.array_equal(noisy, add_noise(CLEAN, "gaussian:20", PAIR.id))


@pytest.mark.parametrize("deep", [(True, False), (False, True), (True, True)])
def test_each_photo_keeps_its_bits(deep: tuple[bool, bool]) -> None:
    files = [
        encode_png(sixteen_bits(x) if d else x) for x, d in zip((NOISY, CLEAN), deep, strict=True)
    ]
    decoded = decode_pair(PAIR, files[0], files[1], RULES)
    assert tuple(x.dtype == np.uint16 for x in decoded) == deep


@pytest.mark.parametrize(
    ("noisy", "clean", "message"),
    [
        (
            None,
            CLEAN,
            "s3://corpus/noisy.png: there is no such file, or it disappeared after the listing",
        ),
        (
            NOISY,
            None,
            "s3://corpus/clean.png: there is no such file, or it disappeared after the listing",
        ),
        (NOISY, b"", "s3://corpus/clean.png: the file is empty"),
        (
            b"<html>",
            CLEAN,
            "s3://corpus/noisy.png: it is not a photo in a known format, or damaged at its start; "
            "convert it to JPEG, PNG, TIFF, WebP or BMP",
        ),
        (
            NOISY[:39],
            CLEAN,
            "s3://corpus/noisy.png and its clean photo have unequal sizes, 56x39 and 56x40",
        ),
        (
            NOISY.transpose(1, 0, 2),
            CLEAN,
            "s3://corpus/noisy.png and its clean photo have unequal sizes, 40x56 and 56x40",
        ),
    ],
)
def test_a_file_that_cannot_be_decoded_is_named(
    noisy: Photo | bytes | None, clean: Photo | bytes | None, message: str
) -> None:
    contents = [
        encode_png(np.ascontiguousarray(x)) if isinstance(x, np.ndarray) else x
        for x in (noisy, clean)
    ]
    with pytest.raises(UnreadablePhotoError) as raised:
        decode_pair(PAIR, contents[0], contents[1], RULES)
    assert str(raised.value) == message


def test_the_rules_limit_the_size() -> None:
    with pytest.raises(
        UnreadablePhotoError,
        match=r"clean\.png: its size is 56x40 pixels, over the limit of 0.001 megapixels",
    ):
        decode_pair(
            PAIR, encode_png(NOISY), encode_png(CLEAN), CheckRules(largest_megapixels=0.001)
        )


def test_a_good_pair_is_measured() -> None:
    measured = measure(PAIR, *shifted(0, 0), RULES)
    assert (measured.move_y, measured.move_x) == (0, 0)
    assert abs(measured.shift_y) < 0.2
    assert abs(measured.shift_x) < 0.2
    assert measured.shift_gain < BELIEVED_GAIN
    assert measured.exposure == pytest.approx(1, abs=0.03)
    assert measured.clipped < 0.1


def refusal(noisy: Photo, clean: Photo, rules: CheckRules = RULES, pair: PairRecord = PAIR) -> str:
    with pytest.raises(UnreadablePhotoError) as raised:
        measure(pair, noisy, clean, rules)
    return str(raised.value)


@pytest.mark.parametrize("photo", [CLEAN, sixteen_bits(CLEAN)], ids=["8", "16"])
def test_the_same_picture_twice_is_refused(photo: Photo) -> None:
    assert (
        refusal(photo.copy(), photo)
        == "s3://corpus/noisy.png and its clean photo are the same picture"
    )


def test_one_value_of_difference_makes_two_pictures() -> None:
    other = CLEAN.copy()
    other[3, 4, 1] ^= 1
    measure(PAIR, other, CLEAN, RULES)


@pytest.mark.parametrize("deep", [False, True], ids=["8", "16"])
def test_unlike_exposures_are_refused_either_way(deep: bool) -> None:
    dark = (CLEAN // 4).astype(np.uint8)
    bright, dark = (sixteen_bits(CLEAN), sixteen_bits(dark)) if deep else (CLEAN, dark)
    message = (
        r"s3://corpus/noisy.png and its clean photo differ in exposure by a factor of {}, "
        r"over 2.5 \(`max_exposure`\)"
    )
    with pytest.raises(UnreadablePhotoError, match=message.format(r"4\.\d\d")):
        measure(PAIR, dark, bright, RULES)
    with pytest.raises(UnreadablePhotoError, match=message.format(r"[34]\.\d\d")):
        measure(PAIR, bright, dark, RULES)
    lenient = CheckRules(max_exposure=5)
    assert measure(PAIR, dark, bright, lenient).exposure == pytest.approx(4.06, abs=0.1)
    assert measure(PAIR, bright, dark, lenient).exposure == pytest.approx(1 / 4.06, abs=0.01)


def test_exposure_does_not_depend_on_bits() -> None:
    expected = measure(PAIR, NOISY, CLEAN, RULES).exposure
    assert measure(PAIR, sixteen_bits(NOISY), CLEAN, RULES).exposure == pytest.approx(expected)


def test_black_against_black_has_no_exposure_to_refuse() -> None:
    black = np.zeros((20, 20, 3), np.uint8)
    speck = black.copy()
    speck[0, 0] = 9
    assert measure(PAIR, speck, black, CheckRules(max_clipped=1)).clipped == 1


@pytest.mark.parametrize("white", [0, 255], ids=["black", "white"])
@pytest.mark.parametrize("deep", [False, True], ids=["8", "16"])
def test_a_clipped_clean_photo_is_refused(white: int, deep: bool) -> None:
    clean = np.full((40, 50, 3), white, np.uint8)
    clean[0] = 100
    noisy = with_noise(clean, deviation=3)
    pair = (sixteen_bits(noisy), sixteen_bits(clean)) if deep else (noisy, clean)
    assert (
        refusal(*pair)
        == "s3://corpus/clean.png: 98% of its values are black or white, over 95% (`max_clipped`)"
    )
    measured = measure(PAIR, pair[0], pair[1], CheckRules(max_clipped=0.98))
    assert measured.clipped == pytest.approx(0.975)


def test_white_of_eight_bits_is_not_white_of_sixteen() -> None:
    clean = np.full((20, 20, 3), 255, np.uint16)
    assert measure(PAIR, clean + np.uint16(1), clean, RULES).clipped == 0


@pytest.mark.slow
def test_a_misaligned_pair_is_corrected_by_an_integer_shift() -> None:
    for down, right in ((3, -5), (-9, 0), (0, 14), (-12, -7)):
        noisy, clean = shifted(down, right)
        measured = measure(PAIR, noisy, clean, RULES)
        assert (measured.move_y, measured.move_x) == (down, right)
        assert (measured.shift_y, measured.shift_x) == pytest.approx((down, right), abs=0.2)
        assert measured.shift_gain > BELIEVED_GAIN
        a, b = apply_shift(noisy, clean, measured.move_y, measured.move_x)
        again = measure(PAIR, a, b, RULES)
        assert (again.move_y, again.move_x) == (0, 0)
        assert np.abs(a.astype(int) - b).mean() < 13  # what noise of 15 differs by


def test_a_shifted_pair_is_refused_where_the_rules_say_so() -> None:
    message = refusal(*shifted(3, -5), CheckRules(alignment="refuse"))
    assert message.startswith(
        "s3://corpus/noisy.png is shifted against its clean photo by +3.0 down, -5.0 right, "
        "over 0.5 "
    )
    assert message.endswith(
        "pixels (`max_shift`); `alignment` correct corrects it by an integer shift"
    )


@pytest.mark.parametrize("alignment", ["correct", "refuse"])
def test_a_shift_within_the_limit_is_not_corrected(alignment: str) -> None:
    rules = CheckRules(alignment=alignment, max_shift=5.5)  # type: ignore[arg-type]
    measured = measure(PAIR, *shifted(3, -5), rules)
    assert (measured.move_y, measured.move_x) == (0, 0)
    assert (measured.shift_y, measured.shift_x) == pytest.approx((3, -5), abs=0.2)


@pytest.mark.parametrize(
    ("rules", "pair"),
    [(CheckRules(alignment="ignore"), PAIR), (RULES, replace(PAIR, noise="gaussian:9"))],
)
def test_ignored_and_synthetic_pairs_have_no_shift(rules: CheckRules, pair: PairRecord) -> None:
    measured = measure(pair, *shifted(3, -5), rules)
    no_shift = {"shift_y": 0, "shift_x": 0, "shift_gain": 0, "move_y": 0, "move_x": 0}
    assert measured == replace(
        pair, **no_shift, exposure=measured.exposure, clipped=measured.clipped
    )


@pytest.mark.parametrize("bits", [8, 16])
def test_a_pair_whose_photos_are_swapped_is_refused(bits: int) -> None:
    noisy, clean = shifted(0, 0)
    if bits == 16:
        noisy, clean = sixteen_bits(noisy), sixteen_bits(clean)
    measure(PAIR, noisy, clean, RULES)
    message = "s3://corpus/clean.png has more noise than s3://corpus/noisy.png; name the noisy"
    with pytest.raises(UnreadablePhotoError, match=message):
        measure(PAIR, clean, noisy, RULES)


COFFEE, ASTRONAUT = (
    photo()[40:360, 60:380] for photo in (skimage_data.coffee, skimage_data.astronaut)
)


def test_swapped_photos_are_accepted_where_the_rules_say_so() -> None:
    noisy, clean = shifted(0, 0)
    assert "has more noise than" in refusal(clean, noisy, RULES)
    assert measure(PAIR, clean, noisy, CheckRules(swapped="accept")).move_y == 0


def test_a_clear_shift_is_corrected_even_if_it_gains_little() -> None:
    shift = Shift(1.0, 0.0, gain=0.01, error=0.05)
    assert is_misaligned(shift, RULES)
    assert not is_misaligned(replace(shift, error=0.1), RULES)
    assert not is_misaligned(replace(shift, y=0.6, error=0.01), RULES)


def test_a_far_shift_is_corrected() -> None:
    clean = SCENE[60:260, 60:460]
    measured = measure(PAIR, with_noise(SCENE[15:215, 98:498]), clean, RULES)
    assert (measured.move_y, measured.move_x) == (-45, 38)


@pytest.mark.parametrize("alignment", ["correct", "refuse"])
def test_a_pair_that_no_shift_aligns_is_refused(alignment: str) -> None:
    turned = np.asarray(Image.fromarray(SCENE).rotate(1, Image.Resampling.BICUBIC))[40:340, 40:440]
    rules = CheckRules(alignment=alignment)  # type: ignore[arg-type]
    message = refusal(with_noise(turned), SCENE[40:340, 40:440], rules)
    assert message.startswith(
        "s3://corpus/noisy.png cannot be aligned with its clean photo: it is rotated or scaled, or "
        "parts moved, by "
    )
    assert message.endswith(
        "photograph with a tripod and one focus, or ignore alignment (`alignment`)"
    )
    ignoring = CheckRules(alignment="ignore")
    measure(PAIR, with_noise(turned), SCENE[40:340, 40:440], ignoring)


OWN = replace(PAIR, own=True)
GAINS = (0.9, 0.93, 0.88)


def exposed(gains: tuple[float, float, float], deviation: float = 4) -> tuple[Photo, Photo]:
    """A noisy photo of another exposure than the clean one, and that one."""
    clean = SCENE[20:340, 20:420]
    return with_noise(apply_gains(clean, gains), deviation=deviation), clean


def test_the_clean_photo_of_an_own_pair_gets_the_exposure_of_its_noisy_one() -> None:
    noisy, clean = exposed(GAINS)
    measured = measure(OWN, noisy, clean, RULES)
    assert measured.gains == pytest.approx(GAINS, rel=0.01)
    matched_noisy, matched = correct(noisy, clean, measured)
    assert matched_noisy is noisy
    assert estimate_exposure(noisy, matched).gains == pytest.approx((1, 1, 1), abs=0.004)


@pytest.mark.parametrize(
    ("rules", "pair"),
    [
        (CheckRules(exposure="keep"), OWN),
        (RULES, PAIR),
        (RULES, replace(OWN, noise="gaussian:9")),
    ],
)
def test_kept_published_and_synthetic_pairs_keep_their_exposure(
    rules: CheckRules, pair: PairRecord
) -> None:
    noisy, clean = exposed(GAINS)
    measured = measure(pair, noisy, clean, rules)
    assert (measured.gains, measured.gain_error) == (None, None)
    assert correct(noisy, clean, measured)[1] is clean


def test_equal_exposures_are_left_as_they_are() -> None:
    noisy, clean = exposed((1, 1, 1))
    measured = measure(OWN, noisy, clean, RULES)
    assert measured.gains is None
    assert measured.gain_error is not None
    assert measured.gain_error < 0.005


def test_an_uncertain_exposure_is_not_matched() -> None:
    noisy, clean = exposed((0.9, 0.9, 0.9))
    dark = (noisy // 20).astype(np.uint8), (clean // 20).astype(np.uint8)
    measured = measure(OWN, *dark, CheckRules(max_clipped=1))
    assert measured.gains is None
    assert measured.gain_error == 1


def test_a_large_difference_is_matched_though_it_is_less_certain() -> None:
    noisy, clean = exposed((0.7, 0.7, 0.7), 20)
    measured = measure(OWN, noisy, clean, RULES)
    assert measured.gain_error is not None
    assert measured.gain_error > 0.005
    assert measured.gains == pytest.approx((0.7, 0.7, 0.7), rel=0.03)
    assert not measured.exposure_unknown


@pytest.mark.parametrize("grey", ["noisy", "clean"])
@pytest.mark.parametrize("pair", [PAIR, OWN])
def test_a_grey_photo_is_no_partner_of_one_with_colours(grey: str, pair: PairRecord) -> None:
    photos = dict(zip(("noisy", "clean"), exposed((1, 1, 1)), strict=True))
    photos[grey] = np.repeat(photos[grey].mean(axis=2, keepdims=True), 3, axis=2).astype(np.uint8)
    with pytest.raises(UnreadablePhotoError, match="is grey, and the other has colours"):
        measure(pair, photos["noisy"], photos["clean"], RULES)


def test_who_stood_in_one_photo_is_seen() -> None:
    noisy, clean = exposed((1, 1, 1))
    noisy[180:280, 40:90] = with_noise(np.full((100, 50, 3), (200, 190, 210), np.uint8))
    with pytest.raises(UnreadablePhotoError, match=r"show different things in .* of the scene|mov"):
        measure(OWN, noisy, clean, RULES)


def test_other_light_is_refused() -> None:
    noisy, clean = exposed((1, 1, 1))
    ramp = np.linspace(0.6, 1.5, noisy.shape[1])[None, :, None]
    lit = to_srgb(to_linear(noisy) * ramp)
    with pytest.raises(UnreadablePhotoError, match=r"differ by \d+% in a part, or in some tones"):
        measure(OWN, lit, clean, RULES)
    assert measure(OWN, lit, clean, CheckRules(exposure="keep")).gains is None


@pytest.mark.parametrize("alignment", ["correct", "refuse", "ignore"])
def test_photos_of_different_scenes_are_refused(alignment: str) -> None:
    rules = CheckRules(alignment=alignment)  # type: ignore[arg-type]
    message = "s3://corpus/noisy.png and s3://corpus/clean.png show different scenes"
    assert refusal(with_noise(COFFEE), ASTRONAUT, rules) == message
    assert refusal(sixteen_bits(with_noise(ASTRONAUT)), COFFEE, rules) == message


def test_a_shifted_pair_shows_one_scene_even_if_the_shift_is_ignored() -> None:
    for down, right in ((-12, -7), (15, 15)):
        measured = measure(PAIR, *shifted(down, right), CheckRules(alignment="ignore"))
        assert (measured.refused, measured.move_y) == (None, 0)


@pytest.mark.parametrize("side", [24, 64, 160, 320])
@pytest.mark.parametrize("level", [60, 128])
def test_noise_on_a_flat_photo_is_no_other_scene(side: int, level: int) -> None:
    flat = np.full((side, side, 3), level, np.uint8)
    for seed in range(5):
        measure(PAIR, with_noise(flat, seed, 60), flat, RULES)


def test_strong_noise_on_small_photos_is_no_other_scene() -> None:
    random = np.random.default_rng(0)
    for photo in (COFFEE, ASTRONAUT):
        for side in (32, 64, 128, 200):
            for _ in range(10):
                top, left = random.integers(0, 320 - side, 2)
                clean = photo[top : top + side, left : left + side]
                noisy = photograph(clean, ISO_LEVELS[12800], random)
                measure(PAIR, noisy, clean, CheckRules(max_exposure=100, max_clipped=1))


def test_a_shift_of_a_deep_pair_is_found_too() -> None:
    noisy, clean = shifted(3, -5)
    measured = measure(PAIR, sixteen_bits(noisy), sixteen_bits(clean), RULES)
    assert (measured.move_y, measured.move_x) == (3, -5)


@settings(max_examples=100, deadline=None)
@given(
    height=st.integers(20, 40),
    width=st.integers(20, 40),
    move_y=st.integers(-15, 15),
    move_x=st.integers(-15, 15),
)
def test_a_shift_leaves_the_parts_that_both_photos_show(
    height: int, width: int, move_y: int, move_x: int
) -> None:
    scene = random_photo(height + 40, width + 40)
    clean = scene[20 : 20 + height, 20 : 20 + width]
    noisy = scene[20 + move_y : 20 + move_y + height, 20 + move_x : 20 + move_x + width]
    a, b = apply_shift(noisy, clean, move_y, move_x)
    assert np.array_equal(a, b)
    assert a.shape == (height - abs(move_y), width - abs(move_x), 3)
    assert np.shares_memory(a, noisy)
    assert np.shares_memory(b, clean)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"alignment": "fix"}, "alignment must be one of correct, refuse, ignore, got 'fix'"),
        ({"profiles": "drop"}, "profiles must be one of convert, keep, got 'drop'"),
        ({"max_shift": 0.4}, "max_shift must be 0.5 to 16 pixels, got 0.4"),
        ({"max_shift": nan}, "max_shift must be 0.5 to 16 pixels, got nan"),
        ({"max_shift": inf}, "max_shift must be 0.5 to 16 pixels, got inf"),
        ({"exposure": "fix"}, "exposure must be one of match, keep, got 'fix'"),
        ({"swapped": "swap"}, "swapped must be one of refuse, accept, got 'swap'"),
        ({"max_exposure": 0.9}, "max_exposure must be at least 1, got 0.9"),
        ({"max_exposure": nan}, "max_exposure must be at least 1, got nan"),
        ({"max_clipped": -0.1}, "max_clipped must be a share between 0 and 1, got -0.1"),
        ({"max_clipped": inf}, "max_clipped must be a share between 0 and 1, got inf"),
        ({"largest_megapixels": 0}, "largest_megapixels must be a positive number, got 0"),
    ],
)
def test_invalid_rules_are_refused(change: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CheckRules(**change)  # type: ignore[arg-type]
