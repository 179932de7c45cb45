"""FFDNet: a fast and flexible network with the noise level as input (Zhang, Zuo and Zhang, 2018,
arXiv:1710.04026).

Pixel unshuffle divides the photo into four sub-images of half the size. Together with a map of the
noise level they pass a plain stack of 3x3 convolutions, whose output pixel shuffle joins again.
Layers are named as in cszn/KAIR. Shapes: B batch, H W pixels, which must be even.

Differs from the paper:
- The noise level is optional; without it, it is estimated from the photo, see
  `layers.estimate_noise_level`.
- The output of the convolutions is added to the sub-images (`residual=True`), so that training
  needs hundreds of steps for useful weights. `residual=False` is the paper's direct mapping, which
  the authors' published weights need.
- No batch normalisation, whose statistics would make the gradient depend on how a batch is
  distributed over workers.

Checked against: the authors' merged colour model, 852,108 parameters.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from denoisenets.contract import Contract, SizeContract
from denoisenets.layers import (
    GlobalAveragePool,
    conv3x3,
    estimate_noise_level,
    in_float32,
    initialise,
)


def contract(*, depth: int, **_: object) -> Contract:
    """Even sizes; each convolution widens the receptive radius by two pixels, and the estimate of
    the noise level depends on the whole image.
    """
    return Contract(
        size=SizeContract(minimum=2, multiple=2),
        receptive_radius=2 * depth + 1,
        global_statistics=True,
    )


class FFDNet(nn.Module):
    """`depth` convolutions at half the size with `width` features between them."""

    def __init__(self, *, width: int = 96, depth: int = 12, residual: bool = True) -> None:
        super().__init__()
        self.residual = residual
        self.pool = GlobalAveragePool(scale=2)
        layers: list[nn.Module] = []
        for i in range(depth - 1):
            layers += [conv3x3(4 * 3 + 1 if i == 0 else width, width), nn.ReLU(inplace=True)]
        layers.append(conv3x3(width if depth > 1 else 4 * 3 + 1, 4 * 3))
        self.model = nn.Sequential(*layers)
        initialise(self, residual=[self.model[-1]] if residual else [])

    def forward(self, noisy: Tensor, noise_level: Tensor | None = None) -> Tensor:
        """(B, 3, H, W) -> (B, 3, H, W).

        `noise_level` is a standard deviation in [0, 1]: (B, 1, 1, 1), or a map at half the size,
        (B, 1, H/2, W/2). None estimates it.
        """
        sub_images = pixel_unshuffle(noisy, 2)  # (B, 3, H, W) -> (B, 12, H/2, W/2)
        level = self.estimate_noise_level(noisy) if noise_level is None else noise_level
        level_map = level.to(sub_images.dtype).expand(
            sub_images.shape[0], 1, *sub_images.shape[-2:]
        )
        features = self.model[:-1](torch.cat([sub_images, level_map], dim=1))
        clean: Tensor = (
            sub_images + self.model[-1](features)
            if self.residual
            else in_float32(self.model[-1], features)
        )
        return pixel_shuffle(clean, 2)  # (B, 12, H/2, W/2) -> (B, 3, H, W)

    def estimate_noise_level(self, noisy: Tensor) -> Tensor:
        """Standard deviation of the noise: (B, 3, H, W) -> (B, 1, 1, 1), or with local statistics a
        map, (B, 1, H/2, W/2).
        """
        return estimate_noise_level(noisy, self.pool)
