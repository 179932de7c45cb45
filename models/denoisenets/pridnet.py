"""PRIDNet: pyramid real image denoising network (Zhao, Jiang, Men and Han, 2019, arXiv:1908.00273).

Three stages. Noise estimation: four 3x3 convolutions of 32 features, a channel attention, and a
fifth convolution to three channels, concatenated with the input. Pyramid: five branches take these
six channels averaged over squares of 1, 2, 4, 8 and 16 pixels, each through its own U-Net, and
interpolate the result back to full size. Fusion: a selective kernel module with convolutions of 3,
5 and 7 pixels over all branches and the six channels; a last 3x3 convolution. The authors published
TensorFlow code alone: the attention has the names of senet.pytorch, the selective kernel module
those of pppLang/SKNet. Shapes: B batch, H W pixels, which must be multiples of 2 ** (scales - 1 +
levels): 256 for the paper's.

Differs from the paper:
- The input is added to the output (`residual=True`), so that training needs hundreds of steps for
  useful weights; `residual=False` is the paper's direct mapping.
- The paper does not give the depth of the U-Nets: four convolutions at each level of the encoder
  and three of the decoder (`depth` and `depth` - 1) match its number of parameters.

Checked against: 74.2 M parameters, 31.8 G multiply-accumulates per 256x256; pooling of 1, 2, 4, 8,
16. The variant `pridnet_article`, of the article that the project starts from, has twice the width,
about 290 M parameters.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, relu

from denoisenets.contract import Contract, SizeContract, pyramid_contract
from denoisenets.layers import GlobalAveragePool, conv1x1, conv3x3, in_float32, initialise
from denoisenets.unet import EncoderDecoder, conv_block

_NOISE_FEATURES = 32
_NOISE_DEPTH = 4
_REDUCED = 2


def contract(*, depth: int, levels: int, scales: int, **_: object) -> Contract:
    """The coarsest branch has the widest receptive field: its U-Net's radius times its pooling,
    widened by the stages before and after.
    """
    pooling = 2 ** (scales - 1)
    branch = pyramid_contract(levels=levels, fine=2 * depth - 1, deepest=depth)
    side = pooling * branch.size.multiple
    noise_estimation, fusion = _NOISE_DEPTH + 1, 3 + 1
    radius = noise_estimation + (branch.receptive_radius + 2) * pooling + fusion
    return Contract(
        size=SizeContract(minimum=side, multiple=side),
        receptive_radius=radius,
        global_statistics=True,
    )


class ChannelAttention(nn.Module):
    """Scales channels by a function of all channels' means (Hu et al., 2018,
    "Squeeze-and-excitation networks", arXiv:1709.01507).
    """

    def __init__(self, channels: int, reduced: int) -> None:
        super().__init__()
        self.avg_pool = GlobalAveragePool()
        self.fc = nn.Sequential(
            conv1x1(channels, reduced),
            nn.ReLU(inplace=True),
            conv1x1(reduced, channels),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        return x * self.avg_pool.upsample(self.fc(self.avg_pool(x)), x)


class SelectiveKernel(nn.Module):
    """Convolutions of 3, 5 and 7 pixels with attention over them per channel (Li et al., 2019,
    "Selective kernel networks", arXiv:1903.06586).
    """

    def __init__(self, channels: int, reduced: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            [nn.Conv2d(channels, channels, kernel_size=k, padding=k // 2) for k in (3, 5, 7)]
        )
        self.gap = GlobalAveragePool()
        self.fc = conv1x1(channels, reduced)
        self.fcs = nn.ModuleList([conv1x1(reduced, channels) for _ in self.convs])

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        features = [relu(conv(x)) for conv in self.convs]
        squeezed = relu(self.fc(self.gap(features[0] + features[1] + features[2])))  # (B, R, 1, 1)
        attention = torch.stack([fc(squeezed) for fc in self.fcs]).softmax(dim=0)  # (3, B, C, 1, 1)
        # A loop instead of one stacked product: the three products need not exist at once.
        out = features[0] * self.gap.upsample(attention[0], x)
        for feature, weight in zip(features[1:], attention[1:], strict=True):
            out = out + feature * self.gap.upsample(weight, x)
        return out


class Branch(nn.Module):
    """One scale of the pyramid: average pooling over `pooling` pixels, a U-Net, and interpolation
    back to full size.
    """

    def __init__(self, pooling: int, *, inputs: int, width: int, depth: int, levels: int) -> None:
        super().__init__()
        self.pooling = pooling
        self.unet = EncoderDecoder(
            inputs=inputs,
            width=width,
            encoder_depth=depth,
            decoder_depth=max(depth - 1, 1),
            levels=levels,
        )
        self.conv = conv1x1(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, 3, H, W)."""
        pooled = avg_pool2d(x, self.pooling) if self.pooling > 1 else x
        coarse: Tensor = self.conv(self.unet(pooled))  # (B, 3, H/pooling, W/pooling)
        if self.pooling == 1:
            return coarse
        return interpolate(coarse, scale_factor=self.pooling, mode="bilinear", align_corners=False)


class PRIDNet(nn.Module):
    """`scales` branches of U-Nets with `levels` halvings, `width` features at the size of the
    branch, and `depth` convolutions per level.
    """

    def __init__(
        self,
        *,
        width: int = 32,
        depth: int = 4,
        levels: int = 4,
        scales: int = 5,
        residual: bool = True,
    ) -> None:
        super().__init__()
        self.residual = residual
        self.noise_estimation = nn.Sequential(
            conv_block(3, _NOISE_FEATURES, _NOISE_DEPTH),
            ChannelAttention(_NOISE_FEATURES, _REDUCED),
            conv3x3(_NOISE_FEATURES, 3),
        )
        self.branches = nn.ModuleList(
            [
                Branch(2**scale, inputs=6, width=width, depth=depth, levels=levels)
                for scale in range(scales)
            ]
        )
        self.fusion = SelectiveKernel(3 * scales + 6, _REDUCED)
        self.conv = conv3x3(3 * scales + 6, 3)
        initialise(self, residual=[self.conv] if residual else [])

    def forward(self, noisy: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 3, H, W)."""
        x = torch.cat([noisy, self.noise_estimation(noisy)], dim=1)  # (B, 6, H, W)
        # (B, 3 * scales + 6, H, W)
        pyramid = torch.cat([x, *(branch(x) for branch in self.branches)], dim=1)
        fused = self.fusion(pyramid)
        return noisy + self.conv(fused) if self.residual else in_float32(self.conv, fused)
