"""Classical denoisers behind the same call as a network."""

import numpy as np
import pywt
from numpy.typing import NDArray
from skimage.restoration import denoise_nl_means

from degrain.imaging.codecs import Photo, peak

_PATCH = 5
_NORMAL_QUARTILE = 0.6744897501960817


def noise_level(photo: NDArray[np.float32]) -> float:
    """Standard deviation of the noise of an (H, W, C) photo: the median detail of the finest diagonal wavelet band.

    After Donoho and Johnstone, "Ideal spatial adaptation by wavelet shrinkage", Biometrika 81(3), 1994; it equals the mean
    over channels of scikit-image's `estimate_sigma`, where a channel without any detail, e.g. a black one, does not count.
    """
    levels = []
    for channel in np.moveaxis(photo, -1, 0):
        _, (_, _, diagonal) = pywt.dwt2(channel, "db2")
        detail = np.abs(diagonal[diagonal != 0])
        if detail.size:
            levels.append(float(np.median(detail)) / _NORMAL_QUARTILE)
    return sum(levels) / len(levels) if levels else 0.0


class NonLocalMeans:
    """Non-local means (Buades et al., 2005) with the settings of the seed article.

    Patches of 5x5 within a distance of 6, h = 1.15 sigma, exact weights (scikit-image's `fast_mode=False`); sigma is
    `noise_level`.
    """

    name = "nlm"
    parameters = 0

    def __call__(self, photo: Photo) -> Photo:
        """Denoise one (H, W, 3) photo; one without measurable noise, or smaller than a patch, comes back as it is."""
        x = (photo / peak(photo)).astype(np.float32)
        sigma = noise_level(x)
        if sigma == 0 or min(photo.shape[:2]) < _PATCH:
            return photo
        clean = denoise_nl_means(x, patch_size=_PATCH, patch_distance=6, h=1.15 * sigma, fast_mode=False, channel_axis=-1)
        return np.asarray(np.round(np.clip(clean, 0, 1) * peak(photo)), dtype=photo.dtype)
