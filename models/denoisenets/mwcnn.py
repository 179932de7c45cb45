"""MWCNN, version 1: multi-level wavelet CNN (Liu, Zhang, Zhang, Lin and Zuo, 2018, arXiv:1805.07071).

A U-Net whose pooling is the Haar analysis and whose upsampling is its inverse, so that nothing is lost on the way down.
The analysis comes first; three levels of 160, 256 and 256 features with four 3x3 convolutions on each way; what comes up is
added to what went down; the result is added to the input.
Shapes: B batch, H W pixels, which must be multiples of 2 ** levels.

Differs from the paper:
- No batch normalisation: its statistics would make the gradient depend on how a batch is spread over workers, and with
  the initialisation of `layers.initialise` training does without.
- `width` scales all levels together: level 1 has `width` features, the deeper ones 1.6 times as many (160 -> 256).

Checked against: 24 convolutions, 16.2 M parameters, 58.2 G multiply-accumulates per 256x256. The seed article's variant
(`mwcnn_article`) has a fourth level, of 256 features, and so 32 convolutions; its size was not published.
"""

from torch import Tensor, nn

from denoisenets.contract import Contract, SizeContract
from denoisenets.layers import conv3x3, haar_analysis, haar_synthesis, initialise


def contract(*, depth: int, levels: int, **_: object) -> Contract:
    """Each 3x3 convolution at level k sees 2 ** k pixels further; each Haar block adds up to 2 ** k - 1 in all."""
    side = 2**levels
    radius = sum(2 * depth * 2**k for k in range(1, levels + 1)) + side
    return Contract(size=SizeContract(minimum=side, multiple=side), receptive_radius=radius)


def stage(inputs: int, features: int, outputs: int, depth: int, *, linear_end: bool) -> nn.Sequential:
    """`depth` convolutions from `inputs` over `features` to `outputs` channels, each followed by a ReLU.

    With `linear_end` the last one has no ReLU: its output is wavelet coefficients, which have signs.
    """
    layers: list[nn.Module] = []
    for i in range(depth):
        layers.append(conv3x3(inputs if i == 0 else features, outputs if i == depth - 1 else features))
        if not (linear_end and i == depth - 1):
            layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


class MWCNN(nn.Module):
    """`levels` wavelet levels with `depth` convolutions on each way; `width` features at level 1."""

    def __init__(self, *, width: int = 160, depth: int = 4, levels: int = 3) -> None:
        super().__init__()
        features = [width] + [round(width * 1.6)] * (levels - 1)
        inputs = [3, *features[:-1]]
        self.down = nn.ModuleList(
            [stage(4 * c, f, f, depth, linear_end=False) for c, f in zip(inputs, features, strict=True)]
        )
        self.up = nn.ModuleList([stage(f, f, 4 * c, depth, linear_end=True) for c, f in zip(inputs, features, strict=True)])
        initialise(self, added=[[m for m in up.modules() if isinstance(m, nn.Conv2d)][-1] for up in self.up])

    def forward(self, noisy: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 3, H, W)."""
        kept: list[Tensor] = []
        x = noisy
        for down in self.down:
            kept.append(x)
            x = down(haar_analysis(x))  # (B, C, H, W) -> (B, 4C, H/2, W/2) -> (B, F, H/2, W/2)
        for up in reversed(self.up):
            x = kept.pop() + haar_synthesis(up(x))  # (B, F, H/2, W/2) -> (B, C, H, W)
        return x
