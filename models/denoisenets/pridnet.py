"""PRIDNet: pyramid real image denoising network (Zhao, Jiang, Men and Han, 2019, arXiv:1908.00273).

Three stages. Noise estimation: four 3x3 convolutions of 32 features, a channel attention that weighs them, and a fifth
convolution to three channels, which go on beside the input. Pyramid: five branches see these six channels averaged over
squares of 1, 2, 4, 8 and 16 pixels, each through a U-Net of its own, and are interpolated back to full size. Fusion:
all branches and the six channels go through convolutions of 3, 5 and 7 pixels, of which a selective kernel module
weighs each channel; a last 3x3 convolution.
Shapes: B batch, H W pixels, which must be multiples of 2 ** (scales - 1 + levels): 256 for the paper's.

Differs from the paper:
- The input is added to the output (`residual=True`), so that useful weights come after hundreds of steps;
  `residual=False` gives the paper's direct mapping.
- The paper draws the U-Nets without their depth: four convolutions at each level on the way down and three on the way up
  (`depth` and `depth` - 1) are what comes to its size.

Checked against: 74.2 M parameters, 31.8 G multiply-accumulates per 256x256; pooling of 1, 2, 4, 8, 16. The seed
article's variant (`pridnet_article`) has twice the width, about 290 M parameters.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, relu

from denoisenets.contract import Contract, SizeContract, pyramid_contract
from denoisenets.layers import FrameMean, conv1x1, conv3x3, initialise
from denoisenets.unet import UPyramid, stage

_NOISE_FEATURES = 32
_NOISE_DEPTH = 4
_REDUCED = 2


def contract(*, depth: int, levels: int, scales: int, **_: object) -> Contract:
    """The branch that pools most sees furthest: its U-Net's radius, times its pooling, between the other stages."""
    pooling = 2 ** (scales - 1)
    branch = pyramid_contract(levels=levels, fine=2 * depth - 1, deepest=depth)
    side = pooling * branch.size.multiple
    before, fusing = _NOISE_DEPTH + 1, 3 + 1
    radius = before + (branch.receptive_radius + 2) * pooling + fusing
    return Contract(size=SizeContract(minimum=side, multiple=side), receptive_radius=radius, global_statistics=True)


class ChannelAttention(nn.Module):
    """Weighs channels by what their means say (Hu et al., 2018, "Squeeze-and-excitation networks", arXiv:1709.01507)."""

    def __init__(self, channels: int, reduced: int) -> None:
        super().__init__()
        self.mean = FrameMean()
        self.weigh = nn.Sequential(
            conv1x1(channels, reduced), nn.ReLU(inplace=True), conv1x1(reduced, channels), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return x * self.mean.spread(self.weigh(self.mean(x)), x)


class SelectiveKernel(nn.Module):
    """Convolutions of 3, 5 and 7 pixels, weighed for each channel (Li et al., 2019, "Selective kernel networks",
    arXiv:1903.06586).
    """

    def __init__(self, channels: int, reduced: int) -> None:
        super().__init__()
        self.kernels = nn.ModuleList([nn.Conv2d(channels, channels, kernel_size=k, padding=k // 2) for k in (3, 5, 7)])
        self.mean = FrameMean()
        self.reduce = conv1x1(channels, reduced)
        self.weigh = nn.ModuleList([conv1x1(reduced, channels) for _ in self.kernels])

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        seen = [relu(kernel(x)) for kernel in self.kernels]
        squeezed = relu(self.reduce(self.mean(seen[0] + seen[1] + seen[2])))  # (B, reduced, 1, 1)
        weights = torch.stack([weigh(squeezed) for weigh in self.weigh]).softmax(dim=0)  # (3, B, C, 1, 1)
        # One after the other: the three maps need not exist at the same time.
        out = seen[0] * self.mean.spread(weights[0], x)
        for one, weight in zip(seen[1:], weights[1:], strict=True):
            out = out + one * self.mean.spread(weight, x)
        return out


class Branch(nn.Module):
    """One scale of the pyramid: the average over squares of `pooling` pixels through a U-Net, and back to full size."""

    def __init__(self, pooling: int, *, inputs: int, width: int, depth: int, levels: int) -> None:
        super().__init__()
        self.pooling = pooling
        self.pyramid = UPyramid(inputs=inputs, width=width, down=depth, up=max(depth - 1, 1), levels=levels)
        self.last = conv1x1(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, 3, H, W)."""
        pooled = avg_pool2d(x, self.pooling) if self.pooling > 1 else x
        coarse: Tensor = self.last(self.pyramid(pooled))  # (B, 3, H/pooling, W/pooling)
        if self.pooling == 1:
            return coarse
        return interpolate(coarse, scale_factor=self.pooling, mode="bilinear", align_corners=False)


class PRIDNet(nn.Module):
    """`scales` branches of U-Nets with `levels` halvings, `width` features at their full size, `depth` convolutions."""

    def __init__(self, *, width: int = 32, depth: int = 4, levels: int = 4, scales: int = 5, residual: bool = True) -> None:
        super().__init__()
        self.residual = residual
        self.noise = nn.Sequential(
            stage(3, _NOISE_FEATURES, _NOISE_DEPTH),
            ChannelAttention(_NOISE_FEATURES, _REDUCED),
            conv3x3(_NOISE_FEATURES, 3),
        )
        self.branches = nn.ModuleList(
            [Branch(2**scale, inputs=6, width=width, depth=depth, levels=levels) for scale in range(scales)]
        )
        self.fuse = SelectiveKernel(3 * scales + 6, _REDUCED)
        self.last = conv3x3(3 * scales + 6, 3)
        initialise(self, added=[self.last] if residual else [])

    def forward(self, noisy: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 3, H, W)."""
        x = torch.cat([noisy, self.noise(noisy)], dim=1)  # (B, 6, H, W)
        seen = torch.cat([x, *(branch(x) for branch in self.branches)], dim=1)  # (B, 3 * scales + 6, H, W)
        clean: Tensor = self.last(self.fuse(seen))
        return noisy + clean if self.residual else clean
