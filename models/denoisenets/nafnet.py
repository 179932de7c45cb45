"""NAFNet: nonlinear activation free network (Chen, Chu, Zhang and Sun, 2022, arXiv:2204.04676).

A U-Net whose blocks have no activation function: SimpleGate multiplies one half of the channels by
the other, and simplified channel attention scales channels by a linear function of their means. 2x2
convolutions of stride 2 downsample, 1x1 convolutions with pixel shuffle upsample; skips are added;
the result is added to the input. Layers are named as in megvii-research/NAFNet. Shapes: B batch, C
features, H W pixels, which must be multiples of 2 ** levels.

Differs from the paper: `depth` replaces its four lists of block counts: (1, 1, 2, 4) times `depth`
in the encoder, 6 times at the deepest level, 1 time at each level of the decoder; 2 is the paper's
36 blocks for SIDD.

Checked against: width 32 has 29.2 M parameters and 16.2 G multiply-accumulates per 256x256, width
64 116.0 M and 63.6 G.
"""

import torch
from torch import Tensor, nn

from denoisenets.contract import Contract, pyramid_contract
from denoisenets.layers import GlobalAveragePool, LayerNorm2d, conv1x1, conv3x3, initialise

_ENCODER_BLOCKS = (1, 1, 2, 4)


def contract(*, depth: int, levels: int, **_: object) -> Contract:
    """Each block has one depthwise 3x3 convolution; the first and last convolutions widen the
    receptive radius by one pixel each.
    """
    blocks = pyramid_contract(levels=levels, fine=0, deepest=6 * depth)
    fine = sum((_encoder_blocks(level) + 1) * depth * 2**level for level in range(levels))
    return Contract(
        size=blocks.size,
        receptive_radius=blocks.receptive_radius + fine + 2,
        global_statistics=True,
    )


def _encoder_blocks(level: int) -> int:
    return _ENCODER_BLOCKS[min(level, len(_ENCODER_BLOCKS) - 1)]


class SimpleGate(nn.Module):
    """One half of the channels times the other."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, 2C, H, W) -> (B, C, H, W)."""
        a, b = x.chunk(2, dim=1)
        return a * b


class SimplifiedChannelAttention(nn.Sequential):
    """Each channel times a linear function of all channels' means."""

    def __init__(self, channels: int, scale: int) -> None:
        super().__init__(GlobalAveragePool(scale), conv1x1(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        pool, convolution = self
        assert isinstance(pool, GlobalAveragePool)
        return x * pool.upsample(convolution(pool(x)), x)


class NAFBlock(nn.Module):
    """One NAFNet block of `channels` features at 1 / `scale` of the photo's sides."""

    def __init__(self, channels: int, scale: int) -> None:
        super().__init__()
        wide = 2 * channels
        self.norm1 = LayerNorm2d(channels)
        self.conv1 = conv1x1(channels, wide)
        self.conv2 = nn.Conv2d(wide, wide, kernel_size=3, padding=1, groups=wide)
        self.sg = SimpleGate()
        self.sca = SimplifiedChannelAttention(channels, scale)
        self.conv3 = conv1x1(channels, channels)
        self.norm2 = LayerNorm2d(channels)
        self.conv4 = conv1x1(channels, wide)
        self.conv5 = conv1x1(channels, channels)
        # Zero, as in the paper: each block starts as the identity.
        self.beta = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.gamma = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        x = x + self.conv3(self.sca(self.sg(self.conv2(self.conv1(self.norm1(x)))))) * self.beta
        out: Tensor = x + self.conv5(self.sg(self.conv4(self.norm2(x)))) * self.gamma
        return out


def blocks(channels: int, scale: int, count: int) -> nn.Sequential:
    """`count` blocks in sequence."""
    return nn.Sequential(*[NAFBlock(channels, scale) for _ in range(count)])


class NAFNet(nn.Module):
    """`levels` halvings of the sides; `width` features at full size, doubled by each halving;
    `depth` as in the module's docstring.
    """

    def __init__(self, *, width: int = 32, depth: int = 2, levels: int = 4) -> None:
        super().__init__()
        features = [width * 2**level for level in range(levels + 1)]
        self.intro = conv3x3(3, width)
        self.encoders = nn.ModuleList(
            [
                blocks(f, 2**level, _encoder_blocks(level) * depth)
                for level, f in enumerate(features[:-1])
            ]
        )
        self.downs = nn.ModuleList(
            [nn.Conv2d(f, 2 * f, kernel_size=2, stride=2) for f in features[:-1]]
        )
        self.middle_blks = blocks(features[-1], 2**levels, 6 * depth)
        # The reference numbers `ups` and `decoders` from the deepest level. They are registered
        # from full size down, the order in which `initialise` draws their weights.
        self.ups = nn.ModuleDict(
            {
                str(levels - 1 - level): nn.Sequential(
                    conv1x1(2 * f, 4 * f, bias=False), nn.PixelShuffle(2)
                )
                for level, f in enumerate(features[:-1])
            }
        )
        self.decoders = nn.ModuleDict(
            {
                str(levels - 1 - level): blocks(f, 2**level, depth)
                for level, f in enumerate(features[:-1])
            }
        )
        self.ending = conv3x3(width, 3)
        initialise(self, residual=[self.ending], rectified=False)

    def forward(self, noisy: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 3, H, W)."""
        x = self.intro(noisy)
        skips: list[Tensor] = []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            skips.append(encoder(x))
            x = down(skips[-1])  # (B, C, H, W) -> (B, 2C, H/2, W/2)
        x = self.middle_blks(x)
        for i in range(len(self.ups)):
            up, decoder = self.ups[str(i)], self.decoders[str(i)]
            x = decoder(up(x) + skips.pop())  # (B, 2C, H/2, W/2) -> (B, C, H, W)
        clean: Tensor = noisy + self.ending(x)
        return clean
