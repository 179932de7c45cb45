"""Restormer: efficient transformer for high-resolution image restoration (Zamir et al., 2022,
arXiv:2111.09881), in a small form.

Self-attention across channels instead of pixels: each output channel is a mixture of all channels,
weighted by the cosine similarity of their feature maps over the image, so that the cost is linear
in the number of pixels. A gated feed-forward network follows. Pixel unshuffle downsamples three
times, pixel shuffle upsamples three times, refinement blocks follow at full size, and the result is
added to the input. Layers are named as in swz30/Restormer. Shapes: B batch, C features, N heads,
D = C / N features of a head, H W pixels, which must be multiples of 8.

Differs from the paper:
- Small by default: width 24 instead of 48, and half the blocks. `depth` replaces the paper's lists:
  (2, 3, 3) times `depth` blocks at each level of the encoder and the decoder, 4 times at the
  deepest, 2 times for refinement; 2 is the paper's.
- Layer normalisation with bias by default; `bias_free` is the reference's "BiasFree", which its
  published denoisers need. `norm_epsilon_millionths` is 1 here, 10 in the reference.
- Heads 1, 2, 4 and 8 from full size down as in the paper; `width` is any even number.

Checked against: width 48 and depth 2 have 26.1 M parameters.
"""

from collections import OrderedDict
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, pad

from denoisenets.contract import Contract, pyramid_contract
from denoisenets.layers import (
    BiasFreeLayerNorm2d,
    GlobalAveragePool,
    LayerNorm2d,
    average_neighbouring_cells,
    conv1x1,
    initialise,
)

_LEVELS = 3
_BLOCKS = (2, 3, 3)
_EXPANSION = 2.66


def contract(*, depth: int, **_: object) -> Contract:
    """Each block has two depthwise 3x3 convolutions; each change of size has one more, and so has
    each end.
    """
    fine = sum(2 * 2 * count * depth * 2**level for level, count in enumerate(_BLOCKS))
    resampling = sum(2**level + 2 ** (level + 1) for level in range(_LEVELS))
    blocks = pyramid_contract(levels=_LEVELS, fine=0, deepest=2 * 4 * depth)
    refinement = 2 * 2 * depth
    radius = blocks.receptive_radius + fine + resampling + refinement + 2
    return Contract(size=blocks.size, receptive_radius=radius, global_statistics=True)


def depthwise_conv3x3(channels: int) -> nn.Conv2d:
    """A 3x3 convolution of each channel by itself."""
    return nn.Conv2d(channels, channels, kernel_size=3, padding=1, groups=channels, bias=False)


def nested(name: str, module: nn.Module) -> nn.Sequential:
    """A module as the child `name` of another one, as the reference nests it."""
    return nn.Sequential(OrderedDict([(name, module)]))


def conv3x3(inputs: int, outputs: int) -> nn.Conv2d:
    """A 3x3 convolution without bias that preserves height and width."""
    return nn.Conv2d(inputs, outputs, kernel_size=3, padding=1, bias=False)


