"""Classical denoisers behind the same call as a network."""

import numpy as np
from skimage.restoration import denoise_nl_means, estimate_sigma

from degrain.imaging.codecs import Photo


class NonLocalMeans:
    """Non-local means (Buades et al., 2005) with the settings of the seed article.

    Patches of 5x5 within a distance of 6, h = 1.15 sigma, exact weights (scikit-image's `fast_mode=False`); sigma is
    the noise level estimated from the photo's finest wavelet band (Donoho and Johnstone, 1994), mean over channels.
    """

    name = "nlm"
    parameters = 0

    def __call__(self, photo: Photo) -> Photo:
        """Denoise one (H, W, 3) uint8 photo; one without measurable noise comes back as it is."""
        x = (photo / 255).astype(np.float32)
        sigma = float(np.mean(estimate_sigma(x, channel_axis=-1)))
        if not sigma > 0:
            return photo
        clean = denoise_nl_means(x, patch_size=5, patch_distance=6, h=1.15 * sigma, fast_mode=False, channel_axis=-1)
        return np.asarray(np.round(np.clip(clean, 0, 1) * 255), dtype=np.uint8)
