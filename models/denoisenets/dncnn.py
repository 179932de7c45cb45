"""DnCNN: beyond a Gaussian denoiser (Zhang, Zuo, Chen, Meng and Zhang, 2017, arXiv:1608.03981).

A plain stack of 3x3 convolutions of one width with ReLUs between; its output is taken from the input, so that it learns the
noise. As CDnCNN-B: 20 layers for colour and unknown noise.
Shapes: B batch, H W pixels; H and W stay as they are throughout.

Differs from the paper:
- No batch normalisation: its statistics would make the gradient depend on how a batch is spread over workers. Its authors
  ship their later models without it too, merged into the convolutions.

Checked against: the authors' merged colour model, 668,227 parameters.
"""

from torch import Tensor, nn

from denoisenets.contract import Contract
from denoisenets.layers import conv3x3, initialise


def contract(*, depth: int, **_: object) -> Contract:
    """Takes all sizes; each convolution of 3x3 sees one pixel further."""
    return Contract(receptive_radius=depth)


class DnCNN(nn.Module):
    """`depth` convolutions, of `width` features between them."""

    def __init__(self, *, width: int = 64, depth: int = 20) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i in range(depth - 1):
            layers += [conv3x3(3 if i == 0 else width, width), nn.ReLU(inplace=True)]
        layers.append(conv3x3(width if depth > 1 else 3, 3))
        self.noise = nn.Sequential(*layers)
        initialise(self, added=[self.noise[-1]])

    def forward(self, noisy: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 3, H, W)."""
        clean: Tensor = noisy - self.noise(noisy)
        return clean
