"""NAFNet: nonlinear activation free network (Chen, Chu, Zhang and Sun, 2022, arXiv:2204.04676).

A U-shaped network whose blocks have no activation function: the halves of the channels are multiplied with each other
(SimpleGate), and channels weighed by their means (simplified channel attention). 2x2 convolutions of stride 2 on the
way down, 1x1 convolutions with pixel shuffle on the way up, additive skips, the result added to the input.
Shapes: B batch, C features, H W pixels, which must be multiples of 2 ** levels.

Differs from the paper: `depth` stands for its four lists of blocks: (1, 1, 2, 4) times `depth` on the way down, 6 times
at the deepest level, 1 time at each level on the way up; 2 gives the paper's 36 blocks for SIDD.

Checked against: width 32 has 29.2 M parameters and 16.2 G multiply-accumulates per 256x256, width 64 116.0 M and 63.6 G.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle

from denoisenets.contract import Contract, pyramid_contract
from denoisenets.layers import ChannelNorm, FrameMean, conv1x1, conv3x3, initialise

_DOWN = (1, 1, 2, 4)


def contract(*, depth: int, levels: int, **_: object) -> Contract:
    """Each block has one depthwise 3x3 convolution; the first and last convolutions see one pixel further each."""
    blocks = pyramid_contract(levels=levels, fine=0, deepest=6 * depth)
    fine = sum((_blocks_down(level) + 1) * depth * 2**level for level in range(levels))
    return Contract(size=blocks.size, receptive_radius=blocks.receptive_radius + fine + 2, global_statistics=True)


def _blocks_down(level: int) -> int:
    return _DOWN[min(level, len(_DOWN) - 1)]


class Gate(nn.Module):
    """SimpleGate: one half of the channels times the other."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, 2C, H, W) -> (B, C, H, W)."""
        a, b = x.chunk(2, dim=1)
        return a * b


class SimplifiedChannelAttention(nn.Module):
    """Each channel times a linear function of all channels' means."""

    def __init__(self, channels: int, scale: int) -> None:
        super().__init__()
        self.mean = FrameMean(scale)
        self.weigh = conv1x1(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return x * self.mean.spread(self.weigh(self.mean(x)), x)


class Block(nn.Module):
    """One NAFNet block of `channels` features at 1 / `scale` of the photo's sides."""

    def __init__(self, channels: int, scale: int) -> None:
        super().__init__()
        wide = 2 * channels
        self.mix = nn.Sequential(
            ChannelNorm(channels),
            conv1x1(channels, wide),
            nn.Conv2d(wide, wide, kernel_size=3, padding=1, groups=wide),
            Gate(),
            SimplifiedChannelAttention(channels, scale),
            conv1x1(channels, channels),
        )
        self.feed = nn.Sequential(ChannelNorm(channels), conv1x1(channels, wide), Gate(), conv1x1(channels, channels))
        # From zero, as the paper has it: each block begins as the identity.
        self.beta = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.gamma = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        x = x + self.mix(x) * self.beta
        out: Tensor = x + self.feed(x) * self.gamma
        return out


def blocks(channels: int, scale: int, count: int) -> nn.Sequential:
    """`count` blocks one after the other."""
    return nn.Sequential(*[Block(channels, scale) for _ in range(count)])


class NAFNet(nn.Module):
    """`levels` halvings, `width` features at full size and twice as many after each; `depth` as in the file's header."""

    def __init__(self, *, width: int = 32, depth: int = 2, levels: int = 4) -> None:
        super().__init__()
        features = [width * 2**level for level in range(levels + 1)]
        self.first = conv3x3(3, width)
        self.down = nn.ModuleList(
            [blocks(f, 2**level, _blocks_down(level) * depth) for level, f in enumerate(features[:-1])]
        )
        self.halve = nn.ModuleList([nn.Conv2d(f, 2 * f, kernel_size=2, stride=2) for f in features[:-1]])
        self.deepest = blocks(features[-1], 2**levels, 6 * depth)
        self.widen = nn.ModuleList([conv1x1(2 * f, 4 * f, bias=False) for f in features[:-1]])
        self.up = nn.ModuleList([blocks(f, 2**level, depth) for level, f in enumerate(features[:-1])])
        self.last = conv3x3(width, 3)
        initialise(self, added=[self.last], rectified=False)

    def forward(self, noisy: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 3, H, W)."""
        x = self.first(noisy)
        kept: list[Tensor] = []
        for down, halve in zip(self.down, self.halve, strict=True):
            kept.append(down(x))
            x = halve(kept[-1])  # (B, C, H, W) -> (B, 2C, H/2, W/2)
        x = self.deepest(x)
        for widen, up in zip(reversed(self.widen), reversed(self.up), strict=True):
            x = up(pixel_shuffle(widen(x), 2) + kept.pop())  # (B, 2C, H/2, W/2) -> (B, C, H, W)
        clean: Tensor = noisy + self.last(x)
        return clean
