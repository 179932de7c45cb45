"""Layers that several networks share."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, layer_norm

CELLS_PER_WINDOW = 8
"""Cells along the side of a window of local statistics. Statistics are computed per cell, then
averaged over the 7x7 cells around each.
"""


def conv3x3(inputs: int, outputs: int) -> nn.Conv2d:
    """A 3x3 convolution with zero padding, which preserves height and width."""
    return nn.Conv2d(inputs, outputs, kernel_size=3, padding=1)


def conv1x1(inputs: int, outputs: int, *, bias: bool = True) -> nn.Conv2d:
    """A 1x1 convolution: the same linear map of the channels at each pixel."""
    return nn.Conv2d(inputs, outputs, kernel_size=1, bias=bias)


def in_float32(layer: nn.Module, x: Tensor) -> Tensor:
    """Apply a layer in float32 also under autocast.

    For the last layer of a network that does not add its output to the photo: a photo in bfloat16
    would have 129 tones between half of white and white.
    """
    # Autocast does not know the meta device, on which costs are counted.
    if x.is_meta or not torch.is_autocast_enabled(x.device.type):
        applied: Tensor = layer(x)
        return applied
    with torch.autocast(x.device.type, enabled=False):
        return in_float32(layer, x.float())


def initialise(
    network: nn.Module, *, residual: Iterable[nn.Module] = (), rectified: bool = True
) -> None:
    """Draw variance-preserving normal weights and set biases to zero, in place (He et al., 2015).

    `rectified` accounts for ReLUs after the convolutions, which halve the variance. The weights of
    each 3x3 filter before a ReLU sum to zero: how bright a photo is would hide the small
    differences that noise is made of. docs/results.md has what this gains in short trainings. Layer
    normalisation would amplify the rounding errors that such filters leave of flat areas. The
    convolutions in `residual`, whose outputs are added to a skip connection, start at a tenth of
    that scale: the network then starts close to the identity.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu" if rectified else "linear")
            if rectified and layer.kernel_size != (1, 1):
                with torch.no_grad():
                    layer.weight.sub_(layer.weight.mean(dim=(1, 2, 3), keepdim=True))
        elif isinstance(layer, nn.ConvTranspose2d):
            # Stride 2: each output depends on one or a few input pixels, and no ReLU follows.
            nn.init.normal_(layer.weight, std=layer.in_channels**-0.5)
        else:
            continue
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    with torch.no_grad():
        for layer in residual:
            assert isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)
            layer.weight.mul_(0.1)


class LayerNorm2d(nn.Module):
    """Layer normalisation over the channels of each pixel (Ba et al., 2016, arXiv:1607.06450)."""

    def __init__(self, channels: int, *, epsilon: float = 1e-6) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        last = x.permute(0, 2, 3, 1)  # a view without a copy where memory is channels last
        normalised = layer_norm(last, self.weight.shape, self.weight, self.bias, eps=self.epsilon)
        return normalised.permute(0, 3, 1, 2)


class BiasFreeLayerNorm2d(nn.Module):
    """Division by the standard deviation over the channels of each pixel, as in swz30/Restormer:
    the mean is not subtracted.
    """

    def __init__(self, channels: int, *, epsilon: float = 1e-6) -> None:
        super().__init__()
        self.epsilon = epsilon
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        variance = x.var(dim=1, keepdim=True, correction=0)  # (B, 1, H, W)
        return x * (variance + self.epsilon).rsqrt() * self.weight[:, None, None]


