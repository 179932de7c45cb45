"""Conversion of ICC colour profiles to sRGB, and of changes in sRGB to a profile."""

import hashlib
import io

import imagecodecs
import numpy as np
from PIL import ImageCms

from degrain.imaging.pixels import Photo, add_change, is_float, peak
from degrain.imaging.stored_photo import UnreadablePhotoError, first_line

_REMEDY = "set `profiles` to keep to ignore it"
_ROWS = 256
"""Rows that are converted at a time."""
_SRGB_TOLERANCE = 2 * 257
"""Of 16-bit values. Of 145 published profiles those of sRGB, some with a curve of 20 points, differ
by up to 0.3/255, and the nearest other one, sRGB primaries with gamma 2.2, by 8.6/255.
"""
_compared: dict[bytes, bool] = {}
"""Whether a profile is sRGB, by its SHA-256."""
_MOST_COMPARED = 1000


def convert_to_srgb(photo: Photo, profile: bytes | None) -> Photo:
    """Convert an RGB photo from `profile`, if there is one and it is not sRGB itself.

    Raises UnreadablePhotoError for a damaged profile or one that is not for RGB.
    """
    if not profile or is_srgb(profile):
        return photo
    return _transform(photo, profile, imagecodecs.cms_profile("srgb"))


def apply_change(stored: Photo, before: Photo, after: Photo, profile: bytes) -> Photo:
    """Apply a change of colours in sRGB to a photo in `profile`.

    `before` is the photo in sRGB with 16 bits, clipped to its gamut, and `after` that with the
    change. Both are converted to the profile, and their difference is added to the stored values:
    colours outside of sRGB are not clipped, and a pixel that does not change keeps its bits.
    Raises UnreadablePhotoError for a profile to which nothing can be converted.
    """
    srgb = imagecodecs.cms_profile("srgb")
    result = np.empty_like(stored)
    for top in range(0, len(stored), _ROWS):
        rows = slice(top, top + _ROWS)
        was, becomes = (_transform(photo[rows], srgb, profile) for photo in (before, after))
        if is_float(stored):
            result[rows] = add_change(stored[rows], was, becomes)
            continue
        difference = (becomes.astype(np.int32) - was) / (65535 // peak(stored))
        result[rows] = np.clip(stored[rows] + np.round(difference), 0, peak(stored))
    return result


def is_srgb(profile: bytes) -> bool:
    """Whether a profile for RGB acts as sRGB: no colour of a grid is converted by more than 2/255.

    Raises UnreadablePhotoError for a damaged profile or one that is not for RGB.
    """
    # Many photos have one profile, and to compare takes up to 50 ms.
    digest = hashlib.sha256(profile).digest()
    if digest not in _compared:
        if len(_compared) >= _MOST_COMPARED:
            _compared.clear()
        _compared[digest] = _acts_as_srgb(profile)
    return _compared[digest]


def _acts_as_srgb(profile: bytes) -> bool:
    try:
        opened = ImageCms.getOpenProfile(io.BytesIO(profile))
        space = opened.profile.xcolor_space.strip()
    except Exception:  # noqa: BLE001 - LittleCMS and Pillow raise many types for damaged profiles
        raise UnreadablePhotoError(f"its colour profile is damaged; {_REMEDY}") from None
    if space != "RGB":
        raise UnreadablePhotoError(f"its colour profile is for {space}, not RGB; {_REMEDY}")
    steps = np.linspace(0, 65535, 17).round().astype(np.uint16)
    colours = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(1, -1, 3)
    greys = np.repeat(np.arange(0, 65536, 257, dtype=np.uint16), 3).reshape(1, -1, 3)
    grid = np.concatenate([colours, greys], axis=1)
    converted = _transform(grid, profile, imagecodecs.cms_profile("srgb"))
    return bool(np.abs(converted.astype(int) - grid).max() <= _SRGB_TOLERANCE)


def _transform(photo: Photo, source: bytes, target: bytes) -> Photo:
    try:
        converted: Photo = imagecodecs.cms_transform(
            photo, source, target, colorspace="rgb", outcolorspace="rgb"
        )
    except Exception as error:  # noqa: BLE001 - as in `_acts_as_srgb`
        raise UnreadablePhotoError(
            f"its colour profile cannot be converted ({first_line(error)}); {_REMEDY}"
        ) from None
    return converted
