"""A network that takes tiles becomes one that takes photos of any size.

A photo is cut into tiles whose outputs lie side by side. Each tile's input is its output grown by a halo as wide as
the network can see, so that the tiles join without seams and equal the whole-frame result: at a photo's border the tile ends
where the photo ends, and the network's own padding acts there as it would on the whole frame. Tile origins lie on
multiples of the size contract, because a strided network treats the pixels of a stride differently.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from denoisenets import SizeContract

DEFAULT_TILE = 512
"""Side of a tile's output in pixels: large enough that halos are cheap, small enough for any machine's memory."""


@dataclass(frozen=True)
class Tile:
    """One tile along one axis: what is read and what is written, in pixels."""

    read_start: int
    read_stop: int
    start: int
    stop: int


def tiles_along(side: int, tile: int, halo: int, multiple: int) -> Iterator[Tile]:
    """Cover 0..side with tiles of `tile` pixels whose reads start on multiples of `multiple`."""
    step = max(tile // multiple, 1) * multiple
    grown = -(-halo // multiple) * multiple
    for start in range(0, side, step):
        stop = min(start + step, side)
        yield Tile(max(start - grown, 0), min(stop + grown, side), start, stop)


def pad_to_contract(x: Tensor, size: SizeContract) -> Tensor:
    """Reflect (B, C, H, W) at its lower and right border up to a size that the network takes.

    Where the padding is wider than reflection allows (photos of a few pixels), the border pixel is repeated.
    """
    height, width = x.shape[-2:]
    down, right = size.padded(height) - height, size.padded(width) - width
    if not (down or right):
        return x
    mode = "reflect" if down < height and right < width else "replicate"
    return pad(x, (0, right, 0, down), mode=mode)


def apply_tiled(
    network: Callable[[Tensor], Tensor],
    photo: Tensor,
    *,
    size: SizeContract,
    halo: int,
    tile: int = DEFAULT_TILE,
) -> Tensor:
    """Run `network` over a (B, 3, H, W) photo in tiles; equals the whole frame up to rounding.

    `halo` is the network's receptive radius in pixels and `tile` the side of a tile's output.
    """
    if tile < 1:
        raise ValueError(f"tile must be at least 1 pixel, got {tile}")
    height, width = photo.shape[-2:]
    output = torch.empty_like(photo)
    for row in tiles_along(height, tile, halo, size.multiple):
        for column in tiles_along(width, tile, halo, size.multiple):
            read = photo[..., row.read_start : row.read_stop, column.read_start : column.read_stop]
            clean = network(pad_to_contract(read, size))
            top, left = row.start - row.read_start, column.start - column.read_start
            output[..., row.start : row.stop, column.start : column.stop] = clean[
                ..., top : top + row.stop - row.start, left : left + column.stop - column.start
            ]
    return output
