"""U-Net (Ronneberger, Fischer and Brox, 2015, arXiv:1505.04597), the usual yardstick, made to denoise.

`depth` 3x3 convolutions with ReLUs at each level, 2x2 maximum pooling on the way down with the features doubling, 2x2
transposed convolutions on the way up, and what went down joined to what comes up. A last 1x1 convolution gives what is
added to the input.
Shapes: B batch, H W pixels, which must be multiples of 2 ** levels.

Differs from the paper:
- Convolutions are padded, so that the output has the input's size; three channels in and out; the input is added; no
  dropout.
- Half the paper's width by default, which is enough for noise.

Checked against: width 64 has the paper's 31.0 M parameters.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from denoisenets.contract import Contract, pyramid_contract
from denoisenets.layers import conv1x1, conv3x3, initialise


def contract(*, depth: int, levels: int, **_: object) -> Contract:
    """`depth` convolutions down and `depth` up at each level, `depth` at the deepest."""
    return pyramid_contract(levels=levels, fine=2 * depth, deepest=depth)


def stage(inputs: int, features: int, depth: int) -> nn.Sequential:
    """`depth` convolutions from `inputs` to `features` channels, each followed by a ReLU."""
    layers: list[nn.Module] = []
    for i in range(depth):
        layers += [conv3x3(inputs if i == 0 else features, features), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class UPyramid(nn.Module):
    """The U without its ends: (B, inputs, H, W) -> (B, width, H, W); H and W are multiples of 2 ** levels.

    `width` features at full size and twice as many after each halving; `down` convolutions at each level on the way
    down and at the deepest, `up` on the way up.
    """

    def __init__(self, *, inputs: int, width: int, down: int, up: int, levels: int) -> None:
        super().__init__()
        features = [width * 2**level for level in range(levels + 1)]
        self.down = nn.ModuleList([stage(c, f, down) for c, f in zip([inputs, *features[:-2]], features[:-1], strict=True)])
        self.deepest = stage(features[-2], features[-1], down)
        self.widen = nn.ModuleList([nn.ConvTranspose2d(2 * f, f, kernel_size=2, stride=2) for f in features[:-1]])
        self.up = nn.ModuleList([stage(2 * f, f, up) for f in features[:-1]])

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, width, H, W)."""
        kept: list[Tensor] = []
        for down in self.down:
            kept.append(down(x))
            x = max_pool2d(kept[-1], 2)  # (B, F, H, W) -> (B, F, H/2, W/2)
        x = self.deepest(x)
        for widen, up in zip(reversed(self.widen), reversed(self.up), strict=True):
            x = up(torch.cat([widen(x), kept.pop()], dim=1))  # (B, 2F, H/2, W/2) -> (B, F, H, W)
        return x


class UNet(nn.Module):
    """`levels` halvings with `depth` convolutions on each way; `width` features at full size."""

    def __init__(self, *, width: int = 32, depth: int = 2, levels: int = 4) -> None:
        super().__init__()
        self.pyramid = UPyramid(inputs=3, width=width, down=depth, up=depth, levels=levels)
        self.last = conv1x1(width, 3)
        initialise(self, added=[self.last])

    def forward(self, noisy: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 3, H, W)."""
        clean: Tensor = noisy + self.last(self.pyramid(noisy))
        return clean
