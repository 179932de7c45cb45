"""Blocks that several networks share."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, layer_norm

CELLS = 8
"""A window of local statistics is as wide as this many cells; statistics are taken per cell, then over cells."""


def conv3x3(inputs: int, outputs: int) -> nn.Conv2d:
    """A 3x3 convolution that keeps height and width (zero padding inside the network)."""
    return nn.Conv2d(inputs, outputs, kernel_size=3, padding=1)


def conv1x1(inputs: int, outputs: int, *, bias: bool = True) -> nn.Conv2d:
    """A 1x1 convolution: the same linear map of the channels at each pixel."""
    return nn.Conv2d(inputs, outputs, kernel_size=1, bias=bias)


def initialise(network: nn.Module, *, added: Iterable[nn.Module] = (), rectified: bool = True) -> None:
    """Normal weights that keep the variance of what goes through, and zero biases, in place (He et al., 2015).

    `rectified` says that ReLUs follow the convolutions, which halve the variance. The layers in `added`, whose outputs are
    added to a skip, start at a tenth of that: a residual network then starts close to the identity along its skips rather
    than as a second source of noise.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu" if rectified else "linear")
        elif isinstance(layer, nn.ConvTranspose2d):
            # Of 2x2 with stride 2: each output is made of one pixel's channels, and no ReLU follows.
            nn.init.normal_(layer.weight, std=layer.in_channels**-0.5)
        else:
            continue
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    with torch.no_grad():
        for layer in added:
            assert isinstance(layer, nn.Conv2d)
            layer.weight.mul_(0.1)


class ChannelNorm(nn.Module):
    """Layer normalisation over the channels of each pixel (Ba et al., 2016, arXiv:1607.06450)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        last = x.permute(0, 2, 3, 1)  # a view without copying where memory is channels last
        return layer_norm(last, self.weight.shape, self.weight, self.bias, eps=1e-6).permute(0, 3, 1, 2)


class FrameMean(nn.Module):
    """The mean of each channel over the whole frame, or over a window of the photo around each cell.

    A network that takes means over the frame does something else to a whole photo than it did to the small crops it was
    trained on, and something else again to a tile of the photo. With a `window` as wide as training's crops the means become
    local: (Chu et al., 2022, "Improving image restoration by revisiting global information aggregation", arXiv:2112.04491).
    Here they are taken on a grid of cells, an eighth of the window wide, over 7x7 cells around each; `spread` interpolates
    between cells, which makes the window as wide as it is called. Tiles that begin on multiples of a cell share the grid.
    """

    def __init__(self, scale: int = 1) -> None:
        super().__init__()
        self.scale = scale
        """How many pixels of the photo lie along the side of one pixel of the features."""
        self.window: int | None = None
        """Width of the window in pixels of the photo, a multiple of `CELLS` times the scale; None for the whole frame."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, 1, 1), or with a window one mean for each cell, (B, C, cells down, cells across)."""
        if self.window is None:
            return x.mean(dim=(2, 3), keepdim=True)
        cell = self.window // CELLS // self.scale
        means = avg_pool2d(x, cell, ceil_mode=True, count_include_pad=False) if cell > 1 else x
        return over_cells(means)

    def spread(self, cells: Tensor, like: Tensor) -> Tensor:
        """What was made of the means, for each pixel of `like` (B, C, H, W); of the whole frame's, as it is."""
        if self.window is None:
            return cells
        cell = self.window // CELLS // self.scale
        wide = interpolate(cells, scale_factor=cell, mode="bilinear", align_corners=False) if cell > 1 else cells
        return wide[..., : like.shape[-2], : like.shape[-1]]


def use_local_statistics(network: nn.Module, crop: int) -> int:
    """Let all means over the frame be means over a window of the photo around each place, as wide as training's crops.

    `crop` is their side in pixels; gives the window's, the next multiple of `CELLS` pixels of the coarsest features
    that means are taken of, or 0 for a network that takes none.
    """
    means = [module for module in network.modules() if isinstance(module, FrameMean)]
    if not means:
        return 0
    step = CELLS * max(mean.scale for mean in means)
    window = -(-crop // step) * step
    for mean in means:
        mean.window = window
    return window


def over_cells(means: Tensor) -> Tensor:
    """The mean over 7x7 cells around each cell, fewer at the border: (B, C, h, w) -> (B, C, h, w)."""
    return avg_pool2d(means, CELLS - 1, stride=1, padding=CELLS // 2 - 1, count_include_pad=False)


def haar_analysis(x: Tensor) -> Tensor:
    """Orthonormal 2-D Haar analysis, (B, C, H, W) -> (B, 4C, H/2, W/2), bands in the order LL HL LH HH.

    Each band is a scaled sum of the four pixels of a 2x2 block; the scale of one half makes the transform orthonormal.
    HL is the difference along the width, LH along the height. H and W must be even.
    """
    top, bottom = x[:, :, 0::2, :] / 2, x[:, :, 1::2, :] / 2
    a, b = top[:, :, :, 0::2], top[:, :, :, 1::2]
    c, d = bottom[:, :, :, 0::2], bottom[:, :, :, 1::2]
    return torch.cat([a + b + c + d, b + d - a - c, c + d - a - b, a + d - b - c], dim=1)


def haar_synthesis(x: Tensor) -> Tensor:
    """The inverse, and transpose, of `haar_analysis`: (B, 4C, H, W) -> (B, C, 2H, 2W)."""
    batch, channels, height, width = x.shape
    ll, hl, lh, hh = (x / 2).chunk(4, dim=1)
    # (B, C, H, 2, W, 2): the two axes of length 2 hold the place inside each 2x2 block.
    top = torch.stack([ll - hl - lh + hh, ll + hl - lh - hh], dim=-1)
    bottom = torch.stack([ll - hl + lh - hh, ll + hl + lh + hh], dim=-1)
    return torch.stack([top, bottom], dim=3).reshape(batch, channels // 4, 2 * height, 2 * width)
