"""A part of a photo before and after denoising, side by side in one PNG."""

from collections.abc import Callable

import numpy as np

from degrain.imaging.codecs import apply_orientation
from degrain.imaging.colour_profiles import convert_to_srgb
from degrain.imaging.pixels import eight_bits
from degrain.imaging.stored_photo import StoredPhoto, UnreadablePhotoError
from degrain.imaging.writers import encode_png_pixels
from degrain.inference.config import Crop
from degrain.inference.denoiser import Denoiser

_MARGIN = 128
"""Pixels around the part that are denoised with it, as many as tiles have at most."""
_GAP = 4
"""Width of the white line between both."""


def encode_preview(
    stored: StoredPhoto, denoiser: Denoiser, crop: Crop, *, converts: bool
) -> Callable[[], bytes]:
    """Denoise a part of a photo; returns a function that encodes the PNG, in sRGB of 8 bits.

    Without `converts` the colours are as stored. Raises UnreadablePhotoError for a part that lies
    outside.
    """
    colours = apply_orientation(stored.colours, stored.orientation)
    height, width = colours.shape[:2]
    crop_width, crop_height, crop_left, crop_top = crop
    if crop_left + crop_width > width or crop_top + crop_height > height:
        raise UnreadablePhotoError(
            f"its size is {width}x{height} pixels, and the preview {crop} reaches beyond it"
        )
    top, left = max(crop_top - _MARGIN, 0), max(crop_left - _MARGIN, 0)
    part = colours[top : crop_top + crop_height + _MARGIN, left : crop_left + crop_width + _MARGIN]
    noisy = np.ascontiguousarray(np.broadcast_to(part, (*part.shape[:2], 3)))
    if converts:
        noisy = convert_to_srgb(noisy, stored.profile)
    inside = np.s_[crop_top - top :, crop_left - left :]
    before, after = (
        eight_bits(photo[inside][:crop_height, :crop_width]) for photo in (noisy, denoiser(noisy))
    )
    line = np.full((crop_height, _GAP, 3), 255, np.uint8)
    return lambda: encode_png_pixels(np.hstack([before, line, after]))
