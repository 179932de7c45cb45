"""Fast: a residual U-Net that learns most per second of training; this project's own.

A U-shaped network of residual blocks with strided convolutions down, transposed convolutions up and
additive skips, after the idea of DRUNet (Zhang et al., 2021, arXiv:2008.13751). Shapes: B batch, C
features, H W pixels, which must be multiples of 2 ** levels.

Differs from DRUNet:
- Two residual blocks per level instead of four, half the features or fewer, and biases.
- No map of the noise level: the network estimates the noise from the photo.
- The input is added to the output, and each residual block starts close to the identity, so that
  training needs hundreds of steps for useful weights.

docs/results.md compares it with the other networks and with the variants that were tried, at equal
time of training.
"""

from torch import Tensor, nn

from denoisenets.contract import Contract, pyramid_contract
from denoisenets.layers import conv3x3, initialise


def contract(*, depth: int, levels: int, **_: object) -> Contract:
    """Two convolutions per residual block, `depth` blocks in encoder and decoder of each level; the
    first and the last convolution widen the receptive radius by one pixel each.
    """
    blocks = pyramid_contract(levels=levels, fine=4 * depth, deepest=2 * depth)
    return Contract(size=blocks.size, receptive_radius=blocks.receptive_radius + 2)


class ResidualBlock(nn.Module):
    """x + conv(relu(conv(x)))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(channels, channels)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = conv3x3(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        out: Tensor = x + self.conv2(self.relu(self.conv1(x)))
        return out


def residual_blocks(channels: int, depth: int) -> nn.Sequential:
    """`depth` residual blocks in sequence."""
    return nn.Sequential(*[ResidualBlock(channels) for _ in range(depth)])


class Fast(nn.Module):
    """`levels` halvings of the sides; `width` features at full size, doubled by each halving;
    `depth` residual blocks per level in the encoder, at the deepest level, and in the decoder.
    """

    def __init__(self, *, width: int = 24, depth: int = 2, levels: int = 3) -> None:
        super().__init__()
        features = [width * 2**level for level in range(levels + 1)]
        self.head = conv3x3(3, width)
        self.encoders = nn.ModuleList([residual_blocks(f, depth) for f in features[:-1]])
        self.downs = nn.ModuleList(
            [nn.Conv2d(f, 2 * f, kernel_size=2, stride=2) for f in features[:-1]]
        )
        self.body = residual_blocks(features[-1], depth)
        self.ups = nn.ModuleList(
            [nn.ConvTranspose2d(2 * f, f, kernel_size=2, stride=2) for f in features[:-1]]
        )
        self.decoders = nn.ModuleList([residual_blocks(f, depth) for f in features[:-1]])
        self.tail = conv3x3(width, 3)
        blocks = [layer for layer in self.modules() if isinstance(layer, ResidualBlock)]
        initialise(self, residual=[self.tail, *[block.conv2 for block in blocks]])

    def forward(self, noisy: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 3, H, W)."""
        x = self.head(noisy)
        skips: list[Tensor] = []
        for encoder, down in zip(self.encoders, self.downs, strict=True):
            skips.append(encoder(x))
            x = down(skips[-1])  # (B, C, H, W) -> (B, 2C, H/2, W/2)
        x = self.body(x)
        for up, decoder in zip(reversed(self.ups), reversed(self.decoders), strict=True):
            x = decoder(up(x) + skips.pop())  # (B, 2C, H/2, W/2) -> (B, C, H, W)
        clean: Tensor = noisy + self.tail(x)
        return clean
