"""Synthetic noise by name, for clean photos without noisy ones.

    gaussian:SIGMA                     sigma on the scale 0..255
    gaussian:LOW-HIGH                  one sigma from the range per photo
    poisson:GAIN,READ                  variance gain * x + read at linear light x in [0, 1]
    camera:ISO[,ISO...]                the pipeline of `camera_noise`; one pair per ISO
    fitted:GAIN,READ,CORRELATION[;..]  as `poisson`, with correlated neighbouring pixels; one of
                                       several per photo

A photo's noise is one of these with single values, chosen by the photo's name alone.
"""

import hashlib
import re
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import convolve1d

from degrain.imaging.camera_noise import ISO_LEVELS, photograph, to_linear, to_srgb
from degrain.imaging.pixels import Photo, peak

_LARGEST_SIGMA = 255
LARGEST_CORRELATION = 0.7
"""Largest correlation of neighbours that a three-tap filter reaches."""


def expand_noise(noise: str, name: str) -> Iterator[tuple[str, int | None]]:
    """Single-valued noise for each pair to make from the photo `name`, with its ISO if it has one.

    Raises ValueError for unknown or invalid noise.
    """
    kind, _, text = noise.partition(":")
    if kind == "camera":
        for iso in text.split(","):
            if not iso.isdecimal() or int(iso) not in ISO_LEVELS:
                raise _invalid(noise, f"the camera's ISOs are {', '.join(map(str, ISO_LEVELS))}")
            yield f"camera:{int(iso)}", int(iso)
        return
    if kind == "fitted":
        choices = text.split(";")
        chosen = f"fitted:{choices[_hash(name, 'choice') % len(choices)]}"
        _parse_values(chosen, 3)
        yield chosen, None
        return
    if kind == "gaussian" and (span := re.fullmatch(r"([\d.]+)-([\d.]+)", text)):
        low, high = _parse_values(f"{kind}:{span[1]},{span[2]}", 2)
        if low > high or high > _LARGEST_SIGMA:
            raise _invalid(noise, f"the range must rise, to {_LARGEST_SIGMA} at most")
        share = _hash(name, "sigma") / 2**64
        yield f"gaussian:{low + share * (high - low):.4g}", None
        return
    values = _parse_values(noise, {"gaussian": 1, "poisson": 2}.get(kind, 0))
    if kind == "gaussian" and values[0] > _LARGEST_SIGMA:
        raise _invalid(noise, f"sigma must be at most {_LARGEST_SIGMA}")
    yield noise, None


def add_noise(clean: Photo, noise: str, seed: str) -> Photo:
    """Add single-valued `noise` to an (H, W, 3) photo and keep its dtype; `seed` is any text."""
    random = np.random.default_rng(_hash(seed, "noise"))
    kind, _, text = noise.partition(":")
    if kind == "camera":
        return photograph(clean, ISO_LEVELS[int(text)], random)
    if kind == "gaussian":
        (sigma,) = _parse_values(noise, 1)
        noisy = clean / np.float32(peak(clean)) + sigma / 255 * correlated(random, clean.shape, 0)
        return np.round(np.clip(noisy, 0, 1) * peak(clean)).astype(clean.dtype)
    gain, read, correlation = (*_parse_values(noise, {"poisson": 2, "fitted": 3}[kind]), 0.0)[:3]
    x = to_linear(clean)
    return to_srgb(
        x + np.sqrt(gain * x + read) * correlated(random, x.shape, correlation), peak(clean)
    )


def correlated(
    random: np.random.Generator, shape: tuple[int, ...], correlation: float
) -> NDArray[np.float32]:
    """Gaussian noise of variance 1, (H, W, C), with the given correlation of neighbours in rows and
    columns.
    """
    field = random.standard_normal(shape, dtype=np.float32)
    r = min(correlation, LARGEST_CORRELATION)
    if r <= 0:
        return field
    # The taps (c, 1, c) have the correlation 2c / (1 + 2c^2) at distance 1.
    c = (1 - np.sqrt(1 - 2 * r * r)) / (2 * r)
    taps = np.array([c, 1, c]) / np.sqrt(1 + 2 * c * c)
    for axis in (0, 1):
        field = convolve1d(field, taps, axis=axis, mode="wrap")
    return field


def _hash(text: str, purpose: str) -> int:
    return int.from_bytes(hashlib.blake2b(f"{purpose}:{text}".encode(), digest_size=8).digest())


def _parse_values(noise: str, count: int) -> tuple[float, ...]:
    try:
        values = tuple(float(v) for v in noise.partition(":")[2].split(","))
    except ValueError:
        values = ()
    if count == 0 or len(values) != count or not all(0 <= v < float("inf") for v in values):
        raise _invalid(
            noise, f"it takes {count} numbers, none negative" if count else "its kind is not known"
        )
    return values


def _invalid(noise: str, reason: str) -> ValueError:
    kinds = (
        "gaussian:SIGMA, gaussian:LOW-HIGH, poisson:GAIN,READ, camera:ISO, "
        "fitted:GAIN,READ,CORRELATION, like:PATCHSET"
    )
    return ValueError(f"noise '{noise}' cannot be made: {reason}; known: {kinds}")