class GlobalAveragePool(nn.Module):
    """The mean of each channel over the whole image, or over a local window around each cell.

    Global means of a whole photo differ from those of the small crops in training, and those of a
    tile from both. A `window` as wide as the training crops makes the means local (Chu et al.,
    2022, "Improving image restoration by revisiting global information aggregation",
    arXiv:2112.04491). Here they are computed on a grid of cells of an eighth of the window's side,
    over 7x7 cells around each; `upsample` interpolates between cells, which widens the window to
    its nominal side. Tiles whose origins are multiples of a cell share the grid.
    """

    def __init__(self, scale: int = 1) -> None:
        super().__init__()
        self.scale = scale
        """Photo pixels along the side of one feature pixel."""
        self.window: int | None = None
        """Side of the window in photo pixels, a multiple of `CELLS_PER_WINDOW` times the scale;
        None for the whole image.
        """

    @property
    def cell(self) -> int:
        """Side of a cell in feature pixels. Needs a window."""
        assert self.window is not None
        return self.window // CELLS_PER_WINDOW // self.scale

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, 1, 1), or with a window one mean per cell, (B, C, cell rows, cell
        columns).
        """
        if self.window is None:
            return x.mean(dim=(2, 3), keepdim=True)
        cell = self.cell
        means = avg_pool2d(x, cell, ceil_mode=True, count_include_pad=False) if cell > 1 else x
        return average_neighbouring_cells(means)

    def upsample(self, cells: Tensor, like: Tensor) -> Tensor:
        """Interpolate values per cell to the height and width of `like`, (B, C, H, W); values of
        the whole image are returned unchanged, to be broadcast.
        """
        if self.window is None:
            return cells
        cell = self.cell
        upsampled = (
            interpolate(cells, scale_factor=cell, mode="bilinear", align_corners=False)
            if cell > 1
            else cells
        )
        return upsampled[..., : like.shape[-2], : like.shape[-1]]


def use_local_statistics(network: nn.Module, crop: int) -> int:
    """Replace all means over the whole image by means over a local window, in place.

    `crop` is the side of the training crops in pixels. Returns the side of the window: the next
    multiple of `CELLS_PER_WINDOW` pixels of the coarsest pooled features, or 0 for a network
    without global means.
    """
    pools = [module for module in network.modules() if isinstance(module, GlobalAveragePool)]
    if not pools:
        return 0
    step = CELLS_PER_WINDOW * max(pool.scale for pool in pools)
    window = -(-crop // step) * step
    for pool in pools:
        pool.window = window
    return window


def average_neighbouring_cells(means: Tensor) -> Tensor:
    """Average 7x7 cells around each cell, fewer at the border: (B, C, h, w) -> (B, C, h, w)."""
    return avg_pool2d(
        means,
        CELLS_PER_WINDOW - 1,
        stride=1,
        padding=CELLS_PER_WINDOW // 2 - 1,
        count_include_pad=False,
    )


def haar_analysis(x: Tensor) -> Tensor:
    """Orthonormal 2-D Haar analysis, (B, C, H, W) -> (B, 4C, H/2, W/2), bands in the order LL HL LH
    HH.

    Each band is a signed sum of the four pixels of a 2x2 block; the factor of one half makes the
    transform orthonormal. HL is the difference along the width, LH along the height. H and W must
    be even.
    """
    top, bottom = x[:, :, 0::2, :] / 2, x[:, :, 1::2, :] / 2
    a, b = top[:, :, :, 0::2], top[:, :, :, 1::2]
    c, d = bottom[:, :, :, 0::2], bottom[:, :, :, 1::2]
    return torch.cat([a + b + c + d, b + d - a - c, c + d - a - b, a + d - b - c], dim=1)


def estimate_noise_level(noisy: Tensor, pool: GlobalAveragePool) -> Tensor:
    """The standard deviation of the noise, (B, 3, H, W) -> (B, 1, 1, 1), or with local statistics a
    map, (B, 1, H/2, W/2). H and W must be even, and the scale of `pool` 2.

    It is the mean magnitude of the finest diagonal wavelet band, whose expectation for Gaussian
    noise is sqrt(2 / pi) times the standard deviation. Texture makes the estimate slightly too
    high, in training as in inference, so that a network can be trained on photos of unknown noise
    level.
    """
    _, _, _, diagonal = haar_analysis(noisy).chunk(4, dim=1)  # (B, 3, H/2, W/2)
    magnitude = diagonal.abs().mean(dim=1, keepdim=True) * math.sqrt(math.pi / 2)
    return pool.upsample(pool(magnitude), magnitude)


def haar_synthesis(x: Tensor) -> Tensor:
    """The inverse, and transpose, of `haar_analysis`: (B, 4C, H, W) -> (B, C, 2H, 2W)."""
    batch, channels, height, width = x.shape
    ll, hl, lh, hh = (x / 2).chunk(4, dim=1)
    # (B, C, H, 2, W, 2): the two axes of length 2 are the position inside each 2x2 block.
    top = torch.stack([ll - hl - lh + hh, ll + hl - lh - hh], dim=-1)
    bottom = torch.stack([ll - hl + lh - hh, ll + hl + lh + hh], dim=-1)
    return torch.stack([top, bottom], dim=3).reshape(batch, channels // 4, 2 * height, 2 * width)
