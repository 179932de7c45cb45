"""Camera-like noise on clean photos, by a simulated sensor and its processing.

The pipeline, after Foi et al., "Practical Poissonian-Gaussian noise modeling", IEEE TIP 17(10),
2008: the photo is converted to linear light (inverse sRGB gamma), sampled through an RGGB Bayer
mosaic, degraded by noise whose variance is linear in the signal, v(x) = gain * x + read,
demosaicked (which correlates neighbouring pixels), converted back to sRGB, clipped and rounded.
Demosaicking is Malvar, He and Cutler, "High-quality linear interpolation for demosaicing of
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
    """Noise at one ISO, on linear light in [0, 1]."""

    gain: float
    """Shot noise: variance per unit of signal."""
    read: float
    """Read noise: variance in the dark."""

    def __post_init__(self) -> None:
        if self.gain < 0 or self.read < 0:
            raise ValueError(
                f"gain and read must not be negative, got gain={self.gain}, read={self.read}"
            )

    def variance(self, linear: NDArray[np.float64]) -> NDArray[np.float64]:
        """Noise variance at each signal level, both on linear light."""
        return self.gain * linear + self.read


ISO_LEVELS: dict[int, CameraNoise] = {
    800: CameraNoise(gain=0.004, read=0.00002),
    3200: CameraNoise(gain=0.016, read=0.0002),
    12800: CameraNoise(gain=0.048, read=0.001),
}
"""Noise by ISO."""


def to_linear(photo: Photo) -> NDArray[np.float64]:
    """SRGB pixels -> linear light in [0, 1] (IEC 61966-2-1)."""
    return _linear_table(peak(photo))[photo]


@lru_cache(maxsize=2)
def _linear_table(white: int) -> NDArray[np.float64]:
    """Linear light of each pixel value, because a table is much faster than powers."""
    return linear_values(np.arange(white + 1) / white)


def linear_values(srgb: NDArray[np.floating]) -> NDArray[np.float64]:
    """SRGB values from 0 on, white is 1 -> linear light (IEC 61966-2-1)."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def to_srgb(linear: NDArray[np.float64], white: int = 255) -> Photo:
    """Linear light -> clipped, rounded sRGB pixels with the white level 255 or 65535."""
    x = np.clip(linear, 0, 1)
    encoded = np.where(x <= 0.0031308, 12.92 * x, 1.055 * x ** (1 / 2.4) - 0.055)
    return np.round(encoded * white).astype(np.uint16 if white > 255 else np.uint8)


def bayer_masks(height: int, width: int) -> NDArray[np.float64]:
    """The colour that each site of an RGGB mosaic measures, as (H, W, 3) of zeros and ones."""
    masks = np.zeros((height, width, 3))
    masks[0::2, 0::2, 0] = 1
    masks[0::2, 1::2, 1] = 1
    masks[1::2, 0::2, 1] = 1
    masks[1::2, 1::2, 2] = 1
    return masks


def _gradient_corrected(
    neighbours: list[list[float]], correction: list[list[float]]
) -> NDArray[np.float64]:
    """A 5x5 interpolation kernel in eighths: bilinear plus half of the paper's gradient correction.

    With the full correction, neighbouring pixels correlate half as much as in real photos; without
    it they correlate too much.
    """
    return (np.array(neighbours) + 0.5 * np.array(correction)) / 8


# Malvar et al., figure 2, divided into the mean of the nearest neighbours and the Laplacian
# correction.
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
    [
        [0, 0, -1.5, 0, 0],
        [0, 0, 0, 0, 0],
        [-1.5, 0, 6, 0, -1.5],
        [0, 0, 0, 0, 0],
        [0, 0, -1.5, 0, 0],
    ],
)


def demosaic(mosaic: NDArray[np.float64]) -> NDArray[np.float64]:
    """Interpolate an RGGB mosaic on linear light, (H, W) -> (H, W, 3); measured values are kept."""
    green, along_row, along_column, across = (
        convolve(mosaic, kernel, mode="mirror")
        for kernel in (_GREEN, _ALONG_ROW, _ALONG_ROW.T, _ACROSS)
    )
    photo = mosaic[:, :, None] * bayer_masks(*mosaic.shape)
    photo[0::2, 0::2, 1], photo[1::2, 1::2, 1] = green[0::2, 0::2], green[1::2, 1::2]
    # At the greens of even rows the red neighbours are left and right, at those of odd rows above
    # and below; blue is the reverse.
    photo[0::2, 1::2, 0], photo[1::2, 0::2, 0] = along_row[0::2, 1::2], along_column[1::2, 0::2]
    photo[1::2, 0::2, 2], photo[0::2, 1::2, 2] = along_row[1::2, 0::2], along_column[0::2, 1::2]
    photo[1::2, 1::2, 0], photo[0::2, 0::2, 2] = across[1::2, 1::2], across[0::2, 0::2]
    return photo


def noisy_mosaic(
    mosaic: NDArray[np.float64], noise: CameraNoise, random: np.random.Generator
) -> NDArray[np.float64]:
    """Sample a noisy mosaic on linear light: Poisson photons plus Gaussian read noise."""
    photons = mosaic if noise.gain == 0 else random.poisson(mosaic / noise.gain) * noise.gain
    return np.asarray(photons + random.normal(0, noise.read**0.5, mosaic.shape))


def photograph(clean: Photo, noise: CameraNoise, random: np.random.Generator) -> Photo:
    """Add camera noise to a clean (H, W, 3) photo.

    Only the noise is demosaicked (demosaicking is linear), so that the difference from the clean
    photo is noise without the mosaic's loss of detail: both photos of a real pair have that loss.
    """
    linear = to_linear(clean)
    mosaic = (bayer_masks(*linear.shape[:2]) * linear).sum(axis=2)
    return to_srgb(linear + demosaic(noisy_mosaic(mosaic, noise, random) - mosaic), peak(clean))
