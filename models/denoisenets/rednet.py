"""REDNet: residual encoder-decoder network (Mao, Shen and Yang, 2016, arXiv:1606.08921).

n convolutions, then n transposed convolutions, all 3x3 with stride 1, without pooling or
normalisation. The output of every second convolution is added to the output of its mirror, with a
ReLU before and after the sum; the last layer is linear. Layers are named as in
yjn870/REDNet-pytorch. Shapes: B batch, C features, H W pixels.

Differs from the paper:
- Plain convolutions replace the transposed ones. With stride 1 both compute the same functions with
  the same number of weights (kernels transposed and rotated by 180 degrees); plain convolutions are
  faster on every backend.
- The input is added to the output (`residual=True`), so that the network learns the noise and
  training needs hundreds of steps for useful weights, not hundreds of thousands. `residual=False`
  is the paper's direct mapping.
- `strided=True` is the variant of yjn870/REDNet-pytorch: the first convolution and the last,
  transposed one have stride 2, and a ReLU follows the sum with the input.

Checked against: parameters and multiply-accumulates for RGB and 64 features, RED10 0.30 M and 19.6
G per 256x256, RED20 0.67 M and 43.7 G, RED30 1.04 M and 67.9 G.
"""

from torch import Tensor, nn
from torch.nn.functional import relu

from denoisenets.contract import Contract, SizeContract
from denoisenets.layers import conv3x3, in_float32, initialise


def contract(*, depth: int, strided: bool, **_: object) -> Contract:
    """All sizes, with `strided` even ones; each of 2 * depth 3x3 convolutions widens the receptive
    radius by one pixel of its input.
    """
    if strided:
        return Contract(size=SizeContract(minimum=2, multiple=2), receptive_radius=4 * depth)
    return Contract(receptive_radius=2 * depth)


def _first(width: int, strided: bool) -> nn.Conv2d:
    stride = 2 if strided else 1
    return nn.Conv2d(3, width, kernel_size=3, stride=stride, padding=1)


def _last(width: int, strided: bool) -> nn.Conv2d | nn.ConvTranspose2d:
    if strided:
        return nn.ConvTranspose2d(width, 3, kernel_size=3, stride=2, padding=1, output_padding=1)
    return conv3x3(width, 3)


class REDNet(nn.Module):
    """`depth` convolutions and `depth` mirrored ones, of `width` features each."""

    def __init__(
        self,
        *,
        width: int = 64,
        depth: int = 15,
        skips: bool = True,
        residual: bool = True,
        strided: bool = False,
    ) -> None:
        super().__init__()
        self.residual, self.strided = residual, strided
        # The skip from convolution i (counted from 1) is added to the output of deconvolution
        # depth - i.
        self.skip_sources = frozenset(range(2, depth, 2)) if skips else frozenset[int]()
        self.conv_layers = nn.Sequential(
            *[
                nn.Sequential(
                    _first(width, strided) if i == 0 else conv3x3(width, width), nn.ReLU()
                )
                for i in range(depth)
            ]
        )
        self.deconv_layers = nn.Sequential(
            *[
                nn.Sequential(conv3x3(width, width), nn.ReLU(inplace=True))
                for _ in range(depth - 1)
            ],
            _last(width, strided),
        )
        initialise(self, residual=[self.deconv_layers[-1]] if residual else [])

    def forward(self, noisy: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 3, H, W)."""
        x = noisy
        skips: dict[int, Tensor] = {}
        for number, layer in enumerate(self.conv_layers, start=1):
            x = layer(x)
            if number in self.skip_sources:
                skips[number] = x
        depth = len(self.deconv_layers)
        for number, layer in enumerate(self.deconv_layers, start=1):
            direct = number == depth and not self.residual
            x = in_float32(layer, x) if direct else layer(x)
            if depth - number in skips:
                x = relu(x + skips.pop(depth - number))
        clean = noisy + x if self.residual else x
        return relu(clean) if self.strided else clean
