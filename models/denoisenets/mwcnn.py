"""MWCNN, version 1: multi-level wavelet CNN (Liu, Zhang, Zhang, Lin and Zuo, 2018,
arXiv:1805.07071).

A U-Net with the Haar analysis as pooling and its inverse as upsampling, so that downsampling loses
no information. The analysis comes first; three levels of 160, 256 and 256 features with four 3x3
convolutions each in the encoder and the decoder; skips are added; the result is added to the input.
Shapes: B batch, H W pixels, which must be multiples of 2 ** levels.

Differs from the paper:
- No batch normalisation, whose statistics would make the gradient depend on how a batch is
  distributed over workers; with the initialisation of `layers.initialise` training does not need
  it.
- `width` scales all levels together: level 1 has `width` features, the deeper ones 1.6 times as
  many (160 -> 256).
- The authors' PyTorch code, lpj0/MWCNN_PyTorch, numbers its layers for three levels (`d_l1`,
  `pro_l3`, `i_l2`); layers have the usual names of a U-Net here, and `published.py` converts its
  weights. They need `decoder_relu`, a ReLU at the end of each decoder but that at full size, and
  `per_channel`, because they are for grey photos.

Checked against: 24 convolutions, 16.2 M parameters, 58.2 G multiply-accumulates per 256x256. The
variant `mwcnn_article`, of the article that the project starts from, has a fourth level, of 256
features, and so 32 convolutions; its size was not published.
"""

from torch import Tensor, nn

from denoisenets.contract import Contract, SizeContract
from denoisenets.layers import conv3x3, haar_analysis, haar_synthesis, initialise


def contract(*, depth: int, levels: int, **_: object) -> Contract:
    """Each 3x3 convolution at level k widens the receptive radius by 2 ** k pixels; the Haar blocks
    of a level add up to 2 ** k - 1.
    """
    side = 2**levels
    radius = sum(2 * depth * 2**k for k in range(1, levels + 1)) + side
    return Contract(size=SizeContract(minimum=side, multiple=side), receptive_radius=radius)


def conv_block(
    inputs: int, features: int, outputs: int, depth: int, *, final_relu: bool
) -> nn.Sequential:
    """`depth` convolutions from `inputs` over `features` to `outputs` channels with ReLUs between.

    Without `final_relu` the outputs are signed, as wavelet coefficients are.
    """
    layers: list[nn.Module] = []
    for i in range(depth):
        layers.append(
            conv3x3(inputs if i == 0 else features, outputs if i == depth - 1 else features)
        )
        if final_relu or i < depth - 1:
            layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


class MWCNN(nn.Module):
    """`levels` wavelet levels with `depth` convolutions each in the encoder and the decoder;
    `width` features at level 1. `per_channel` applies a network for grey photos to each channel.
    """

    def __init__(
        self,
        *,
        width: int = 160,
        depth: int = 4,
        levels: int = 3,
        decoder_relu: bool = False,
        per_channel: bool = False,
    ) -> None:
        super().__init__()
        self.per_channel = per_channel
        features = [width] + [round(width * 1.6)] * (levels - 1)
        inputs = [1 if per_channel else 3, *features[:-1]]
        self.encoders = nn.ModuleList(
            [
                conv_block(4 * c, f, f, depth, final_relu=True)
                for c, f in zip(inputs, features, strict=True)
            ]
        )
        self.decoders = nn.ModuleList(
            [
                conv_block(f, f, 4 * c, depth, final_relu=decoder_relu and level > 0)
                for level, (c, f) in enumerate(zip(inputs, features, strict=True))
            ]
        )
        last_convolutions = [
            [layer for layer in decoder.modules() if isinstance(layer, nn.Conv2d)][-1]
            for decoder in self.decoders
        ]
        initialise(self, residual=last_convolutions)

    def forward(self, noisy: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 3, H, W)."""
        skips: list[Tensor] = []
        # A network for grey photos sees each channel as a photo: (B, 3, H, W) -> (3B, 1, H, W).
        x = noisy.flatten(0, 1).unsqueeze(1) if self.per_channel else noisy
        for encoder in self.encoders:
            skips.append(x)
            x = encoder(haar_analysis(x))  # (B, C, H, W) -> (B, 4C, H/2, W/2) -> (B, F, H/2, W/2)
        for decoder in reversed(self.decoders):
            x = skips.pop() + haar_synthesis(decoder(x))  # (B, F, H/2, W/2) -> (B, C, H, W)
        return x.reshape(noisy.shape)
