"""A part of a photo before and after denoising, side by side in one PNG."""

from collections.abc import Callable

import numpy as np

from degrain.imaging.codecs import apply_orientation
from degrain.imaging.colour_profiles import convert_to_srgb
from degrain.imaging.pixels import Photo, eight_bits
from degrain.imaging.stored_photo import UnreadablePhotoError
from degrain.imaging.writers import encode_png_pixels
from degrain.inference.config import Crop
from degrain.inference.denoiser import Denoiser
from degrain.inference.photo_file import OpenPhoto
from degrain.inference.tiling import Window

_GAP = 4
"""Width of the white line between both."""


def encode_preview(photo: OpenPhoto, denoiser: Denoiser, crop: Crop) -> Callable[[], bytes]:
    """Denoise a part of a photo as a run does; returns a function that encodes the PNG, in sRGB of
    8 bits.

    Only the tiles of the part are computed; a filter, an ensemble and `detail` need the whole
    photo. Raises UnreadablePhotoError for a part that lies outside.
    """
    window = stored_window(crop, photo.stored.colours.shape[:2], photo.stored.orientation)
    before, after = (
        _shown(photo, colours[window])
        for colours in (photo.stored.colours, photo.denoise(denoiser, window))
    )
    line = np.full((before.shape[0], _GAP, 3), 255, np.uint8)
    return lambda: encode_png_pixels(np.hstack([before, line, after]))


def stored_window(crop: Crop, stored: tuple[int, ...], orientation: int) -> Window:
    """Where a part of the upright photo lies in the stored one of `stored` pixels height and width.

    Raises UnreadablePhotoError for a part that lies outside.
    """
    turned = orientation in (5, 6, 7, 8)
    height, width = stored[::-1] if turned else stored
    crop_width, crop_height, left, top = crop
    bottom, right = top + crop_height, left + crop_width
    if right > width or bottom > height:
        raise UnreadablePhotoError(
            f"its size is {width}x{height} pixels, and the preview {crop} reaches beyond it"
        )
    # The inverse of `apply_orientation`.
    if orientation in (2, 3, 6, 7):
        left, right = width - right, width - left
    if orientation in (3, 4, 7, 8):
        top, bottom = height - bottom, height - top
    rows, columns = slice(top, bottom), slice(left, right)
    return (columns, rows) if turned else (rows, columns)


def _shown(photo: OpenPhoto, part: Photo) -> Photo:
    """A part of the stored colours, upright, as RGB of 8 bits, in sRGB where the photo converts."""
    rgb = np.ascontiguousarray(np.broadcast_to(part, (*part.shape[:2], 3)))
    if photo.converts:
        rgb = convert_to_srgb(rgb, photo.stored.profile)
    return eight_bits(apply_orientation(rgb, photo.stored.orientation))
