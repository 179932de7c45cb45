"""Conversion of ICC colour profiles to sRGB, and of changes in sRGB to a profile."""

import io

import imagecodecs
import numpy as np
from PIL import ImageCms

from degrain.imaging.pixels import Photo, peak
from degrain.imaging.stored_photo import UnreadablePhotoError, first_line

_REMEDY = "set `profiles` to keep to ignore it"
_ROWS = 256
"""Rows that are converted at a time."""


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
    srgb, scale = imagecodecs.cms_profile("srgb"), 65535 // peak(stored)
    result = np.empty_like(stored)
    for top in range(0, len(stored), _ROWS):
        rows = slice(top, top + _ROWS)
        difference = _transform(after[rows], srgb, profile).astype(np.int32)
        difference -= _transform(before[rows], srgb, profile)
        changed = stored[rows] + np.round(difference / scale)
        result[rows] = np.clip(changed, 0, peak(stored))
    return result


def is_srgb(profile: bytes) -> bool:
    """Whether a profile for RGB is sRGB, by its description.

    Raises UnreadablePhotoError for a damaged profile or one that is not for RGB.
    """
    try:
        opened = ImageCms.getOpenProfile(io.BytesIO(profile))
        name, space = ImageCms.getProfileDescription(opened), opened.profile.xcolor_space.strip()
    except (ImageCms.PyCMSError, OSError):
        raise UnreadablePhotoError(f"its colour profile is damaged; {_REMEDY}") from None
    if space != "RGB":
        raise UnreadablePhotoError(f"its colour profile is for {space}, not RGB; {_REMEDY}")
    return "srgb" in name.lower()


def _transform(photo: Photo, source: bytes, target: bytes) -> Photo:
    try:
        converted: Photo = imagecodecs.cms_transform(
            photo, source, target, colorspace="rgb", outcolorspace="rgb"
        )
    except imagecodecs.CmsError as error:
        raise UnreadablePhotoError(
            f"its colour profile cannot be converted ({first_line(error)}); {_REMEDY}"
        ) from None
    return converted
