"""The checks of a pair: two readable photos of one size and scene, aligned, exposed alike, the
clean one not noisier than the other.

A pair that fails is refused with its reason. What differs by no more than a shift, or a gain per
channel, is corrected if the rules allow it: the noisy photo is shifted by integers, and the clean
one takes the other's exposure and white balance, so that the noise stays as it is.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from degrain.corpora.record import MOST_GAIN_ERROR, PairRecord
from degrain.imaging.alignment import Shift, estimate_shift
from degrain.imaging.codecs import decode
from degrain.imaging.content import are_swapped, one_is_grey, shows_other_scene
from degrain.imaging.crops import thin_out
from degrain.imaging.exposure import (
    MOST_FOREIGN,
    MOST_UNEVEN,
    apply_gains,
    estimate_exposure,
)
from degrain.imaging.noise_synthesis import add_noise
from degrain.imaging.pixels import Photo, peak
from degrain.imaging.stored_photo import UnreadablePhotoError
from degrain.patchsets.check_rules import CheckRules

BELIEVED_GAIN = 0.06
"""Gain (see `imaging.alignment`) from which a shift is believed.

Of 251 real pairs the ten that are known to be misaligned have 0.117 and more, all others 0.026 and
less.
"""
CLEAR_SHIFT = 0.75
"""Pixels, less four standard errors, from which a shift is believed whatever it gains: the more
noise, the less it does. Of the real pairs that are not misaligned the largest is 0.68.
"""
LEAST_GAIN = 0.005
"""Share by which a channel's exposure differs from which it is matched."""
_NO_SHIFT: Any = {"shift_y": 0, "shift_x": 0, "shift_gain": 0, "move_y": 0, "move_x": 0}
"""Fields of a pair whose shift is not measured."""


def decode_pair(
    pair: PairRecord, noisy: bytes | None, clean: bytes | None, rules: CheckRules
) -> tuple[Photo, Photo]:
    """Both photos; the noisy one is synthesised from the clean one if `pair.noise` is set.

    Raises UnreadablePhotoError, naming the file, if a file is missing or damaged, or if the two
    have unequal sizes.
    """
    clean_photo = _decode_named(pair.clean, clean, rules)
    if pair.noise is None:
        noisy_photo = _decode_named(pair.noisy, noisy, rules)
    else:
        noisy_photo = add_noise(clean_photo, pair.noise, pair.id)
    if noisy_photo.shape != clean_photo.shape:
        photos = (noisy_photo, clean_photo)
        sizes = " and ".join(f"{p.shape[1]}x{p.shape[0]}" for p in photos)
        raise UnreadablePhotoError(f"{pair.noisy} and its clean photo have unequal sizes, {sizes}")
    return noisy_photo, clean_photo


def _decode_named(uri: str, content: bytes | None, rules: CheckRules) -> Photo:
    if content is None:
        raise UnreadablePhotoError(
            f"{uri}: there is no such file, or it disappeared after the listing"
        )
    try:
        return decode(content, largest_megapixels=rules.largest_megapixels, profiles=rules.profiles)
    except UnreadablePhotoError as error:
        raise UnreadablePhotoError(f"{uri}: {error}") from None


def measure(pair: PairRecord, noisy: Photo, clean: Photo, rules: CheckRules) -> PairRecord:
    """Measure a pair of photos of one size; returns the record with its measurements.

    Raises UnreadablePhotoError, with the reason, if the rules refuse it.
    """
    if not pair.unpaired and _equal(noisy, clean):
        raise UnreadablePhotoError(f"{pair.noisy} and its clean photo are the same picture")
    exposure, clipped = _exposure(noisy, clean), _clipped(clean)
    _check_brightness(pair, exposure, clipped, rules)
    pair = replace(pair, exposure=exposure, clipped=clipped)
    if pair.noise is not None or pair.unpaired:
        return replace(pair, **_NO_SHIFT)
    shift = estimate_shift(noisy, clean)
    # Compared at the best shift, because a misaligned pair shows one scene nevertheless.
    if shows_other_scene(*apply_shift(noisy, clean, *shift.whole)):
        raise UnreadablePhotoError(f"{pair.noisy} and {pair.clean} show different scenes")
    if one_is_grey(noisy, clean):
        raise UnreadablePhotoError(
            f"one of {pair.noisy} and {pair.clean} is grey, and the other has colours; name two "
            "photos that were processed alike"
        )
    if rules.swapped == "refuse" and are_swapped(noisy, clean, exposure):
        raise UnreadablePhotoError(
            f"{pair.clean} has more noise than {pair.noisy}; name the noisy photo as noisy, or, "
            "if the camera has denoised it, accept such pairs (`swapped`)"
        )
    if rules.alignment == "ignore":
        pair = replace(pair, **_NO_SHIFT)
    else:
        pair = _check_shift(pair, shift, rules)
    if not pair.own or rules.exposure == "keep":
        return pair
    return _match_exposure(pair, *_shifted(noisy, clean, pair))


