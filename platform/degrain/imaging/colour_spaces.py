"""Colour profiles of photos that state primaries and transfer curve instead of an ICC profile.

The profiles serve the denoiser and files of other types; a file of the same type keeps its own
statement.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray

from degrain.imaging.colour_profiles import is_srgb

Chromaticities: TypeAlias = tuple[float, float, float, float, float, float]
"""x and y of red, green and blue, CIE 1931."""

SRGB_PRIMARIES: Chromaticities = (0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
D65 = (0.3127, 0.3290)
_CURVE_POINTS = 4096
"""Points of a curve in a profile; LittleCMS converts with at most 65530."""
_DATE = slice(24, 36)
_WHITE_POINT, _PRIMARIES, _TRANSFER, _PROFILE = 318, 319, 301, 34675
_COLOURS = (tifffile.PHOTOMETRIC.RGB, tifffile.PHOTOMETRIC.PALETTE, tifffile.PHOTOMETRIC.YCBCR)


def profile_from_colorimetry(
    white: tuple[float, float] | None,
    primaries: Chromaticities | None,
    transfer: NDArray[np.uint16] | float | None,
) -> bytes | None:
    """An ICC profile for RGB; None if it acts as sRGB, or if the values are impossible.

    `white` is x and y of white, to which the eye is adapted (Bradford). `transfer` leads from
    stored to linear values: the exponent of a power, or a table, (N,) or (3, N), over evenly spaced
    stored values. What is None is that of sRGB.
    """
    if white is None and primaries is None and transfer is None:
        return None
    numbers = [*(white or D65), *(primaries or SRGB_PRIMARIES)]
    if not np.all(np.isfinite(numbers)) or numbers[1] <= 0:
        return None
    curve = _curve(srgb_curve() if transfer is None else transfer)
    if curve is None:
        return None
    try:
        made = bytearray(
            imagecodecs.cms_profile("rgb", whitepoint=numbers[:2], primaries=numbers[2:], **curve)
        )
        # One photo gives one profile, whenever it is read.
        made[_DATE] = np.array([2026, 1, 1, 0, 0, 0], ">u2").tobytes()
        return None if is_srgb(bytes(made)) else bytes(made)
    except (imagecodecs.CmsError, ValueError):
        return None


def chromaticities(values: Sequence[float]) -> Chromaticities:
    """Six numbers as such."""
    red_x, red_y, green_x, green_y, blue_x, blue_y = values
    return red_x, red_y, green_x, green_y, blue_x, blue_y


def srgb_curve() -> NDArray[np.uint16]:
    """Stored to linear values of sRGB. IEC 61966-2-1."""
    stored = np.linspace(0, 1, _CURVE_POINTS)
    linear = np.where(stored <= 0.04045, stored / 12.92, ((stored + 0.055) / 1.055) ** 2.4)
    return np.round(linear * 65535).astype(np.uint16)


def _curve(transfer: NDArray[np.uint16] | float) -> dict[str, Any] | None:
    """The argument of `cms_profile` for a curve; None unless it rises."""
    if isinstance(transfer, float | int):
        return {"gamma": float(transfer)} if 0.1 <= transfer <= 10 else None
    rows = np.atleast_2d(transfer)
    if np.any(np.diff(rows.astype(int)) < 0) or np.any(rows[:, -1] == rows[:, 0]):
        return None
    if rows.shape[1] > _CURVE_POINTS:
        known = np.linspace(0, 1, rows.shape[1])
        places = np.linspace(0, 1, _CURVE_POINTS)
        rows = np.stack([np.round(np.interp(places, known, row)) for row in rows])
    return {"transferfunction": np.repeat(rows, 3 // len(rows), axis=0).astype(np.uint16)}


def profile_of_page(page: tifffile.TiffPage) -> bytes | None:
    """The ICC profile of a TIFF, or one for its tags of colorimetry. TIFF 6.0, section 20."""
    profile = page.tags.valueof(_PROFILE)
    if profile or page.photometric not in _COLOURS:
        return bytes(profile) if profile else None
    white = _rationals(page.tags.valueof(_WHITE_POINT), 2)
    primaries = _rationals(page.tags.valueof(_PRIMARIES), 6)
    table, levels = np.ravel(page.tags.valueof(_TRANSFER)), 2**page.bitspersample
    transfer = None
    if table.dtype.kind in "iu" and table.size in (levels, 3 * levels):
        transfer = table.astype(np.uint16).reshape(-1, levels)
    return profile_from_colorimetry(
        None if white is None else (white[0], white[1]),
        None if primaries is None else chromaticities(primaries),
        transfer,
    )


def _rationals(value: object, count: int) -> list[float] | None:
    """So many numbers from numerators and denominators; None for other values."""
    if not isinstance(value, tuple) or len(value) != 2 * count or 0 in value[1::2]:
        return None
    return [value[i] / value[i + 1] for i in range(0, 2 * count, 2)]
