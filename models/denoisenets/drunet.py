"""DRUNet: a U-Net of residual blocks with the noise level as input (Zhang, Li, Zuo, Zhang, Van Gool
and Timofte, 2021, "Plug-and-play image restoration with deep denoiser prior", arXiv:2008.13751).

The photo and a map of the noise level enter as four channels. Each level has residual blocks of two
3x3 convolutions with a ReLU between; 2x2 convolutions of stride 2 downsample, 2x2 transposed
convolutions upsample; skips are added. No layer has a bias. Layers are named as in cszn/KAIR
(`UNetRes`). Shapes: B batch, H W pixels, which must be multiples of 2 ** levels.

Differs from the paper:
- The noise level is optional; without it, it is estimated from the photo, see
  `layers.estimate_noise_level`.
- The input is added to the output (`residual=True`), so that training needs hundreds of steps for
  useful weights. `residual=False` is the paper's direct mapping, which the authors' published
  weights need.

Checked against: the authors' colour model, 32.64 M parameters.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from denoisenets.contract import Contract, pyramid_contract
from denoisenets.layers import GlobalAveragePool, estimate_noise_level, in_float32, initialise


def contract(*, depth: int, levels: int, **_: object) -> Contract:
    """`depth` blocks of two 3x3 convolutions each in the encoder and the decoder at each level, and
    at the deepest level; the estimate of the noise level depends on the whole image.
    """
    blocks = pyramid_contract(levels=levels, fine=4 * depth, deepest=2 * depth)
    return Contract(
        size=blocks.size, receptive_radius=blocks.receptive_radius + 2, global_statistics=True
    )


def conv3x3(inputs: int, outputs: int) -> nn.Conv2d:
    """A 3x3 convolution without bias that preserves height and width."""
    return nn.Conv2d(inputs, outputs, kernel_size=3, padding=1, bias=False)


class ResBlock(nn.Module):
    """Two convolutions with a ReLU between, added to their input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.res = nn.Sequential(
            conv3x3(channels, channels), nn.ReLU(inplace=True), conv3x3(channels, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        out: Tensor = x + self.res(x)
        return out


class DRUNet(nn.Module):
    """`levels` halvings of the sides; `width` features at full size, doubled by each halving;
    `depth` residual blocks per level.
    """

    def __init__(
        self, *, width: int = 64, depth: int = 4, levels: int = 3, residual: bool = True
    ) -> None:
        super().__init__()
        self.levels, self.residual = levels, residual
        self.pool = GlobalAveragePool(scale=2)
        features = [width * 2**level for level in range(levels + 1)]

        def blocks(channels: int) -> list[nn.Module]:
            return [ResBlock(channels) for _ in range(depth)]

        self.m_head = conv3x3(3 + 1, width)
        for level, f in enumerate(features[:-1], start=1):
            down = nn.Conv2d(f, 2 * f, kernel_size=2, stride=2, bias=False)
            self.add_module(f"m_down{level}", nn.Sequential(*blocks(f), down))
        self.m_body = nn.Sequential(*blocks(features[-1]))
        for level, f in reversed(list(enumerate(features[:-1], start=1))):
            up = nn.ConvTranspose2d(2 * f, f, kernel_size=2, stride=2, bias=False)
            self.add_module(f"m_up{level}", nn.Sequential(up, *blocks(f)))
        self.m_tail = conv3x3(width, 3)
        added = [block.res[2] for block in self.modules() if isinstance(block, ResBlock)]
        # Few layers have a ReLU after them: without bias the features keep their scale.
        initialise(self, residual=[*added, *([self.m_tail] if residual else [])], rectified=False)

    def forward(self, noisy: Tensor, noise_level: Tensor | None = None) -> Tensor:
        """(B, 3, H, W) -> (B, 3, H, W).

        `noise_level` is a standard deviation in [0, 1]: (B, 1, 1, 1), or a map, (B, 1, H, W). None
        estimates it.
        """
        level = self.estimate_noise_level(noisy) if noise_level is None else noise_level
        level_map = level.to(noisy.dtype).expand(noisy.shape[0], 1, *noisy.shape[-2:])
        skips = [self.m_head(torch.cat([noisy, level_map], dim=1))]  # (B, 4, H, W) -> (B, C, H, W)
        for number in range(1, self.levels + 1):
            # (B, C, H, W) -> (B, 2C, H/2, W/2)
            skips.append(self.get_submodule(f"m_down{number}")(skips[-1]))
        x = self.m_body(skips[-1])
        for number in range(self.levels, 0, -1):
            # (B, 2C, H/2, W/2) -> (B, C, H, W)
            x = self.get_submodule(f"m_up{number}")(x + skips.pop())
        x = x + skips.pop()
        return noisy + self.m_tail(x) if self.residual else in_float32(self.m_tail, x)

    def estimate_noise_level(self, noisy: Tensor) -> Tensor:
        """Standard deviation of the noise: (B, 3, H, W) -> (B, 1, 1, 1), or with local statistics a
        map, (B, 1, H, W).
        """
        level = estimate_noise_level(noisy, self.pool)
        return level if self.pool.window is None else interpolate(level, scale_factor=2.0)
