"""A network that takes tiles becomes one that takes photos of any size.

A photo is cut into tiles whose outputs lie side by side. Each tile's input is its output grown by a halo as wide as the
network can see, so that the tiles join without seams and equal the whole-frame result: at a photo's border the tile
ends where the photo ends, and the network's own padding acts there as it would on the whole frame. Tile origins lie on
multiples of the size contract, because a strided network treats the pixels of a stride differently.

A network that depends on more than a halo can hold, because it takes means over a window or sees very far, gets tiles
that also overlap: over `blend` pixels to both sides of a join the output goes from one tile's to the next one's.

Tiles are done row by row, and a row is finished before the next one is begun: in float there is never more than a strip.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import pad

from denoisenets import SizeContract


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """How photos are cut for a network; all in pixels."""

    tile: int
    """Side of a tile's output."""
    halo: int
    """What a tile's input has more than its output, on each side."""
    size: SizeContract = field(default_factory=SizeContract)
    """The sides that the network takes."""
    grid: int = 1
    """Tiles begin on multiples of this, which the size contract's multiple divides."""
    blend: int = 0
    """Width, on each side of a join, over which neighbouring tiles are blended; at most the halo and half a tile."""
    batch: int = 1
    """Tiles that go through the network at once."""

    def __post_init__(self) -> None:
        if self.tile < 1:
            raise ValueError(f"tile must be at least 1 pixel, got {self.tile}")
        if self.batch < 1:
            raise ValueError(f"batch must be at least 1 tile, got {self.batch}")
        assert self.grid % self.size.multiple == 0
        assert self.blend <= self.halo

    @property
    def step(self) -> int:
        """The distance between the beginnings of tiles: `tile` on the grid, and wide enough to blend."""
        return max(self.tile // self.grid, -(-2 * self.blend // self.grid), 1) * self.grid


@dataclass(frozen=True)
class Tile:
    """One tile along one axis, in pixels: what is read, what it owns, and what it has a part in."""

    read_start: int
    read_stop: int
    start: int
    stop: int
    shared_start: int
    """`start`, and before it the pixels that are blended with the tile before."""
    shared_stop: int

    def weights(self, device: torch.device) -> Tensor:
        """This tile's part in each of its pixels, (shared_stop - shared_start,); with the neighbours' they make one."""
        places = torch.arange(self.shared_start, self.shared_stop, device=device, dtype=torch.float32) + 0.5
        weights = torch.ones_like(places)
        for join, sign, width in (
            (self.start, 1, self.start - self.shared_start),
            (self.stop, -1, self.shared_stop - self.stop),
        ):
            if width:
                weights *= (0.5 + sign * (places - join) / (2 * width)).clamp(0, 1)
        return weights


def tiles_along(side: int, tiling: Tiling) -> Iterator[Tile]:
    """Cover 0..side with tiles whose reads start on multiples of the grid."""
    grown = -(-tiling.halo // tiling.grid) * tiling.grid
    for start in range(0, side, tiling.step):
        stop = min(start + tiling.step, side)
        # The ramp of a join is as wide before it as after it, so a last tile that is narrow narrows it.
        before = min(tiling.blend, stop - start) if start else 0
        after = min(tiling.blend, side - stop)
        yield Tile(max(start - grown, 0), min(stop + grown, side), start, stop, start - before, min(stop + after, side))


def pad_to_contract(x: Tensor, size: SizeContract) -> Tensor:
    """Reflect (B, C, H, W) at its lower and right border up to a size that the network takes.

    Where the padding is wider than reflection allows (photos of a few pixels), the border pixel is repeated. Raises
    ValueError for a frame without pixels.
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
    finish: Callable[[Tensor], Tensor] = lambda strip: strip,
) -> Tensor:
    """Run `network` over (B, 3, H, W) photos of any type in tiles; equals the whole frame up to rounding.

    `network` gives float32 for a batch of tiles. `finish` turns a finished strip, (B, 3, h, W) float32, into what is wanted;
    nothing of the whole photos is kept in float.
    """
    height, width = photos.shape[-2:]
    columns = list(tiles_along(width, tiling))
    done: list[Tensor] = []
    rest: Tensor | None = None
    for row in tiles_along(height, tiling):
        strip = _strip(network, photos, row, columns, tiling)
        strip *= row.weights(photos.device)[:, None]
        if rest is not None:
            strip[..., : rest.shape[-2], :] += rest
        # What the next row has a part in waits for it.
        waiting = 2 * (row.shared_stop - row.stop)
        ready = strip.shape[-2] - waiting
        done.append(finish(strip[..., :ready, :]))
        rest = strip[..., ready:, :].clone() if waiting else None
        del strip
    return torch.cat(done, dim=-2)


def _strip(network: Callable[[Tensor], Tensor], photos: Tensor, row: Tile, columns: list[Tile], tiling: Tiling) -> Tensor:
    """One row of tiles side by side: (B, 3, row.shared_stop - row.shared_start, W) float32."""
    count, channels, _, width = photos.shape
    strip = torch.zeros(
        (count, channels, row.shared_stop - row.shared_start, width), dtype=torch.float32, device=photos.device
    )
    inside = slice(row.shared_start - row.read_start, row.shared_stop - row.read_start)
    for group in _alike(columns, tiling.batch):
        read = [photos[..., row.read_start : row.read_stop, tile.read_start : tile.read_stop] for tile in group]
        clean = network(pad_to_contract(torch.cat(read), tiling.size))
        for tile, output in zip(group, clean.reshape(-1, count, *clean.shape[1:]), strict=True):
            part = output[..., inside, tile.shared_start - tile.read_start : tile.shared_stop - tile.read_start]
            strip[..., tile.shared_start : tile.shared_stop] += part * tile.weights(photos.device)
    return strip


def _alike(columns: list[Tile], most: int) -> Iterator[list[Tile]]:
    """Neighbouring tiles of one width, up to `most` at a time."""
    group: list[Tile] = []
    for tile in columns:
        same = group and tile.read_stop - tile.read_start == group[0].read_stop - group[0].read_start
        if group and (not same or len(group) == most):
            yield group
            group = []
        group.append(tile)
    yield group
