"""Restormer: efficient transformer for high-resolution image restoration (Zamir et al., 2022, arXiv:2111.09881), in a
small form.

Attention between channels, not pixels: each channel's new value is a mixture of all, weighed by how alike their maps
are over the frame, so that cost grows with the number of pixels and not with its square. A gated feed-forward network
follows. Three halvings by pixel unshuffle, three doublings by pixel shuffle, a refinement at full size, the result
added to the input.
Shapes: B batch, C features, N heads, D = C / N features of a head, H W pixels, which must be multiples of 8.

Differs from the paper:
- Small by default: width 24 for 48, and half the blocks. `depth` stands for the paper's lists: (2, 3, 3) times `depth`
  blocks at each level, both ways, 4 times at the deepest, 2 times for refinement; 2 gives the paper's.
- Heads 1, 2, 4 and 8 from the top down as in the paper; `width` is any even number.

Checked against: width 48 and depth 2 have 26.1 M parameters.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, pad, pixel_shuffle, pixel_unshuffle

from denoisenets.contract import Contract, pyramid_contract
from denoisenets.layers import CELLS, ChannelNorm, FrameMean, conv1x1, initialise, over_cells

_LEVELS = 3
_BLOCKS = (2, 3, 3)
_EXPANSION = 2.66


def contract(*, depth: int, **_: object) -> Contract:
    """Each block has two depthwise 3x3 convolutions; there is one more at each change of size, and one at each end."""
    fine = sum(2 * 2 * count * depth * 2**level for level, count in enumerate(_BLOCKS))
    between = sum(2**level + 2 ** (level + 1) for level in range(_LEVELS))
    blocks = pyramid_contract(levels=_LEVELS, fine=0, deepest=2 * 4 * depth)
    refinement = 2 * 2 * depth
    radius = blocks.receptive_radius + fine + between + refinement + 2
    return Contract(size=blocks.size, receptive_radius=radius, global_statistics=True)


class ChannelAttention(nn.Module):
    """Multi-Dconv head transposed attention of `channels` features at 1 / `scale` of the photo's sides."""

    def __init__(self, channels: int, heads: int, scale: int) -> None:
        super().__init__()
        self.heads = heads
        self.mean = FrameMean(scale)
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.ask = nn.Sequential(
            conv1x1(channels, 3 * channels, bias=False),
            nn.Conv2d(3 * channels, 3 * channels, kernel_size=3, padding=1, groups=3 * channels, bias=False),
        )
        self.answer = conv1x1(channels, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        query, key, value = self.ask(x).chunk(3, dim=1)
        mixed = self._over_frame(query, key, value) if self.mean.window is None else self._over_cells(query, key, value)
        out: Tensor = self.answer(mixed)
        return out

    def _over_frame(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        batch, channels, height, width = value.shape
        query, key, value = (
            t.reshape(batch, self.heads, channels // self.heads, height * width) for t in (query, key, value)
        )
        products = query @ key.transpose(-2, -1)  # (B, N, D, HW), (B, N, HW, D) -> (B, N, D, D)
        alike = self._alike(products, query.square().sum(-1), key.square().sum(-1))
        return (alike.to(value.dtype) @ value).reshape(batch, channels, height, width)

    def _alike(self, products: Tensor, of_queries: Tensor, of_keys: Tensor) -> Tensor:
        """The softmax of cosines times the temperature, from products (..., D, D) and sums of squares (..., D)."""
        lengths = of_queries.float().unsqueeze(-1) * of_keys.float().unsqueeze(-2)
        cosines = products.float() * lengths.clamp_min(1e-24).rsqrt()
        return (cosines * self.temperature).softmax(dim=-1)

    def _over_cells(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """As over the frame, but alike within a window of the photo; the weights are interpolated between cells."""
        assert self.mean.window is not None
        cell = self.mean.window // CELLS // self.mean.scale
        batch, (height, width) = len(value), value.shape[-2:]
        down, right = -height % cell, -width % cell
        query, key = (self._cells(pad(t, (0, right, 0, down)), cell) for t in (query, key))  # (B, h, w, N, D, cell * cell)
        rows, columns = query.shape[1:3]

        def windowed(sums: Tensor) -> Tensor:
            flat = sums.float().reshape(batch, rows, columns, -1).permute(0, 3, 1, 2)  # (B, ..., h, w)
            return over_cells(flat).permute(0, 2, 3, 1).reshape(sums.shape)

        products = windowed(query @ key.transpose(-2, -1))  # (B, h, w, N, D, D)
        squares = [windowed(t.square().sum(-1)) for t in (query, key)]
        alike = self._alike(products, *squares).to(value.dtype)
        if cell == 1:
            return self._uncells(alike @ self._cells(value, 1), 1)
        # Between the centres of four cells all four have a say; at the border the outermost cells go on.
        half = cell // 2
        shifted = pad(value, (half, right + half, half, down + half))
        blocks = self._cells(shifted, cell)  # (B, h + 1, w + 1, N, D, cell * cell)
        edged = torch.cat([alike[:, :1], alike, alike[:, -1:]], dim=1)
        edged = torch.cat([edged[:, :, :1], edged, edged[:, :, -1:]], dim=2)
        ramp = (torch.arange(cell, device=value.device, dtype=value.dtype) + 0.5) / cell
        mixed = torch.zeros_like(blocks)
        for lower, of_row in enumerate((1 - ramp, ramp)):
            for later, of_column in enumerate((1 - ramp, ramp)):
                weights = (of_row[:, None] * of_column[None, :]).flatten()  # (cell * cell,)
                corner = edged[:, lower : lower + rows + 1, later : later + columns + 1]
                mixed = mixed + (corner @ blocks) * weights
        return self._uncells(mixed, cell)[..., half : half + height, half : half + width]

    def _cells(self, x: Tensor, cell: int) -> Tensor:
        """(B, C, H, W) -> (B, H / cell, W / cell, N, D, cell * cell)."""
        batch, channels, height, width = x.shape
        x = x.reshape(batch, self.heads, channels // self.heads, height // cell, cell, width // cell, cell)
        return x.permute(0, 3, 5, 1, 2, 4, 6).flatten(-2)

    def _uncells(self, x: Tensor, cell: int) -> Tensor:
        """The inverse of `_cells`."""
        batch, rows, columns, heads, depth, _ = x.shape
        x = x.reshape(batch, rows, columns, heads, depth, cell, cell).permute(0, 3, 4, 1, 5, 2, 6)
        return x.reshape(batch, heads * depth, rows * cell, columns * cell)


class GatedFeedForward(nn.Module):
    """Gated-Dconv feed-forward network: one half, through a GELU, times the other."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = int(channels * _EXPANSION)
        self.widen = nn.Sequential(
            conv1x1(channels, 2 * hidden, bias=False),
            nn.Conv2d(2 * hidden, 2 * hidden, kernel_size=3, padding=1, groups=2 * hidden, bias=False),
        )
        self.narrow = conv1x1(hidden, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        a, b = self.widen(x).chunk(2, dim=1)
        out: Tensor = self.narrow(gelu(a) * b)
        return out


class Block(nn.Module):
    """One transformer block of `channels` features at 1 / `scale` of the photo's sides."""

    def __init__(self, channels: int, heads: int, scale: int) -> None:
        super().__init__()
        self.attend = nn.Sequential(ChannelNorm(channels), ChannelAttention(channels, heads, scale))
        self.feed = nn.Sequential(ChannelNorm(channels), GatedFeedForward(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        x = x.float()  # the sum over all blocks would lose what they add if autocast kept it in bfloat16
        x = x + self.attend(x)
        out: Tensor = x + self.feed(x)
        return out

    def last_layers(self) -> list[Any]:
        """The two layers whose outputs are added to what comes in."""
        return [self.attend[1].answer, self.feed[1].narrow]


class Restormer(nn.Module):
    """`width` features at full size and twice as many after each halving; `depth` as in the file's header."""

    def __init__(self, *, width: int = 24, depth: int = 1) -> None:
        super().__init__()
        if width % 2:
            raise ValueError(f"width must be an even number, got {width}")

        def blocks(features: int, level: int, count: int) -> nn.Sequential:
            return nn.Sequential(*[Block(features, 2**level, 2**level) for _ in range(count * depth)])

        features = [width * 2**level for level in range(_LEVELS + 1)]
        # At full size what went down is joined to what comes up without narrowing it, as the paper has it.
        rising = [2 * width, *features[1:-1]]
        self.first = nn.Conv2d(3, width, kernel_size=3, padding=1, bias=False)
        self.down = nn.ModuleList([blocks(features[level], level, _BLOCKS[level]) for level in range(_LEVELS)])
        self.halve = nn.ModuleList([nn.Conv2d(f, f // 2, kernel_size=3, padding=1, bias=False) for f in features[:-1]])
        self.deepest = blocks(features[-1], _LEVELS, 4)
        self.widen = nn.ModuleList([nn.Conv2d(2 * f, 4 * f, kernel_size=3, padding=1, bias=False) for f in features[:-1]])
        self.narrow = nn.ModuleList([nn.Identity(), *[conv1x1(2 * f, f, bias=False) for f in features[1:-1]]])
        self.up = nn.ModuleList([blocks(rising[level], level, _BLOCKS[level]) for level in range(_LEVELS)])
        self.refine = blocks(rising[0], 0, 2)
        self.last = nn.Conv2d(rising[0], 3, kernel_size=3, padding=1, bias=False)
        added = [layer for block in self.modules() if isinstance(block, Block) for layer in block.last_layers()]
        initialise(self, added=[*added, self.last], rectified=False)

    def forward(self, noisy: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 3, H, W)."""
        x = self.first(noisy)
        kept: list[Tensor] = []
        for down, halve in zip(self.down, self.halve, strict=True):
            kept.append(down(x))
            x = pixel_unshuffle(halve(kept[-1]), 2)  # (B, C, H, W) -> (B, C/2, H, W) -> (B, 2C, H/2, W/2)
        x = self.deepest(x)
        for widen, narrow, up in zip(reversed(self.widen), reversed(self.narrow), reversed(self.up), strict=True):
            joined = torch.cat([pixel_shuffle(widen(x), 2), kept.pop()], dim=1)  # (B, 2C, H/2, W/2) -> (B, 2C, H, W)
            x = up(narrow(joined))
        clean: Tensor = noisy + self.last(self.refine(x))
        return clean