def downsample(channels: int) -> nn.Sequential:
    """(B, C, H, W) -> (B, C/2, H, W) -> (B, 2C, H/2, W/2)."""
    convolution = conv3x3(channels, channels // 2)
    return nested("body", nn.Sequential(convolution, nn.PixelUnshuffle(2)))


def upsample(channels: int) -> nn.Sequential:
    """(B, C, H, W) -> (B, 2C, H, W) -> (B, C/2, 2H, 2W)."""
    convolution = conv3x3(channels, 2 * channels)
    return nested("body", nn.Sequential(convolution, nn.PixelShuffle(2)))


class Attention(nn.Module):
    """Multi-Dconv head transposed attention of `channels` features at 1 / `scale` of the photo's
    sides.
    """

    def __init__(self, channels: int, heads: int, scale: int) -> None:
        super().__init__()
        self.heads = heads
        self.pool = GlobalAveragePool(scale)
        """Holds the window of local statistics; attention computes its own sums."""
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = conv1x1(channels, 3 * channels, bias=False)
        self.qkv_dwconv = depthwise_conv3x3(3 * channels)
        self.project_out = conv1x1(channels, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        query, key, value = self.qkv_dwconv(self.qkv(x)).chunk(3, dim=1)
        attended = (
            self._global_attention(query, key, value)
            if self.pool.window is None
            else self._local_attention(query, key, value)
        )
        out: Tensor = self.project_out(attended)
        return out

    def _global_attention(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        batch, channels, height, width = value.shape
        query, key, value = (
            t.reshape(batch, self.heads, channels // self.heads, height * width)
            for t in (query, key, value)
        )
        products = query @ key.transpose(-2, -1)  # (B, N, D, HW), (B, N, HW, D) -> (B, N, D, D)
        weights = self._attention_weights(products, query.square().sum(-1), key.square().sum(-1))
        return (weights.to(value.dtype) @ value).reshape(batch, channels, height, width)

    def _attention_weights(
        self, products: Tensor, query_squares: Tensor, key_squares: Tensor
    ) -> Tensor:
        """The softmax of cosines times the temperature, (..., D, D), from products, (..., D, D),
        and sums of squares, (..., D).
        """
        lengths = query_squares.float().unsqueeze(-1) * key_squares.float().unsqueeze(-2)
        cosines = products.float() * lengths.clamp_min(1e-24).rsqrt()
        return (cosines * self.temperature).softmax(dim=-1)

    def _local_attention(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attention with weights from a window around each cell, interpolated between cells."""
        cell = self.pool.cell
        height, width = value.shape[-2:]
        down, right = -height % cell, -width % cell
        query, key = (
            self._to_cells(pad(t, (0, right, 0, down)), cell) for t in (query, key)
        )  # (B, h, w, N, D, cell * cell)
        products = self._window_sums(query @ key.transpose(-2, -1))  # (B, h, w, N, D, D)
        squares = [self._window_sums(t.square().sum(-1)) for t in (query, key)]
        weights = self._attention_weights(products, *squares).to(value.dtype)
        if cell == 1:
            return self._from_cells(weights @ self._to_cells(value, 1), 1)
        half = cell // 2
        shifted = pad(value, (half, right + half, half, down + half))
        attended = self._interpolated_product(weights, self._to_cells(shifted, cell), cell)
        out = self._from_cells(attended, cell)
        return out[..., half : half + height, half : half + width]

    def _window_sums(self, sums: Tensor) -> Tensor:
        """Sums per cell averaged over neighbouring cells: (B, h, w, ...) -> (B, h, w, ...)."""
        batch, rows, columns = sums.shape[:3]
        flat = sums.float().reshape(batch, rows, columns, -1).permute(0, 3, 1, 2)  # (B, ..., h, w)
        return average_neighbouring_cells(flat).permute(0, 2, 3, 1).reshape(sums.shape)

    def _interpolated_product(self, weights: Tensor, blocks: Tensor, cell: int) -> Tensor:
        """Attention weights, interpolated bilinearly between cell centres, times the values.

        `weights` is (B, h, w, N, D, D), one per cell. `blocks`, (B, h + 1, w + 1, N, D, cell *
        cell), are the values between the centres of four cells; beyond the outermost centres the
        outermost weights are repeated.
        """
        rows, columns = weights.shape[1:3]
        padded = torch.cat([weights[:, :1], weights, weights[:, -1:]], dim=1)
        padded = torch.cat([padded[:, :, :1], padded, padded[:, :, -1:]], dim=2)
        ramp = (torch.arange(cell, device=blocks.device, dtype=blocks.dtype) + 0.5) / cell
        attended = torch.zeros_like(blocks)
        for row, row_ramp in enumerate((1 - ramp, ramp)):
            for column, column_ramp in enumerate((1 - ramp, ramp)):
                bilinear = (row_ramp[:, None] * column_ramp[None, :]).flatten()  # (cell * cell,)
                corner = padded[:, row : row + rows + 1, column : column + columns + 1]
                attended = attended + (corner @ blocks) * bilinear
        return attended

    def _to_cells(self, x: Tensor, cell: int) -> Tensor:
        """(B, C, H, W) -> (B, H / cell, W / cell, N, D, cell * cell)."""
        batch, channels, height, width = x.shape
        x = x.reshape(
            batch, self.heads, channels // self.heads, height // cell, cell, width // cell, cell
        )
        return x.permute(0, 3, 5, 1, 2, 4, 6).flatten(-2)

    def _from_cells(self, x: Tensor, cell: int) -> Tensor:
        """The inverse of `_to_cells`."""
        batch, rows, columns, heads, depth, _ = x.shape
        x = x.reshape(batch, rows, columns, heads, depth, cell, cell).permute(0, 3, 4, 1, 5, 2, 6)
        return x.reshape(batch, heads * depth, rows * cell, columns * cell)


class FeedForward(nn.Module):
    """Gated-Dconv feed-forward network: GELU of one half of the channels times the other."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = int(channels * _EXPANSION)
        self.project_in = conv1x1(channels, 2 * hidden, bias=False)
        self.dwconv = depthwise_conv3x3(2 * hidden)
        self.project_out = conv1x1(hidden, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        a, b = self.dwconv(self.project_in(x)).chunk(2, dim=1)
        out: Tensor = self.project_out(gelu(a) * b)
        return out


class TransformerBlock(nn.Module):
    """One transformer block of `channels` features at 1 / `scale` of the photo's sides."""

    def __init__(
        self, channels: int, heads: int, scale: int, norm: Callable[[int], nn.Module]
    ) -> None:
        super().__init__()
        self.norm1 = nested("body", norm(channels))
        self.attn = Attention(channels, heads, scale)
        self.norm2 = nested("body", norm(channels))
        self.ffn = FeedForward(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        x = x.float()  # in bfloat16 the sum over all blocks would lose small terms
        x = x + self.attn(self.norm1(x))
        out: Tensor = x + self.ffn(self.norm2(x))
        return out


def transformer_blocks(
    features: int, level: int, count: int, norm: Callable[[int], nn.Module]
) -> nn.Sequential:
    """`count` blocks of 2 ** level heads, after `level` halvings of the sides."""
    scale = 2**level
    return nn.Sequential(*[TransformerBlock(features, scale, scale, norm) for _ in range(count)])


class Restormer(nn.Module):
    """`width` features at full size, doubled by each halving; `depth` as in the module's header."""

    def __init__(
        self,
        *,
        width: int = 24,
        depth: int = 1,
        bias_free: bool = False,
        norm_epsilon_millionths: int = 1,
    ) -> None:
        super().__init__()
        if width % 2:
            raise ValueError(f"width must be an even number, got {width}")

        layer = BiasFreeLayerNorm2d if bias_free else LayerNorm2d
        norm = partial(layer, epsilon=norm_epsilon_millionths / 10**6)

        def blocks(features: int, level: int, count: int) -> nn.Sequential:
            return transformer_blocks(features, level, count * depth, norm)

        # The order of registration is the order in which `initialise` draws the weights.
        self.patch_embed = nested("proj", conv3x3(3, width))
        self.encoder_level1 = blocks(width, 0, _BLOCKS[0])
        self.encoder_level2 = blocks(2 * width, 1, _BLOCKS[1])
        self.encoder_level3 = blocks(4 * width, 2, _BLOCKS[2])
        self.down1_2 = downsample(width)
        self.down2_3 = downsample(2 * width)
        self.down3_4 = downsample(4 * width)
        self.latent = blocks(8 * width, _LEVELS, 4)
        self.up2_1 = upsample(2 * width)
        self.up3_2 = upsample(4 * width)
        self.up4_3 = upsample(8 * width)
        self.reduce_chan_level2 = conv1x1(4 * width, 2 * width, bias=False)
        self.reduce_chan_level3 = conv1x1(8 * width, 4 * width, bias=False)
        # At full size the concatenated channels are not reduced, as in the paper.
        self.decoder_level1 = blocks(2 * width, 0, _BLOCKS[0])
        self.decoder_level2 = blocks(2 * width, 1, _BLOCKS[1])
        self.decoder_level3 = blocks(4 * width, 2, _BLOCKS[2])
        self.refinement = blocks(2 * width, 0, 2)
        self.output = conv3x3(2 * width, 3)
        added = [m.project_out for m in self.modules() if isinstance(m, Attention | FeedForward)]
        initialise(self, residual=[*added, self.output], rectified=False)

    def forward(self, noisy: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 3, H, W)."""
        x = self.patch_embed(noisy)
        skips: list[Tensor] = []
        for encoder, down in (
            (self.encoder_level1, self.down1_2),
            (self.encoder_level2, self.down2_3),
            (self.encoder_level3, self.down3_4),
        ):
            skips.append(encoder(x))
            x = down(skips[-1])  # (B, C, H, W) -> (B, 2C, H/2, W/2)
        x = self.latent(x)
        for up, reduce, decoder in (
            (self.up4_3, self.reduce_chan_level3, self.decoder_level3),
            (self.up3_2, self.reduce_chan_level2, self.decoder_level2),
            (self.up2_1, nn.Identity(), self.decoder_level1),
        ):
            joined = torch.cat([up(x), skips.pop()], dim=1)  # (B, 2C, H/2, W/2) -> (B, 2C, H, W)
            x = decoder(reduce(joined))
        clean: Tensor = noisy + self.output(self.refinement(x))
        return clean