def _check_brightness(pair: PairRecord, exposure: float, clipped: float, rules: CheckRules) -> None:
    if (factor := max(exposure, 1 / exposure)) > rules.max_exposure:
        raise UnreadablePhotoError(
            f"{pair.noisy} and its clean photo differ in exposure by a factor of {factor:.2f}, "
            f"over {rules.max_exposure:g} (`max_exposure`)"
        )
    if clipped > rules.max_clipped:
        raise UnreadablePhotoError(
            f"{pair.clean}: {clipped:.0%} of its values are black or white, over "
            f"{rules.max_clipped:.0%} (`max_clipped`)"
        )


def _check_shift(pair: PairRecord, shift: Shift, rules: CheckRules) -> PairRecord:
    """Decide on the integer shift of a pair."""
    if shift.doubt:
        raise UnreadablePhotoError(
            f"{pair.noisy} cannot be aligned with its clean photo: {shift.doubt}; photograph with "
            "a tripod and one focus, or ignore alignment (`alignment`)"
        )
    misaligned = is_misaligned(shift, rules)
    if misaligned and rules.alignment == "refuse":
        raise UnreadablePhotoError(
            f"{pair.noisy} is shifted against its clean photo by {shift.y:+.1f} down, "
            f"{shift.x:+.1f} right, over {rules.max_shift:g} pixels (`max_shift`); `alignment` "
            "correct corrects it by an integer shift"
        )
    move_y, move_x = shift.whole if misaligned else (0, 0)
    return replace(
        pair,
        shift_y=shift.y,
        shift_x=shift.x,
        shift_gain=shift.gain,
        move_y=move_y,
        move_x=move_x,
    )


def is_misaligned(shift: Shift, rules: CheckRules) -> bool:
    """Whether a shift is beyond the rules, and to be believed."""
    clear = shift.gain >= BELIEVED_GAIN or shift.distance - 4 * shift.error > CLEAR_SHIFT
    return clear and shift.distance > rules.max_shift


def _match_exposure(pair: PairRecord, noisy: Photo, clean: Photo) -> PairRecord:
    """Decide on the gains of an aligned pair; those that are uncertain are not applied."""
    found = estimate_exposure(noisy, clean)
    pair = replace(pair, gain_error=found.error)
    if found.foreign > MOST_FOREIGN:
        raise UnreadablePhotoError(
            f"{pair.noisy} and its clean photo show different things in {found.foreign:.0%} of the "
            "scene; photograph what does not move, or keep exposures as they are (`exposure`)"
        )
    if found.uneven > MOST_UNEVEN:
        raise UnreadablePhotoError(
            f"{pair.noisy} and its clean photo differ by {found.uneven:.0%} in a part, or in some "
            "tones or colours, which no exposure explains; photograph both in one light and one "
            "picture style, or keep exposures as they are (`exposure`)"
        )
    differs = max(abs(gain - 1) for gain in found.gains)
    if differs < LEAST_GAIN or found.error > max(MOST_GAIN_ERROR, differs / 10):
        return pair
    red, green, blue = found.gains
    return replace(pair, gain_red=red, gain_green=green, gain_blue=blue)


def correct(noisy: Photo, clean: Photo, pair: PairRecord) -> tuple[Photo, Photo]:
    """The photos of a measured pair, aligned and exposed alike: the parts that both show."""
    noisy, clean = _shifted(noisy, clean, pair)
    return noisy, clean if pair.gains is None else apply_gains(clean, pair.gains)


def _shifted(noisy: Photo, clean: Photo, pair: PairRecord) -> tuple[Photo, Photo]:
    return apply_shift(noisy, clean, pair.move_y or 0, pair.move_x or 0)


def apply_shift(noisy: Photo, clean: Photo, move_y: int, move_x: int) -> tuple[Photo, Photo]:
    """Shift the noisy photo down and right by integers; returns the parts both show, as views."""
    if not (move_y or move_x):
        return noisy, clean
    rows, columns = _overlap(clean.shape[0], move_y), _overlap(clean.shape[1], move_x)
    return noisy[rows[0], columns[0]], clean[rows[1], columns[1]]


def _overlap(side: int, move: int) -> tuple[slice, slice]:
    """The slices of the shifted photo and of the other."""
    return slice(max(-move, 0), side - max(move, 0)), slice(max(move, 0), side - max(-move, 0))


def _equal(noisy: Photo, clean: Photo) -> bool:
    """Whether both have the same pixels; most pairs differ in the first rows."""
    return (
        noisy.dtype == clean.dtype
        and np.array_equal(noisy[:8], clean[:8])
        and np.array_equal(noisy, clean)
    )


def _exposure(noisy: Photo, clean: Photo) -> float:
    means = [float(thin_out(photo).mean()) / peak(photo) for photo in (clean, noisy)]
    return (means[0] + 1e-3) / (means[1] + 1e-3)


def _clipped(clean: Photo) -> float:
    values = thin_out(clean)
    return float(((values == 0) | (values == peak(clean))).mean())
