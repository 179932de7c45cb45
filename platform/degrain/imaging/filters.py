"""Classical denoising filters with the call of a network denoiser.

Each takes the standard deviation of the noise and smooths in proportion to it. `nlm` has the
settings of the article that the project starts from and `bm3d` those of its package. The settings
of the others were chosen on real photos with the true noise level: every third photo of the SIDD
scenes 001, 003, 005 and 006 (resampled to 256x256; white noise) and a crop of each of the RENOIR
batches 3, 10, 16, 23 and 32 (correlated noise). Of the settings within 0.1 dB of the best mean PSNR
gain on SIDD, each filter has those with the largest gain on RENOIR.

The estimated noise level is too low for correlated noise, on RENOIR by a factor of three; there a
given level improves the result most.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any, ClassVar, TypeAlias

import numpy as np
import pywt
from numpy.typing import NDArray
from scipy.ndimage import median_filter
from skimage.restoration import denoise_nl_means, denoise_tv_chambolle, denoise_wavelet

from degrain.errors import UserError
from degrain.imaging.limits import check_noise_level
from degrain.imaging.pixels import Photo, check_photo, peak
from denoisenets.suggestions import unknown_name

Pixels: TypeAlias = NDArray[np.floating[Any]]
"""RGB in [0, 1], (H, W, 3)."""

_NORMAL_QUARTILE = 0.6744897501960817
_LEAST_NOISE = 1e-6
"""Standard deviation below which photos are returned unchanged: a fifteenth of a step of 16 bits.
"""


def estimate_noise_level(photo: NDArray[np.float32]) -> float:
    """Estimate the standard deviation of the noise of an (H, W, C) photo from the median magnitude
    of the finest diagonal wavelet band.

    After Donoho and Johnstone, "Ideal spatial adaptation by wavelet shrinkage", Biometrika 81(3),
    1994; it equals the mean over channels of scikit-image's `estimate_sigma`, except that
    channels without detail, e.g. black ones, are ignored.
    """
    levels = []
    for channel in np.moveaxis(photo, -1, 0):
        _, (_, _, diagonal) = pywt.dwt2(channel, "db2")
        detail = np.abs(diagonal[diagonal != 0])
        if detail.size:
            levels.append(float(np.median(detail)) / _NORMAL_QUARTILE)
    return sum(levels) / len(levels) if levels else 0.0


# Each filter takes float32 pixels and the standard deviation of their noise, and returns pixels
# that may exceed [0, 1].


def _nlm(x: Pixels, sigma: float) -> Pixels:
    """Non-local means (Buades et al., CVPR 2005) with exact weights and the settings of the article
    that the project starts from.
    """
    clean: Pixels = denoise_nl_means(
        x, patch_size=5, patch_distance=6, h=1.15 * sigma, fast_mode=False, channel_axis=-1
    )
    return clean


def _nlm_tuned(x: Pixels, sigma: float) -> Pixels:
    """Non-local means by sums over the whole photo (Darbon et al., ISBI 2008), with the noise
    variance subtracted from the distances.
    """
    clean: Pixels = denoise_nl_means(
        x, patch_size=5, patch_distance=9, h=0.6 * sigma, sigma=sigma, channel_axis=-1
    )
    return clean


def _bilateral(x: Pixels, sigma: float) -> Pixels:
    """Bilateral filter (Tomasi and Manduchi, ICCV 1998) in windows of 9x9 that end at the border.

    Not scikit-image's (0.26): it misplaces the spatial weights of odd windows and, by default,
    darkens borders. Pixels are averaged with weights exp(-(distance / 3)^2 / 2 - (difference of
    colours / (3 sigma))^2 / 2).
    """
    height, width, _ = x.shape
    planes = np.ascontiguousarray(np.moveaxis(x, -1, 0))  # (H, W, 3) -> (3, H, W)
    total, weights = planes.copy(), np.ones((height, width), dtype=x.dtype)
    # Weights are symmetric, so half of the offsets suffice.
    for down, right in itertools.product(range(5), range(-4, 5)):
        if (down, right) <= (0, 0) or down >= height or abs(right) >= width:
            continue
        first = np.s_[..., : height - down, max(0, -right) : width - max(0, right)]
        second = np.s_[..., down:, max(0, right) : width - max(0, -right)]
        difference = np.square(planes[second] - planes[first]).sum(axis=0)
        weight = np.exp(
            -(down * down + right * right) / (2 * 3**2) - difference / (2 * (3 * sigma) ** 2)
        )
        total[first] += weight * planes[second]
        total[second] += weight * planes[first]
        weights[first] += weight
        weights[second] += weight
    return np.moveaxis(total / weights, 0, -1)


def _tv(x: Pixels, sigma: float) -> Pixels:
    """Total variation, per channel, by Chambolle's projection (J. Math. Imaging Vis. 20, 2004)."""
    clean: Pixels = denoise_tv_chambolle(x, weight=sigma, channel_axis=-1)
    return clean


_WAVELET = "sym4"


def _wavelet(x: Pixels, sigma: float) -> Pixels:
    """BayesShrink, soft thresholds for each band (Chang et al., IEEE TIP 9(9), 2000), in YCbCr."""
    levels = min(4, pywt.dwtn_max_level(x.shape[:2], _WAVELET))
    clean: Pixels = denoise_wavelet(
        x, sigma=sigma, wavelet=_WAVELET, wavelet_levels=levels, convert2ycbcr=True, channel_axis=-1
    )
    return clean


