"""FFDNet: a fast and flexible network told the noise level (Zhang, Zuo and Zhang, 2018, arXiv:1710.04026).

The photo is cut into four sub-photos of half the size, a map of the noise level goes beside them, and a plain stack of 3x3
convolutions gives the four clean sub-photos, which are put together again.
Shapes: B batch, H W pixels, which must be even.

Differs from the paper:
- The noise level is a second input that may be left out. It is then estimated from the photo itself, as the mean
  magnitude of the finest diagonal wavelet band, whose expectation for Gaussian noise is sqrt(2 / pi) times its standard
  deviation; texture makes it a little too high, in training as in use. So the network is trained on photos whose noise
  level nobody knows.
- What the convolutions give is added to the sub-photos (`residual=True`), so that useful weights come after hundreds
  of steps. `residual=False` gives the paper's direct mapping.
- No batch normalisation: its statistics would make the gradient depend on how a batch is spread over workers.

Checked against: the authors' merged colour model, 852,108 parameters.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from denoisenets.contract import Contract, SizeContract
from denoisenets.layers import FrameMean, conv3x3, haar_analysis, initialise


def contract(*, depth: int, **_: object) -> Contract:
    """Each convolution sees two pixels of the photo further; the estimated noise level comes from the whole frame."""
    return Contract(size=SizeContract(minimum=2, multiple=2), receptive_radius=2 * depth + 1, global_statistics=True)


class FFDNet(nn.Module):
    """`depth` convolutions, of `width` features between them, at half the size."""

    def __init__(self, *, width: int = 96, depth: int = 12, residual: bool = True) -> None:
        super().__init__()
        self.residual = residual
        self.mean = FrameMean(scale=2)
        layers: list[nn.Module] = []
        for i in range(depth - 1):
            layers += [conv3x3(4 * 3 + 1 if i == 0 else width, width), nn.ReLU(inplace=True)]
        layers.append(conv3x3(width if depth > 1 else 4 * 3 + 1, 4 * 3))
        self.layers = nn.Sequential(*layers)
        initialise(self, added=[self.layers[-1]] if residual else [])

    def forward(self, noisy: Tensor, noise_level: Tensor | None = None) -> Tensor:
        """(B, 3, H, W) -> (B, 3, H, W); `noise_level` is a standard deviation in [0, 1].

        It is (B, 1, 1, 1), or a map of it at half the size, (B, 1, H/2, W/2).
        """
        parts = pixel_unshuffle(noisy, 2)  # (B, 3, H, W) -> (B, 12, H/2, W/2)
        level = self.estimate(noisy) if noise_level is None else noise_level
        told = level.to(parts.dtype).expand(parts.shape[0], 1, *parts.shape[-2:])
        clean = self.layers(torch.cat([parts, told], dim=1))
        if self.residual:
            clean = parts + clean
        return pixel_shuffle(clean, 2)  # (B, 12, H/2, W/2) -> (B, 3, H, W)

    def estimate(self, noisy: Tensor) -> Tensor:
        """The standard deviation of the noise: (B, 3, H, W) -> (B, 1, 1, 1), or a map of it where means are local."""
        _, _, _, diagonal = haar_analysis(noisy).chunk(4, dim=1)  # (B, 3, H/2, W/2)
        magnitude = diagonal.abs().mean(dim=1, keepdim=True) * math.sqrt(math.pi / 2)
        return self.mean.spread(self.mean(magnitude), magnitude)
