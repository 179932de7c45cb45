"""Blocks that several networks share."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


def conv3x3(inputs: int, outputs: int) -> nn.Conv2d:
    """A 3x3 convolution that keeps height and width (zero padding inside the network)."""
    return nn.Conv2d(inputs, outputs, kernel_size=3, padding=1)


def initialise(network: nn.Module, *, added: Iterable[nn.Module] = ()) -> None:
    """Kaiming-normal weights for ReLU (He et al., 2015) and zero biases, in place.

    The layers in `added`, whose outputs are added to a skip, start at a tenth of that: a residual network then starts
    close to the identity along its skips rather than as a second source of noise.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    with torch.no_grad():
        for layer in added:
            assert isinstance(layer, nn.Conv2d)
            layer.weight.mul_(0.1)


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
