"""PSNR and SSIM by named protocols; scores of different protocols are not comparable.

`rgb8`: output clipped and rounded to 8 bits; PSNR over all three channels with peak 255; SSIM after
Wang et al., "Image quality assessment: from error visibility to structural similarity", IEEE TIP
13(4), 2004: Gaussian window 11x11 with sigma 1.5, population covariance, per channel, averaged.
Computed per whole photo, then averaged over photos.

`rgb8-patches`: the same numbers per validation patch, averaged over patches. Training and
tuning use it; it is not comparable with `rgb8`, because patches have more border.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from degrain.imaging.pixels import Photo, eight_bits

PROTOCOL = "rgb8"
PATCH_PROTOCOL = "rgb8-patches"

HIGHEST_PSNR = 99.0
"""dB; stands for that of an exact output, which is infinite and would make means so."""
WINDOW = 11
"""Side of SSIM's window in pixels, and smallest side of a photo with an SSIM."""
_SIGMA = 1.5
_C1, _C2 = 0.01**2, 0.03**2
_TILE = 128
"""Side of the tiles that are scored at once, pixels."""


@dataclass(frozen=True)
class Score:
    """PSNR in dB and SSIM, of one photo or averaged over photos."""

    psnr: float
    ssim: float


def mean_score(scores: Iterable[Score]) -> Score:
    """The mean over photos, each weighted equally whatever its size. Raises ValueError without
    photos.
    """
    listed = list(scores)
    if not listed:
        raise ValueError("no photos to average over")
    return Score(
        sum(s.psnr for s in listed) / len(listed),
        sum(s.ssim for s in listed) / len(listed),
    )


_PEAKS = {torch.uint8: 255, torch.uint16: 65535, torch.int32: 65535}


def to_float(photos: Tensor) -> Tensor:
    """uint8 in 0..255, or uint16 or int32 in 0..65535 -> float32 in [0, 1]."""
    return photos.to(torch.float32).div_(_PEAKS[photos.dtype])


def to_pixels(output: Tensor, dtype: torch.dtype) -> Tensor:
    """Float in [0, 1], of any precision -> clipped, rounded values of uint8, or of 16 bits in
    int32.
    """
    peak = _PEAKS[dtype]
    return output.to(torch.float32).mul(peak).round().clamp(0, peak).to(dtype)


def to_eight_bits(output: Tensor) -> Tensor:
    """Float in [0, 1], of any precision -> clipped, rounded uint8."""
    return to_pixels(output, torch.uint8)


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB per image: two (B, C, H, W) uint8 -> (B,); infinite where
    they are equal.
    """
    total = torch.zeros(len(a), dtype=torch.float64, device=a.device)
    for x, y in _tiles(a, b, torch.float32):
        total += (x - y).square_().sum(dim=(1, 2, 3), dtype=torch.float64)
    return 10 * torch.log10(255.0**2 / (total / a[0].numel()))


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity per image: two (B, C, H, W) uint8 -> (B,); H and W at least 11.

    Equals scikit-image's `structural_similarity(gaussian_weights=True, sigma=1.5,
    use_sample_covariance=False, data_range=255)` averaged over channels. Raises ValueError for
    images smaller than the window.
    """
    channels, height, width = a.shape[1:]
    _check_window(height, width)
    total = torch.zeros(len(a), dtype=torch.float64, device=a.device)
    # In float32 rounding errors exceed the variance of a flat region.
    for x, y in _tiles(a, b, torch.float64, overlap=WINDOW - 1):
        total += _similarity(x.div_(255), y.div_(255)).sum(dim=(1, 2, 3))
    return total / (channels * (height - WINDOW + 1) * (width - WINDOW + 1))


def _tiles(
    a: Tensor, b: Tensor, dtype: torch.dtype, overlap: int = 0
) -> Iterator[tuple[Tensor, Tensor]]:
    """Tiles of both (B, C, H, W) images in another dtype, which overlap by `overlap` pixels.

    So memory hardly depends on the size of a photo, and small tiles stay in the CPU's cache.
    """
    height, width = a.shape[2:]
    for top in range(0, height - overlap, _TILE):
        for left in range(0, width - overlap, _TILE):
            rows, columns = (slice(start, start + _TILE + overlap) for start in (top, left))
            yield a[:, :, rows, columns].to(dtype), b[:, :, rows, columns].to(dtype)


def structural_similarity(x: Tensor, y: Tensor) -> Tensor:
    """`ssim` of two (B, C, H, W) floats in [0, 1], computed in their dtype; differentiable."""
    _check_window(*x.shape[2:])
    return _similarity(x, y).flatten(1).mean(dim=1, dtype=torch.float64)


def _check_window(height: int, width: int) -> None:
    if min(height, width) < WINDOW:
        raise ValueError(f"SSIM needs at least {WINDOW}x{WINDOW} pixels, got {height}x{width}")


def _similarity(x: Tensor, y: Tensor) -> Tensor:
    """The similarity in each window: two (B, C, H, W) -> (B, C, H - 10, W - 10)."""
    batch, channels, height, width = x.shape
    offsets = torch.arange(WINDOW, dtype=x.dtype, device=x.device) - WINDOW // 2
    window = torch.exp(-offsets.square() / (2 * _SIGMA**2))
    window = window / window.sum()

    def blur(image: Tensor) -> Tensor:
        return conv2d(conv2d(image, window.view(1, 1, 1, WINDOW)), window.view(1, 1, WINDOW, 1))

    x, y = (image.reshape(batch * channels, 1, height, width) for image in (x, y))
    # cuDNN uses TensorFloat-32 for float32 by default, whose rounding errors exceed small
    # variances.
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        mean_x, mean_y = blur(x), blur(y)
        variance_x = blur(x * x) - mean_x * mean_x
        variance_y = blur(y * y) - mean_y * mean_y
        covariance = blur(x * y) - mean_x * mean_y
    similarity = ((2 * mean_x * mean_y + _C1) * (2 * covariance + _C2)) / (
        (mean_x.square() + mean_y.square() + _C1) * (variance_x + variance_y + _C2)
    )
    return similarity.view(batch, channels, *similarity.shape[2:])


def score_photo(output: Photo, clean: Photo) -> Score:
    """Score one whole photo against its clean one by `rgb8`; 16-bit photos are rounded to 8 bits
    first.
    """
    a, b = (torch.tensor(eight_bits(x)).permute(2, 0, 1)[None] for x in (output, clean))
    return Score(psnr(a, b).item(), ssim(a, b).item())
