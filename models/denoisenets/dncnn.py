"""DnCNN: beyond a Gaussian denoiser (Zhang, Zuo, Chen, Meng and Zhang, 2017, arXiv:1608.03981).

A plain stack of 3x3 convolutions of one width with ReLUs between them. Its output is subtracted
from the input, so that it learns the noise. The defaults are CDnCNN-B: 20 layers for colour and
unknown noise levels. Layers are named as in cszn/KAIR (`act_mode="R"`). Shapes: B batch, H W
pixels; H and W are the same in every layer.

Differs from the paper:
- No batch normalisation, whose statistics would make the gradient depend on how a batch is
  distributed over workers. The authors also publish their later models without it, merged into the
  convolutions.

Checked against: the authors' merged colour model, 668,227 parameters.
"""

from torch import Tensor, nn

from denoisenets.contract import Contract
from denoisenets.layers import conv3x3, initialise


def contract(*, depth: int, **_: object) -> Contract:
    """All sizes; each 3x3 convolution widens the receptive radius by one pixel."""
    return Contract(receptive_radius=depth)


class DnCNN(nn.Module):
    """`depth` convolutions with `width` features between them."""

    def __init__(self, *, width: int = 64, depth: int = 20) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i in range(depth - 1):
            layers += [conv3x3(3 if i == 0 else width, width), nn.ReLU(inplace=True)]
        layers.append(conv3x3(width if depth > 1 else 3, 3))
        self.model = nn.Sequential(*layers)
        initialise(self, residual=[self.model[-1]])

    def forward(self, noisy: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 3, H, W)."""
        clean: Tensor = noisy - self.model(noisy)
        return clean
