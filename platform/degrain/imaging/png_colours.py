"""What the chunks of a PNG state about colours, as an ICC profile.

PNG Specification, third edition (W3C 2025), sections 4.3, 11.3.2 and 12.9: cICP precedes iCCP,
which precedes sRGB, which precedes gAMA and cHRM.
"""

import struct

import numpy as np
from numpy.typing import NDArray

from degrain.imaging.colour_spaces import (
    D65,
    Chromaticities,
    chromaticities,
    profile_from_colorimetry,
)
from degrain.imaging.limits import LARGEST_METADATA
from degrain.imaging.png_chunks import COLOURS, chunks, inflate

_C = (0.31006, 0.31616)
_PRIMARIES: dict[int, tuple[tuple[float, float], Chromaticities]] = {
    1: (D65, (0.64, 0.33, 0.30, 0.60, 0.15, 0.06)),
    4: (_C, (0.67, 0.33, 0.21, 0.71, 0.14, 0.08)),
    5: (D65, (0.64, 0.33, 0.29, 0.60, 0.15, 0.06)),
    6: (D65, (0.63, 0.34, 0.31, 0.595, 0.155, 0.07)),
    7: (D65, (0.63, 0.34, 0.31, 0.595, 0.155, 0.07)),
    8: (_C, (0.681, 0.319, 0.243, 0.692, 0.145, 0.049)),
    9: (D65, (0.708, 0.292, 0.17, 0.797, 0.131, 0.046)),
    11: ((0.314, 0.351), (0.68, 0.32, 0.265, 0.69, 0.15, 0.06)),
    12: (D65, (0.68, 0.32, 0.265, 0.69, 0.15, 0.06)),
    22: (D65, (0.63, 0.34, 0.295, 0.605, 0.155, 0.077)),
}
"""White and primaries. ITU-T H.273, table 2."""
_POWERS = {4: 2.2, 5: 2.8, 8: 1.0, 17: 2.6}
_CAMERA_CURVES = {1: (0.099, 4.5), 6: (0.099, 4.5), 7: (0.1115, 4.0), 14: (0.099, 4.5)} | {
    15: (0.099, 4.5)
}
_SRGB_CURVE = 13
"""Transfer curves. ITU-T H.273, table 3."""
_HDR_CURVES = {16: "PQ", 18: "HLG"}
_SRGB_GAMMA = 45455
"""gAMA that stands for the curve of sRGB: 1 / 2.2."""
_COLOUR_TYPES = (2, 3, 6)


def stated_profile(png: bytes) -> tuple[bytes | None, list[str]]:
    """An ICC profile, None for sRGB, and what of the colours is not interpreted.

    A grey photo has the profile of iCCP or none.
    """
    found, in_colour = _statements(png)
    notes: list[str] = []
    if b"cICP" in found and in_colour:
        uninterpreted = _reason(found[b"cICP"])
        if uninterpreted is None:
            return _coded_profile(found[b"cICP"]), []
        notes.append(f"denoised as stored: {uninterpreted}")
    if b"iCCP" in found:
        profile = inflate(found[b"iCCP"].partition(b"\0")[2][1:])
        if profile is not None:
            return profile, notes
        notes.append(
            f"ignored: its colour profile, damaged or larger than {LARGEST_METADATA >> 20} MiB"
        )
    if b"sRGB" in found or not in_colour:
        return None, notes
    return _measured_profile(found.get(b"gAMA", b""), found.get(b"cHRM", b"")), notes


def interpreted_chunks(png: bytes) -> frozenset[bytes]:
    """The names of chunks that `stated_profile` expresses, or that others of them precede."""
    found, in_colour = _statements(png)
    names = {b"iCCP", b"sRGB", b"gAMA", b"cHRM"}
    if in_colour and _reason(found.get(b"cICP", b"")) is None:
        names.add(b"cICP")
    gamma = int.from_bytes(found.get(b"gAMA", b""))
    if not in_colour and not found.keys() & {b"iCCP", b"sRGB"} and not _stands_for_srgb(gamma):
        names.remove(b"gAMA")
    return frozenset(names)


def _statements(png: bytes) -> tuple[dict[bytes, bytes], bool]:
    """The first chunk of each name, and whether the photo is in colour."""
    found: dict[bytes, bytes] = {}
    for chunk in chunks(png):
        if chunk.name in (b"IHDR", *COLOURS) and chunk.intact:
            found.setdefault(chunk.name, chunk.body)
    return found, found[b"IHDR"][9] in _COLOUR_TYPES


def _reason(coded: bytes) -> str | None:
    """Why the codes of cICP cannot be interpreted."""
    if len(coded) != 4:
        return "its colours (cICP) are damaged"
    primaries, transfer, matrix, full_range = coded
    if transfer in _HDR_CURVES:
        return f"its brightness is high dynamic range ({_HDR_CURVES[transfer]})"
    known = transfer in _POWERS or transfer in _CAMERA_CURVES or transfer == _SRGB_CURVE
    if primaries not in _PRIMARIES or not known or matrix != 0 or full_range != 1:
        return f"its colours (cICP {'-'.join(map(str, coded))}) are not known"
    return None


def _coded_profile(coded: bytes) -> bytes | None:
    white, primaries = _PRIMARIES[coded[0]]
    transfer: NDArray[np.uint16] | float | None = _POWERS.get(coded[1])
    if coded[1] in _CAMERA_CURVES:
        offset, slope = _CAMERA_CURVES[coded[1]]
        stored = np.linspace(0, 1, 4096)
        power = ((stored + offset) / (1 + offset)) ** (1 / 0.45)
        # The line and the power meet where they are equal.
        linear = np.where(stored < 0.0913 if slope == 4 else stored < 0.081, stored / slope, power)
        transfer = np.round(np.maximum.accumulate(linear) * 65535).astype(np.uint16)
    return profile_from_colorimetry(white, primaries, transfer)


def _measured_profile(gamma_chunk: bytes, primaries_chunk: bytes) -> bytes | None:
    """The profile of gAMA and cHRM; what is absent is that of sRGB."""
    white: tuple[float, float] | None = None
    primaries: Chromaticities | None = None
    if len(primaries_chunk) == 32:
        values = [value / 100_000 for value in struct.unpack(">8I", primaries_chunk)]
        white, primaries = (values[0], values[1]), chromaticities(values[2:])
    gamma = int.from_bytes(gamma_chunk) if len(gamma_chunk) == 4 else 0
    is_srgb = _stands_for_srgb(gamma) and (
        primaries is None or profile_from_colorimetry(white, primaries, None) is None
    )
    exponent = 100_000 / gamma if gamma and not is_srgb else None
    return profile_from_colorimetry(white, primaries, exponent)


def _stands_for_srgb(gamma: int) -> bool:
    """Whether writers who mean sRGB write this gamma, with its primaries."""
    return abs(gamma - _SRGB_GAMMA) <= _SRGB_GAMMA / 100
