"""Apply a network to photos of any size in tiles.

The outputs of tiles are adjacent. Each tile's input is its output extended by a halo as wide as the
receptive radius, so that tiles join without seams and equal the whole-frame result. At a photo's
border the tile ends with the photo, and the network pads as it does for the whole frame. Inputs
start at multiples of the size contract, because a strided network treats the pixels of a stride
differently.

Tiles of a network with a receptive field larger than the halo, such as a window of local
statistics, also overlap: over `blend` pixels on both sides of a seam the output is interpolated
between both tiles.

Tiles are processed row by row, and each row of tiles is finished before the next one starts, so
that memory holds a single strip in float.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import pad

from denoisenets import Contract, SizeContract
from denoisenets.layers import CELLS_PER_WINDOW

MINIMUM_TILE = 64
"""Smallest automatic tile in pixels: smaller ones would be mostly halo. A network whose tile of
this size needs more memory than the limit exceeds it, with a warning.
"""
LARGEST_HALO = 128
"""Widest halo, in pixels, of networks with global statistics: pixels beyond change the output
little.
"""
BLEND = 32
"""Pixels on each side of a seam over which tiles of such networks are blended."""
LARGEST_BATCH = 16
Window: TypeAlias = tuple[slice, slice]
"""The rows and the columns of a part of a photo."""


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """How photos are divided into tiles; lengths in pixels."""

    tile: int
    """Side of a tile's output."""
    halo: int
    """Margin of a tile's input around its output."""
    size: SizeContract = field(default_factory=SizeContract)
    """Heights and widths that the network accepts."""
    grid: int = 1
    """Tiles' inputs start at multiples of this; a multiple of the size contract's."""
    blend: int = 0
    """Width on each side of a seam over which neighbouring tiles are blended; at most the halo."""
    batch: int = 1
    """Tiles per forward pass."""

    def __post_init__(self) -> None:
        if self.tile < 1:
            raise ValueError(f"tile must be at least 1 pixel, got {self.tile}")
        if self.batch < 1:
            raise ValueError(f"batch must be at least 1 tile, got {self.batch}")
        assert self.grid % self.size.multiple == 0
        assert self.blend <= self.halo

    @property
    def step(self) -> int:
        """Distance between tile origins: `tile` rounded to the grid, and wide enough to blend."""
        return max(self.tile // self.grid, -(-2 * self.blend // self.grid), 1) * self.grid

    def reads(self, side: int) -> int:
        """The longest padded input of a tile along a side of a photo."""
        return self.size.padded(min(self.to_grid(self.step + 2 * self.halo), side))

    def to_grid(self, length: int) -> int:
        """The length, rounded up to the grid."""
        return -(-length // self.grid) * self.grid


def smallest_tiling(contract: Contract, window: int) -> Tiling:
    """The tiles of a network that need the least memory; `window` is that of its local statistics,
    or 0, pixels.
    """
    if not contract.global_statistics:
        halo, grid, blend = contract.receptive_radius, contract.size.multiple, 0
    else:
        cell = window // CELLS_PER_WINDOW
        halo = min(contract.receptive_radius + window // 2 + cell, LARGEST_HALO)
        grid, blend = math.lcm(contract.size.multiple, cell), min(BLEND, halo)
    return Tiling(tile=MINIMUM_TILE, halo=halo, size=contract.size, grid=grid, blend=blend)


def largest_tiling(
    smallest: Tiling, height: int, width: int, most_pixels: float, tile: int | None = None
) -> Tiling:
    """The largest tiles for photos of this size whose inputs have at most `most_pixels`, and the
    largest batch of them; the smallest tiling if none has. With `tile` that side is taken.
    """

    def of_side(tile: int) -> Tiling:
        return replace(smallest, tile=tile)

    def pixels(tile: int) -> int:
        return of_side(tile).reads(height) * of_side(tile).reads(width)

    if tile is None:
        first, grid = smallest.step, smallest.grid
        sides = range(first, max(first, height, width) + grid, grid)
        tile = sides[max(bisect_right(sides, most_pixels, key=pixels) - 1, 0)]
    batch = min(max(int(most_pixels / pixels(tile)), 1), LARGEST_BATCH)
    return replace(of_side(tile), batch=batch)


@dataclass(frozen=True)
class Tile:
    """One tile along one axis, in pixels: its input, its own output, and its blended output."""

    read_start: int
    read_stop: int
    start: int
    stop: int
    blend_start: int
    """`start` less the pixels that are blended with the previous tile."""
    blend_stop: int

    @property
    def read_width(self) -> int:
        """Length of its input."""
        return self.read_stop - self.read_start

    def reaches(self, part: slice) -> bool:
        """Whether its output contributes to a part of the photo."""
        return bool(self.blend_start < part.stop and part.start < self.blend_stop)

    def weights(self, device: torch.device) -> Tensor:
        """This tile's blending weights, (blend_stop - blend_start,); they sum to 1 with those of
        its neighbours.
        """
        centres = (
            torch.arange(self.blend_start, self.blend_stop, device=device, dtype=torch.float32)
            + 0.5
        )
        weights = torch.ones_like(centres)
        for seam, sign, width in (
            (self.start, 1, self.start - self.blend_start),
            (self.stop, -1, self.blend_stop - self.stop),
        ):
            if width:
                weights *= (0.5 + sign * (centres - seam) / (2 * width)).clamp(0, 1)
        return weights


def tiles_along(side: int, tiling: Tiling) -> Iterator[Tile]:
    """Cover 0..side with tiles whose inputs start at multiples of the grid.

    Outputs start a halo later, so that a halo of half the grid does not cost a whole one.
    """
    starts = [0, *range(tiling.step + tiling.halo % tiling.grid, side, tiling.step)]
    for start, stop in zip(starts, [*starts[1:], side], strict=True):
        # A ramp has equal widths on both sides of its seam, so a narrow last tile narrows it.
        before = min(tiling.blend, stop - start) if start else 0
        after = min(tiling.blend, side - stop)
        yield Tile(
            max(start - tiling.halo, 0),
            min(tiling.to_grid(stop + tiling.halo), side),
            start,
            stop,
            start - before,
            min(stop + after, side),
        )


def pad_to_contract(x: Tensor, size: SizeContract) -> Tensor:
    """Pad (B, C, H, W) at its lower and right border to a size that the network accepts.

    Padding reflects the frame, or repeats border pixels where it is wider than reflection allows
    (frames of a few pixels). Raises ValueError for a frame without pixels.
    """
    height, width = x.shape[-2:]
    if not (height and width):
        raise ValueError(f"a frame has at least one pixel, got {height}x{width}")
    down, right = size.padded(height) - height, size.padded(width) - width
    if not (down or right):
        return x
    mode = "reflect" if down < height and right < width else "replicate"
    return pad(x, (0, right, 0, down), mode=mode)


def apply_tiled(
    network: Callable[[Tensor], Tensor],
    photos: Tensor,
    tiling: Tiling,
    *,
    start: Callable[[Tensor], Tensor] = lambda tile: tile,
    finish: Callable[[Tensor], Tensor] = lambda strip: strip,
    window: Window | None = None,
) -> Tensor:
    """Apply `network` to (B, 3, H, W) photos of any dtype in tiles; equals the whole frame up to
    rounding. The result is in channels_last memory format.

    `start` converts each tile for padding. `network` returns float32 for a batch of tiles. `finish`
    converts each finished strip, (B, 3, h, W) float32, to the dtype of the result. With a `window`
    only the pixels inside have values, the same as without.
    """
    height, width = photos.shape[-2:]
    columns = _groups_of_equal_width(tiles_along(width, tiling), tiling.batch)
    rows, across = window or (slice(0, height), slice(0, width))
    columns = [group for group in columns if any(tile.reaches(across) for tile in group)]
    result: Tensor | None = None
    finished = 0
    pending: Tensor | None = None
    for row in tiles_along(height, tiling):
        strip = _strip(network, photos, row, columns if row.reaches(rows) else [], tiling, start)
        strip *= row.weights(photos.device)[:, None]
        if pending is not None:
            strip[..., : pending.shape[-2], :] += pending
        # The rows that are blended with the next row of tiles stay pending.
        waiting = 2 * (row.blend_stop - row.stop)
        ready = strip.shape[-2] - waiting
        part = finish(strip[..., :ready, :])
        if result is None:
            result = torch.empty_like(photos, dtype=part.dtype, memory_format=torch.channels_last)
        result[..., finished : finished + ready, :] = part
        finished += ready
        pending = strip[..., ready:, :].clone() if waiting else None
        del strip
    assert result is not None
    return result


def _strip(
    network: Callable[[Tensor], Tensor],
    photos: Tensor,
    row: Tile,
    columns: list[list[Tile]],
    tiling: Tiling,
    start: Callable[[Tensor], Tensor],
) -> Tensor:
    """The blended output of a row of tiles: (B, 3, row.blend_stop - row.blend_start, W) float32.

    `columns` are its tiles, grouped by forward pass.
    """
    count, channels, _, width = photos.shape
    strip = torch.zeros(
        (count, channels, row.blend_stop - row.blend_start, width),
        dtype=torch.float32,
        device=photos.device,
    )
    inside = slice(row.blend_start - row.read_start, row.blend_stop - row.read_start)
    for group in columns:
        inputs = [
            start(photos[..., row.read_start : row.read_stop, tile.read_start : tile.read_stop])
            for tile in group
        ]
        clean = network(pad_to_contract(torch.cat(inputs), tiling.size))
        for tile, output in zip(group, clean.reshape(-1, count, *clean.shape[1:]), strict=True):
            part = output[
                ...,
                inside,
                tile.blend_start - tile.read_start : tile.blend_stop - tile.read_start,
            ]
            strip[..., tile.blend_start : tile.blend_stop] += part * tile.weights(photos.device)
    return strip


def _groups_of_equal_width(columns: Iterable[Tile], most: int) -> list[list[Tile]]:
    """Consecutive tiles of equal input width, at most `most` per group."""
    groups: list[list[Tile]] = []
    for tile in columns:
        last = groups[-1] if groups else []
        if last and len(last) < most and tile.read_width == last[0].read_width:
            last.append(tile)
        else:
            groups.append([tile])
    return groups
