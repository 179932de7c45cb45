"""Synthetic noise by name, for clean photos without noisy ones.

    gaussian:SIGMA                     sigma on the scale 0..255
    gaussian:LOW-HIGH                  one sigma from the range per photo
    poisson:GAIN,READ                  variance gain * x + read at linear light x in [0, 1]
    camera:ISO[,ISO...]                the pipeline of `camera_noise`; one pair per ISO
    fitted:GAIN,READ,CORRELATION[;..]  as `poisson`, with correlated neighbouring pixels; one of
                                       several per photo
    near:GAIN,READ,CORRELATION         as `fitted`, with values drawn around the given ones
    wide                               drawn from the noises of many cameras, see `wide_noise`

A photo's noise is one of these with single values, chosen by the photo's name alone.
"""

import hashlib
import io
import re
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import convolve1d

from degrain.imaging.camera_noise import (
    ISO_LEVELS,
    CameraNoise,
    photograph,
    to_linear,
    to_srgb,
)
from degrain.imaging.pixels import Photo, peak

_LARGEST_SIGMA = 255
LARGEST_CORRELATION = 0.7
"""Largest correlation of neighbours that a three-tap filter reaches."""
_NEAR = 0.5
"""Standard deviation of the logarithms of gain and read noise around fitted ones."""


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
    if kind in ("fitted", "near"):
        choices = text.split(";")
        chosen = f"{kind}:{choices[_hash(name, 'choice') % len(choices)]}"
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
    if noise == "wide":
        yield noise, None
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
    if kind == "wide":
        return wide_noise(clean, random)
    if kind == "gaussian":
        (sigma,) = _parse_values(noise, 1)
        return _add_gaussian(clean, random, sigma / 255)
    values = _parse_values(noise, {"poisson": 2}.get(kind, 3))
    gain, read, correlation = (*values, 0.0)[:3]
    if kind == "near":
        gain, read = np.array([gain, read]) * np.exp(_NEAR * random.standard_normal(2))
    return _add_poisson(clean, random, gain, read, correlation)


def wide_noise(clean: Photo, random: np.random.Generator) -> Photo:
    """Add noise of a random kind and level, so that a network learns noises of many cameras.

    A quarter of the photos get Gaussian noise of sigma 1 to 50 of 255, a quarter the pipeline of
    `camera_noise`, the rest Poisson-Gaussian noise with correlated neighbours and a gain per
    channel, as white balance gives it. A third of the 8-bit photos are then compressed as JPEG.
    """
    choice = random.random()
    correlation = 0.0 if random.random() < 0.4 else float(random.uniform(0.1, 0.65))
    gain = float(np.exp(random.uniform(np.log(2e-4), np.log(6e-2))))
    read = gain * float(np.exp(random.uniform(np.log(2e-3), np.log(5e-2))))
    if choice < 0.25:
        sigma = float(np.exp(random.uniform(0, np.log(50)))) / 255
        noisy = _add_gaussian(clean, random, sigma, correlation)
    elif choice < 0.5:
        noisy = photograph(clean, CameraNoise(gain=gain, read=read), random)
    else:
        channels = np.array([random.uniform(1, 2), 1.0, random.uniform(1, 2)])
        noisy = _add_poisson(clean, random, gain * channels, read * channels**2, correlation)
    if clean.dtype == np.uint8 and random.random() < 1 / 3:
        return _compress(noisy, int(random.integers(75, 98)))
    return noisy


def _add_gaussian(
    clean: Photo, random: np.random.Generator, sigma: float, correlation: float = 0.0
) -> Photo:
    noise = correlated(random, clean.shape, correlation)
    noisy = clean / np.float32(peak(clean)) + sigma * noise
    return np.round(np.clip(noisy, 0, 1) * peak(clean)).astype(clean.dtype)


def _add_poisson(
    clean: Photo,
    random: np.random.Generator,
    gain: float | NDArray[np.float64],
    read: float | NDArray[np.float64],
    correlation: float,
) -> Photo:
    """Add noise of variance `gain * x + read` at linear light x; one value, or one per channel."""
    x = to_linear(clean)
    noise = np.sqrt(gain * x + read) * correlated(random, x.shape, correlation)
    return to_srgb(x + noise, peak(clean))


def _compress(photo: Photo, quality: int) -> Photo:
    """Compress an 8-bit photo as JPEG and decode it."""
    file = io.BytesIO()
    Image.fromarray(photo).save(file, "JPEG", quality=quality)
    with Image.open(file) as compressed:
        return np.asarray(compressed)


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
        "fitted:GAIN,READ,CORRELATION, near:GAIN,READ,CORRELATION, wide, like:PATCHSET"
    )
    return ValueError(f"noise '{noise}' cannot be made: {reason}; known: {kinds}")
