"""REDNet: residual encoder-decoder network (Mao, Shen and Yang, 2016, arXiv:1606.08921).

n convolutions, then n transposed convolutions, all 3x3 with stride 1 and without pooling or normalisation. Every second
convolution is added to its mirror, with a ReLU before and after the sum; the last layer is linear.
Shapes: B batch, C features, H W pixels; H and W stay as they are throughout.

Differs from the paper:
- A transposed convolution of stride 1 is a convolution with the kernel transposed and turned by 180 degrees, so that
  a plain convolution stands for it: the same functions, the same size, faster on every backend.
- The input is added to the output (`residual=True`), so that the network learns the noise and useful weights come after
  hundreds of steps, not hundreds of thousands. `residual=False` gives the paper's direct mapping.

Checked against: parameters and multiply-accumulates for RGB and 64 features, RED10 0.30 M and 19.6 G per 256x256,
RED20 0.67 M and 43.7 G, RED30 1.04 M and 67.9 G.
"""

from torch import Tensor, nn
from torch.nn.functional import relu

from denoisenets.contract import Contract
from denoisenets.layers import conv3x3, initialise


def contract(*, depth: int, **_: object) -> Contract:
    """Takes all sizes; each of the 2 * depth convolutions of 3x3 sees one pixel further."""
    return Contract(receptive_radius=2 * depth)


class REDNet(nn.Module):
    """`depth` convolutions and `depth` mirrored ones, of `width` features each."""

    def __init__(self, *, width: int = 64, depth: int = 15, skips: bool = True, residual: bool = True) -> None:
        super().__init__()
        self.residual = residual
        # The mirror of convolution i (from 1) takes the output of decoder layer depth - i; the skip joins there.
        self.skipped = frozenset(range(2, depth, 2)) if skips else frozenset[int]()
        self.encoder = nn.ModuleList([conv3x3(3 if i == 0 else width, width) for i in range(depth)])
        self.decoder = nn.ModuleList([conv3x3(width, width if i < depth - 1 else 3) for i in range(depth)])
        initialise(self, added=[self.decoder[-1]] if residual else [])

    def forward(self, noisy: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 3, H, W)."""
        x = noisy
        kept: dict[int, Tensor] = {}
        for number, layer in enumerate(self.encoder, start=1):
            x = relu(layer(x))
            if number in self.skipped:
                kept[number] = x
        depth = len(self.decoder)
        for number, layer in enumerate(self.decoder, start=1):
            x = layer(x)
            if number == depth:
                break
            x = relu(x)
            mirror = depth - number
            if mirror in kept:
                x = relu(x + kept.pop(mirror))
        return noisy + x if self.residual else x
