"""Removes a part of the noise that a denoiser finds: by strength, brightness, colour and detail.

The noise r = noisy - clean of a pixel consists of brightness and colour: r = y (1, 1, 1) + c, where
y is the luma of r (ITU-R BT.601). Removed is

    strength * (luma * (y - detail part of y) * (1, 1, 1) + chroma * c)

`returned_detail` has the detail part.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate1d

from degrain.imaging.pixels import Photo, channel_mean, check_photo, peak
from degrain.inference.config import BlendConfig
from degrain.inference.denoiser import Denoiser
from degrain.inference.tiling import Window

Plane32 = NDArray[np.float32]

LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""Weights of red, green and blue, ITU-R BT.601."""
_B3_SPLINE = np.array([1, 4, 6, 4, 1], np.float32) / 16
_SCALES = 3
_MARGIN = 2 * (2**_SCALES - 1)
"""Pixels beyond a part of a photo that its wavelet bands depend on."""
_DEVIATIONS = 3
"""Noise deviations above which a wavelet coefficient counts as detail, at `detail` 0.5."""
_MAD_TO_DEVIATION = 0.6745
"""Median of the absolute values of a normal distribution, in standard deviations."""
_ROWS = 256
_SAMPLES, _SAMPLE_SIDE = 16, 256


class Blended:
    """A denoiser that removes a part of the noise; leaves a photo alone where this is none."""

    def __init__(self, denoiser: Denoiser, config: BlendConfig) -> None:
        self.denoiser, self.config = denoiser, config
        self.name, self.parameters = denoiser.name, denoiser.parameters

    def __call__(self, photo: Photo, window: Window | None = None) -> Photo:
        """Denoise one photo. Raises ValueError for a shape or dtype that is not a photo's."""
        config = self.config
        if config == BlendConfig():
            return self.denoiser(photo, window)
        check_photo(photo)
        # A grey photo has brightness alone: colour that a network adds is not noise of the photo.
        grey = all(np.array_equal(photo[:, :, 0], photo[:, :, i]) for i in (1, 2))
        if config.strength == 0 or (config.luma == 0 and (grey or config.chroma == 0)):
            return photo.copy()
        # The thresholds of details follow from all of the photo.
        clean = self.denoiser(photo, None if config.detail else window)
        if grey:
            clean = np.repeat(channel_mean(clean), 3, axis=2)
        return blend(photo, clean, config)


def blend(noisy: Photo, clean: Photo, config: BlendConfig) -> Photo:
    """Remove the part of `noisy - clean` that `config` names from `noisy`.

    Works on bands of rows: a photo in float takes eight times its memory.
    """
    result = np.empty_like(noisy)
    deviations = noise_deviations(noisy, clean) if config.detail else ()
    for top in range(0, len(noisy), _ROWS):
        bottom = min(top + _ROWS, len(noisy))
        first, last = max(top - _MARGIN, 0), min(bottom + _MARGIN, len(noisy))
        removed = _difference(noisy[first:last], clean[first:last])
        luma = removed @ LUMA  # (h, W, 3) -> (h, W)
        colour = removed - luma[:, :, None]
        if config.detail:
            luma = luma - returned_detail(luma, config.detail, deviations)
        kept = np.float32(config.luma) * luma[:, :, None] + np.float32(config.chroma) * colour
        part = kept[top - first : bottom - first]
        blended = noisy[top:bottom] - np.float32(config.strength) * part
        result[top:bottom] = np.clip(np.round(blended), 0, peak(noisy))
    return result


def returned_detail(luma: Plane32, detail: float, deviations: tuple[float, ...]) -> Plane32:
    """The part of the removed luma, (H, W), that looks like detail and is not removed.

    Noise is spread evenly over wavelet coefficients and detail is in few large ones. The bands are
    those of the undecimated B3-spline wavelet ("a trous": Starck and Murtagh 1994, Astronomy and
    Astrophysics 288). Coefficients are soft-thresholded (Donoho 1995, IEEE Trans. Inf. Theory 41)
    at `3 (1 - detail) / detail` deviations of their band's noise: never reached for 0, 0 for 1,
    where all but the coarsest band is returned.
    """
    returned = np.zeros_like(luma)
    factor = _DEVIATIONS * (1 - detail) / detail
    for band, deviation in zip(wavelet_bands(luma), deviations, strict=True):
        limit = np.float32(factor * deviation)
        returned += np.sign(band) * np.maximum(np.abs(band) - limit, 0)
    return returned


def wavelet_bands(plane: Plane32) -> list[Plane32]:
    """The bands of (H, W), the finest first; they and a coarse rest sum to the plane."""
    bands: list[Plane32] = []
    for scale in range(_SCALES):
        kernel = np.zeros(4 * 2**scale + 1, np.float32)
        kernel[:: 2**scale] = _B3_SPLINE
        smooth = correlate1d(correlate1d(plane, kernel, 0), kernel, 1)
        bands.append(plane - smooth)
        plane = smooth
    return bands


def noise_deviations(noisy: Photo, clean: Photo) -> tuple[float, ...]:
    """Standard deviation of the removed luma in each band, from the median of absolute values.

    Donoho and Johnstone 1994, Biometrika 81. Taken from up to 16 parts of the photo.
    """
    side = int(_SAMPLES**0.5)
    tops, lefts = (_positions(length, side) for length in noisy.shape[:2])
    values: list[list[NDArray[np.float32]]] = [[] for _ in range(_SCALES)]
    for top in tops:
        for left in lefts:
            part = np.s_[top : top + _SAMPLE_SIDE, left : left + _SAMPLE_SIDE]
            bands = wavelet_bands(_difference(noisy[part], clean[part]) @ LUMA)
            for collected, band in zip(values, bands, strict=True):
                collected.append(np.abs(band).ravel())
    return tuple(float(np.median(np.concatenate(v))) / _MAD_TO_DEVIATION for v in values)


def _positions(length: int, count: int) -> list[int]:
    """Starts of up to `count` parts, evenly spaced."""
    last = max(length - _SAMPLE_SIDE, 0)
    return sorted({round(last * i / (count - 1)) for i in range(count)})


def _difference(noisy: Photo, clean: Photo) -> NDArray[np.float32]:
    return noisy.astype(np.float32) - clean
