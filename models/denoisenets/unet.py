"""U-Net (Ronneberger, Fischer and Brox, 2015, arXiv:1505.04597), a common baseline, as a denoiser.

`depth` 3x3 convolutions with ReLUs at each level, 2x2 maximum pooling and doubled features in the
encoder, 2x2 transposed convolutions in the decoder, which concatenates the encoder's features. A
last 1x1 convolution is added to the input. Layers are named as in
mateuszbuda/brain-segmentation-pytorch as far as the number of levels, an argument here, allows.
Shapes: B batch, H W pixels, which must be multiples of 2 ** levels.

Differs from the paper:
- Convolutions are padded, so that the output has the input's size; three channels in and out; the
  input is added; no dropout.
- Half the paper's width by default, which suffices for denoising.

Checked against: width 64 has the paper's 31.0 M parameters.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool2d

from denoisenets.contract import Contract, pyramid_contract
from denoisenets.layers import conv1x1, conv3x3, initialise


def contract(*, depth: int, levels: int, **_: object) -> Contract:
    """`depth` convolutions each in the encoder and the decoder at each level, `depth` at the
    deepest.
    """
    return pyramid_contract(levels=levels, fine=2 * depth, deepest=depth)


def conv_block(inputs: int, features: int, depth: int) -> nn.Sequential:
    """`depth` convolutions from `inputs` to `features` channels, each followed by a ReLU."""
    layers: list[nn.Module] = []
    for i in range(depth):
        layers += [conv3x3(inputs if i == 0 else features, features), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


class EncoderDecoder(nn.Module):
    """A U-Net without its last convolution: (B, inputs, H, W) -> (B, width, H, W); H and W are
    multiples of 2 ** levels.

    `width` features at full size, doubled by each halving; `encoder_depth` convolutions at each
    level of the encoder and at the deepest level, `decoder_depth` at each level of the decoder.
    """

    def __init__(
        self, *, inputs: int, width: int, encoder_depth: int, decoder_depth: int, levels: int
    ) -> None:
        super().__init__()
        features = [width * 2**level for level in range(levels + 1)]
        self.encoders = nn.ModuleList(
            [
                conv_block(c, f, encoder_depth)
                for c, f in zip([inputs, *features[:-2]], features[:-1], strict=True)
            ]
        )
        self.bottleneck = conv_block(features[-2], features[-1], encoder_depth)
        self.upconvs = nn.ModuleList(
            [nn.ConvTranspose2d(2 * f, f, kernel_size=2, stride=2) for f in features[:-1]]
        )
        self.decoders = nn.ModuleList([conv_block(2 * f, f, decoder_depth) for f in features[:-1]])

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, width, H, W)."""
        skips: list[Tensor] = []
        for encoder in self.encoders:
            skips.append(encoder(x))
            x = max_pool2d(skips[-1], 2)  # (B, F, H, W) -> (B, F, H/2, W/2)
        x = self.bottleneck(x)
        for upconv, decoder in zip(reversed(self.upconvs), reversed(self.decoders), strict=True):
            # (B, 2F, H/2, W/2) -> (B, F, H, W)
            x = decoder(torch.cat([upconv(x), skips.pop()], dim=1))
        return x


class UNet(nn.Module):
    """`levels` halvings of the sides, `depth` convolutions per level; `width` features at full
    size.
    """

    def __init__(self, *, width: int = 32, depth: int = 2, levels: int = 4) -> None:
        super().__init__()
        self.body = EncoderDecoder(
            inputs=3, width=width, encoder_depth=depth, decoder_depth=depth, levels=levels
        )
        self.conv = conv1x1(width, 3)
        initialise(self, residual=[self.conv])

    def forward(self, noisy: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 3, H, W)."""
        clean: Tensor = noisy + self.conv(self.body(noisy))
        return clean
