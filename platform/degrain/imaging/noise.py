"""Camera-like noise on clean photos: what a sensor and its processing would have made of the same scene.

The pipeline, after Foi et al., "Practical Poissonian-Gaussian noise modeling", IEEE TIP 17(10), 2008: the photo is brought
back to linear light (inverse sRGB gamma), sampled through an RGGB Bayer mosaic, given noise whose variance is linear
in the signal, v(x) = gain * x + read, demosaicked (which correlates neighbouring pixels), brought back to gamma, clipped and
rounded to 8 bits. Demosaicking is Malvar, He and Cutler, "High-quality linear interpolation for demosaicing of
Bayer-patterned color images", ICASSP 2004.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import convolve

from degrain.imaging.pixels import Photo, peak


@dataclass(frozen=True, kw_only=True)
class CameraNoise:
    """Noise of one sensitivity, on linear light in [0, 1]."""

    gain: float
    """Shot noise: variance per unit of signal."""
    read: float
    """Read noise: variance in the dark."""

    def __post_init__(self) -> None:
        if self.gain < 0 or self.read < 0:
            raise ValueError(f"gain and read must not be negative, got gain={self.gain}, read={self.read}")

    def variance(self, linear: NDArray[np.float64]) -> NDArray[np.float64]:
        """Noise variance at each signal level, both on linear light."""
        return self.gain * linear + self.read


ISO_LEVELS: dict[int, CameraNoise] = {
    800: CameraNoise(gain=0.004, read=0.00002),
    3200: CameraNoise(gain=0.016, read=0.0002),
    12800: CameraNoise(gain=0.048, read=0.001),
}
"""Noise at a few ISO-like sensitivities."""


def to_linear(photo: Photo) -> NDArray[np.float64]:
    """SRGB pixels -> linear light in [0, 1] (IEC 61966-2-1)."""
    return _linear_table(peak(photo))[photo]


@lru_cache(maxsize=2)
def _linear_table(white: int) -> NDArray[np.float64]:
    """Linear light of each pixel value: a table is much faster than powers."""
    x = np.arange(white + 1) / white
    return np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)


def to_srgb(linear: NDArray[np.float64], white: int = 255) -> Photo:
    """Linear light -> clipped, rounded sRGB pixels with white at 255 or 65535."""
    x = np.clip(linear, 0, 1)
    encoded = np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055)
    return np.round(encoded * white).astype(np.uint16 if white > 255 else np.uint8)


def bayer_masks(height: int, width: int) -> NDArray[np.float64]:
    """Which of R, G, B each site of an RGGB mosaic measures: (H, W, 3) of zeros and ones."""
    masks = np.zeros((height, width, 3))
    masks[0::2, 0::2, 0] = 1
    masks[0::2, 1::2, 1] = 1
    masks[1::2, 0::2, 1] = 1
    masks[1::2, 1::2, 2] = 1
    return masks


def _gradient_corrected(neighbours: list[list[float]], correction: list[list[float]]) -> NDArray[np.float64]:
    """A 5x5 interpolation kernel in eighths: bilinear, plus half of the paper's gradient correction.

    The full correction halves the correlation between neighbours that real photos show; none of it is too much.
    """
    return (np.array(neighbours) + 0.5 * np.array(correction)) / 8


# Malvar et al., figure 2, split into the mean of the nearest neighbours and the Laplacian that corrects it.
_GREEN = _gradient_corrected(
    [[0, 0, 0, 0, 0], [0, 0, 2, 0, 0], [0, 2, 0, 2, 0], [0, 0, 2, 0, 0], [0, 0, 0, 0, 0]],
    [[0, 0, -1, 0, 0], [0, 0, 0, 0, 0], [-1, 0, 4, 0, -1], [0, 0, 0, 0, 0], [0, 0, -1, 0, 0]],
)
_ALONG_ROW = _gradient_corrected(
    [[0, 0, 0, 0, 0], [0, 0, 0, 0, 0], [0, 4, 0, 4, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0]],
    [[0, 0, 0.5, 0, 0], [0, -1, 0, -1, 0], [-1, 0, 5, 0, -1], [0, -1, 0, -1, 0], [0, 0, 0.5, 0, 0]],
)
_ACROSS = _gradient_corrected(
    [[0, 0, 0, 0, 0], [0, 2, 0, 2, 0], [0, 0, 0, 0, 0], [0, 2, 0, 2, 0], [0, 0, 0, 0, 0]],
    [[0, 0, -1.5, 0, 0], [0, 0, 0, 0, 0], [-1.5, 0, 6, 0, -1.5], [0, 0, 0, 0, 0], [0, 0, -1.5, 0, 0]],
)


def demosaic(mosaic: NDArray[np.float64]) -> NDArray[np.float64]:
    """Interpolate an RGGB mosaic on linear light, (H, W) -> (H, W, 3); measured values stay as they are."""
    green, along_row, along_column, across = (
        convolve(mosaic, kernel, mode="mirror") for kernel in (_GREEN, _ALONG_ROW, _ALONG_ROW.T, _ACROSS)
    )
    photo = mosaic[:, :, None] * bayer_masks(*mosaic.shape)
    photo[0::2, 0::2, 1], photo[1::2, 1::2, 1] = green[0::2, 0::2], green[1::2, 1::2]
    # Red's neighbours lie in its row at the greens of even rows, in its column at those of odd rows; blue the reverse.
    photo[0::2, 1::2, 0], photo[1::2, 0::2, 0] = along_row[0::2, 1::2], along_column[1::2, 0::2]
    photo[1::2, 0::2, 2], photo[0::2, 1::2, 2] = along_row[1::2, 0::2], along_column[0::2, 1::2]
    photo[1::2, 1::2, 0], photo[0::2, 0::2, 2] = across[1::2, 1::2], across[0::2, 0::2]
    return photo


def noisy_mosaic(mosaic: NDArray[np.float64], noise: CameraNoise, random: np.random.Generator) -> NDArray[np.float64]:
    """A noisy measurement of a mosaic on linear light: Poisson photons plus Gaussian read noise."""
    photons = mosaic if noise.gain == 0 else random.poisson(mosaic / noise.gain) * noise.gain
    return np.asarray(photons + random.normal(0, noise.read**0.5, mosaic.shape))


def photograph(clean: Photo, noise: CameraNoise, random: np.random.Generator) -> Photo:
    """Take a clean (H, W, 3) photo again with a noisy camera.

    Only the noise is demosaicked (demosaicking is linear), so that the difference to the clean photo is noise and not the
    loss of detail of the mosaic; a real pair's clean photo has been through the same mosaic as its noisy one.
    """
    linear = to_linear(clean)
    mosaic = (bayer_masks(*linear.shape[:2]) * linear).sum(axis=2)
    return to_srgb(linear + demosaic(noisy_mosaic(mosaic, noise, random) - mosaic), peak(clean))
