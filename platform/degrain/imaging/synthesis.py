"""Named noise: clean photos made noisy, where there are no pairs.

    gaussian:SIGMA, gaussian:LOW-HIGH   sigma on the scale 0..255; of a range each photo gets one value
    poisson:GAIN,READ                   variance gain * x + read at linear light x in [0, 1]: Poisson-Gaussian
    camera:ISO[,ISO...]                 the camera pipeline of `imaging.noise`; a pair for each ISO
    fitted:GAIN,READ,CORRELATION[;...]  as `poisson`, with neighbouring pixels correlated; of several each photo gets one

A photo's own noise is one of these with single values. What a photo gets depends on its name alone.
"""

import hashlib
import re
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import convolve1d

from degrain.imaging.noise import ISO_LEVELS, photograph, to_linear, to_srgb
from degrain.imaging.pixels import Photo, peak

_LARGEST_SIGMA = 255
LARGEST_CORRELATION = 0.7
"""A three-tap filter correlates neighbours by no more."""


def expand_noise(noise: str, name: str) -> Iterator[tuple[str, int | None]]:
    """The noise of the pairs that the photo `name` becomes, each with single values, and its ISO if it has one.

    Raises ValueError for what is not noise.
    """
    kind, _, text = noise.partition(":")
    if kind == "camera":
        for iso in text.split(","):
            if not iso.isdecimal() or int(iso) not in ISO_LEVELS:
                raise _unknown(noise, f"the camera's ISOs are {', '.join(map(str, ISO_LEVELS))}")
            yield f"camera:{int(iso)}", int(iso)
        return
    if kind == "fitted":
        choices = text.split(";")
        chosen = f"fitted:{choices[_number(name, 'choice') % len(choices)]}"
        _values(chosen, 3)
        yield chosen, None
        return
    if kind == "gaussian" and (span := re.fullmatch(r"([\d.]+)-([\d.]+)", text)):
        low, high = _values(f"{kind}:{span[1]},{span[2]}", 2)
        if low > high or high > _LARGEST_SIGMA:
            raise _unknown(noise, f"the range must rise, to {_LARGEST_SIGMA} at most")
        share = _number(name, "sigma") / 2**64
        yield f"gaussian:{low + share * (high - low):.4g}", None
        return
    values = _values(noise, {"gaussian": 1, "poisson": 2}.get(kind, 0))
    if kind == "gaussian" and values[0] > _LARGEST_SIGMA:
        raise _unknown(noise, f"sigma must be at most {_LARGEST_SIGMA}")
    yield noise, None


def add_noise(clean: Photo, noise: str, seed: str) -> Photo:
    """Add single-valued `noise` to an (H, W, 3) photo; the result has its number of bits. `seed` is any text."""
    random = np.random.default_rng(_number(seed, "noise"))
    kind, _, text = noise.partition(":")
    if kind == "camera":
        return photograph(clean, ISO_LEVELS[int(text)], random)
    if kind == "gaussian":
        (sigma,) = _values(noise, 1)
        made = clean / np.float32(peak(clean)) + sigma / 255 * correlated(random, clean.shape, 0)
        return np.round(np.clip(made, 0, 1) * peak(clean)).astype(clean.dtype)
    gain, read, correlation = (*_values(noise, {"poisson": 2, "fitted": 3}[kind]), 0.0)[:3]
    x = to_linear(clean)
    return to_srgb(x + np.sqrt(gain * x + read) * correlated(random, x.shape, correlation), peak(clean))


def correlated(random: np.random.Generator, shape: tuple[int, ...], correlation: float) -> NDArray[np.float32]:
    """Gaussian noise of variance one, (H, W, C), whose neighbours in a row or column correlate by `correlation`."""
    field = random.standard_normal(shape, dtype=np.float32)
    r = min(correlation, LARGEST_CORRELATION)
    if r <= 0:
        return field
    # Of the taps (c, 1, c) the correlation at distance one is 2c / (1 + 2c^2).
    c = (1 - np.sqrt(1 - 2 * r * r)) / (2 * r)
    taps = np.array([c, 1, c]) / np.sqrt(1 + 2 * c * c)
    for axis in (0, 1):
        field = convolve1d(field, taps, axis=axis, mode="wrap")
    return field


def _number(text: str, purpose: str) -> int:
    return int.from_bytes(hashlib.blake2b(f"{purpose}:{text}".encode(), digest_size=8).digest())


def _values(noise: str, count: int) -> tuple[float, ...]:
    try:
        values = tuple(float(v) for v in noise.partition(":")[2].split(","))
    except ValueError:
        values = ()
    if count == 0 or len(values) != count or not all(0 <= v < float("inf") for v in values):
        raise _unknown(noise, f"it takes {count} numbers, none negative" if count else "its kind is not known")
    return values


def _unknown(noise: str, reason: str) -> ValueError:
    kinds = "gaussian:SIGMA, gaussian:LOW-HIGH, poisson:GAIN,READ, camera:ISO, fitted:GAIN,READ,CORRELATION, like:PATCHSET"
    return ValueError(f"noise '{noise}' cannot be made: {reason}; known: {kinds}")