def _median(x: Pixels, sigma: float) -> Pixels:
    """Median of each channel in a square window: 3x3 from a noise level of 0.015, 5x5 from 0.045,
    up to 9x9.
    """
    side = min(2 * round(sigma / 0.03) + 1, 9)
    clean: Pixels = median_filter(x, size=(side, side, 1))
    return clean


_OPPONENT = np.array([[1 / 3, 1 / 3, 1 / 3], [1 / 2, 0, -1 / 2], [1 / 4, -1 / 2, 1 / 4]])
"""RGB -> luminance and two colour differences, as in colour BM3D."""


def _bm3d(x: Pixels, sigma: float) -> Pixels:
    """Colour BM3D (Dabov et al., IEEE TIP 16(8), 2007): luminance matches the blocks of all
    channels.

    It equals `bm3d.bm3d_rgb`, which divides by zero where a channel is constant, e.g. in grey
    photos. The variances of coefficients are those of 2007; the exact ones of Makinen et al. (IEEE
    TIP 29, 2020), the package's default, gain 0.05 dB on one photo with white noise and take five
    times as long.
    """
    package = _import_bm3d()
    profile = package.BM3DProfile()
    profile.nf = 0  # the variances of 2007
    profile.num_threads = 1  # with several threads the result depends on their order
    opponent = x @ _OPPONENT.T
    low, high = opponent.min(axis=(0, 1)), opponent.max(axis=(0, 1))
    if low[0] == high[0]:
        return x  # constant luminance cannot match blocks
    width = np.where(low < high, high - low, 1)
    deviations = sigma * np.linalg.norm(_OPPONENT, axis=1) / width
    clean: Pixels = package.bm3d((opponent - low) / width, deviations, profile)
    return np.asarray((clean * width + low) @ np.linalg.inv(_OPPONENT).T)


def _import_bm3d() -> ModuleType:
    try:
        return import_module("bm3d")
    except ImportError:
        raise UserError(
            "filter 'bm3d' needs the package bm3d, which is not installed by default because its "
            "licence allows non-commercial use alone; if your use is, install it: "
            "pip install 'degrain[bm3d]'"
        ) from None
    except OSError as error:
        raise UserError(
            f"filter 'bm3d' cannot run: the package bm3d has no binaries for this machine ({error})"
            "; choose another filter"
        ) from None


@dataclass(frozen=True, kw_only=True)
class _Entry:
    denoise: Callable[[Pixels, float], Pixels]
    smallest: int = 1
    """Photos with a smaller side, in pixels, are returned unchanged."""
    check: Callable[[], object] | None = None
    """Raises UserError if the filter cannot run."""


FILTERS = {
    "bilateral": _Entry(denoise=_bilateral),
    # The package crashes the process on a photo of one 8x8 block.
    "bm3d": _Entry(denoise=_bm3d, smallest=9, check=_import_bm3d),
    "median": _Entry(denoise=_median),
    "nlm": _Entry(denoise=_nlm, smallest=5),
    "nlm-tuned": _Entry(denoise=_nlm_tuned, smallest=5),
    "tv": _Entry(denoise=_tv),
    "wavelet": _Entry(denoise=_wavelet, smallest=2 * (pywt.Wavelet(_WAVELET).dec_len - 1)),
}


@dataclass(frozen=True)
class Filter:
    """A denoiser that applies one entry of `FILTERS`. Raises ValueError as `create_filter`."""

    name: str
    noise_level: float | None = None
    """Standard deviation of the noise in (0, 1], where white is 1; None estimates it per photo.
    """
    parameters: ClassVar[int] = 0

    def __post_init__(self) -> None:
        if self.name not in FILTERS:
            raise ValueError(unknown_name("filter", self.name, list_filters()))
        if self.noise_level is not None:
            check_noise_level(self.noise_level)

    def __call__(self, photo: Photo, window: object = None) -> Photo:  # noqa: ARG002
        """Denoise one (H, W, 3) photo, all of it whatever the window; one without measurable noise
        or too small for the filter is returned unchanged.

        Raises ValueError for a shape or dtype that is not a photo's.
        """
        check_photo(photo)
        entry = FILTERS[self.name]
        x = (photo / peak(photo)).astype(np.float32)
        sigma = estimate_noise_level(x) if self.noise_level is None else self.noise_level
        if sigma < _LEAST_NOISE or min(photo.shape[:2]) < entry.smallest:
            return photo
        clean = entry.denoise(x, sigma)
        # Non-local means of little noise finds no similar patch for some pixels and divides 0 by 0.
        clean = np.where(np.isfinite(clean), clean, x)
        return np.asarray(np.round(np.clip(clean, 0, 1) * peak(photo)), dtype=photo.dtype)


def list_filters() -> list[str]:
    """Names of all filters, sorted."""
    return sorted(FILTERS)


def create_filter(name: str, noise_level: float | None = None) -> Filter:
    """Create the filter `name`; `noise_level` is the standard deviation of the noise in (0, 1], or
    None to estimate it per photo.

    Raises ValueError for an unknown name (with the nearest known one) or a noise level out of
    range, and UserError for `bm3d` without its package.
    """
    created = Filter(name, noise_level)
    if (check := FILTERS[name].check) is not None:
        check()
    return created
