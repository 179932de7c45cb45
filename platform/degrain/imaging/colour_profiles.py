"""Conversion of ICC colour profiles to sRGB."""

import io

import imagecodecs
from PIL import ImageCms

from degrain.imaging.pixels import Photo
from degrain.imaging.stored_photo import UnreadablePhotoError, first_line

_REMEDY = "set `profiles` to keep to ignore it"


def convert_to_srgb(photo: Photo, profile: bytes | None) -> Photo:
    """Convert an RGB photo from `profile`, if there is one and it is not sRGB itself.

    Raises UnreadablePhotoError for a damaged profile or one that is not for RGB.
    """
    if not profile:
        return photo
    try:
        opened = ImageCms.getOpenProfile(io.BytesIO(profile))
        name, space = ImageCms.getProfileDescription(opened), opened.profile.xcolor_space.strip()
    except (ImageCms.PyCMSError, OSError):
        raise UnreadablePhotoError(f"its colour profile is damaged; {_REMEDY}") from None
    if space != "RGB":
        raise UnreadablePhotoError(f"its colour profile is for {space}, not RGB; {_REMEDY}")
    if "srgb" in name.lower():
        return photo
    try:
        converted: Photo = imagecodecs.cms_transform(
            photo, profile, imagecodecs.cms_profile("srgb"), colorspace="rgb", outcolorspace="rgb"
        )
    except imagecodecs.CmsError as error:
        raise UnreadablePhotoError(
            f"its colour profile cannot be converted ({first_line(error)}); {_REMEDY}"
        ) from None
    return converted
