"""Apply a network to photos of any size in tiles.

The outputs of tiles are adjacent. Each tile's input is its output extended by a halo as wide as the
receptive radius, so that tiles join without seams and equal the whole-frame result. At a photo's
border the tile ends with the photo, and the network pads as it does for the whole frame. Tile
origins are multiples of the size contract, because a strided network treats the pixels of a stride
differently.

Tiles of a network with a receptive field larger than the halo, such as a window of local
statistics, also overlap: over `blend` pixels on both sides of a seam the output is interpolated
between both tiles.

Tiles are processed row by row, and each row of tiles is finished before the next one starts, so
that memory holds a single strip in float.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import pad

from denoisenets import SizeContract


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
    """Tile origins are multiples of this; a multiple of the size contract's."""
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
    """Cover 0..side with tiles whose inputs start at multiples of the grid."""
    halo = -(-tiling.halo // tiling.grid) * tiling.grid
    for start in range(0, side, tiling.step):
        stop = min(start + tiling.step, side)
        # A ramp has equal widths on both sides of its seam, so a narrow last tile narrows it.
        before = min(tiling.blend, stop - start) if start else 0
        after = min(tiling.blend, side - stop)
        yield Tile(
            max(start - halo, 0),
            min(stop + halo, side),
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
) -> Tensor:
    """Apply `network` to (B, 3, H, W) photos of any dtype in tiles; equals the whole frame up to
    rounding. The result is in channels_last memory format.

    `start` converts each tile for padding. `network` returns float32 for a batch of tiles. `finish`
    converts each finished strip, (B, 3, h, W) float32, to the dtype of the result.
    """
    height, width = photos.shape[-2:]
    columns = list(tiles_along(width, tiling))
    result: Tensor | None = None
    finished = 0
    pending: Tensor | None = None
    for row in tiles_along(height, tiling):
        strip = _strip(network, photos, row, columns, tiling, start)
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
    columns: list[Tile],
    tiling: Tiling,
    start: Callable[[Tensor], Tensor],
) -> Tensor:
    """The blended output of a row of tiles: (B, 3, row.blend_stop - row.blend_start, W) float32."""
    count, channels, _, width = photos.shape
    strip = torch.zeros(
        (count, channels, row.blend_stop - row.blend_start, width),
        dtype=torch.float32,
        device=photos.device,
    )
    inside = slice(row.blend_start - row.read_start, row.blend_stop - row.read_start)
    for group in _groups_of_equal_width(columns, tiling.batch):
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


def _groups_of_equal_width(columns: list[Tile], most: int) -> Iterator[list[Tile]]:
    """Consecutive tiles of equal input width, at most `most` per group."""
    group: list[Tile] = []
    for tile in columns:
        same = (
            group and tile.read_stop - tile.read_start == group[0].read_stop - group[0].read_start
        )
        if group and (not same or len(group) == most):
            yield group
            group = []
        group.append(tile)
    yield group
