"""Denoisers map a photo to a photo of the same shape: networks run in tiles, and wrappers of any
denoiser.
"""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from degrain.errors import UserError
from degrain.imaging.metrics import to_float, to_pixels
from degrain.imaging.pixels import Photo, check_photo
from degrain.inference.config import InferenceConfig
from degrain.inference.execution import choose_execution
from degrain.inference.tiling import Tiling, apply_tiled
from denoisenets import (
    Contract,
    bytes_per_pixel,
    create_model,
    model_contract,
    use_local_statistics,
)
from denoisenets.contract import check_positive
from denoisenets.layers import CELLS_PER_WINDOW

MINIMUM_TILE = 64
"""Smallest automatic tile in pixels: smaller ones would be mostly halo. A network whose tile of
this size needs more memory than the limit exceeds it.
"""
LARGEST_BATCH = 16
LARGEST_HALO = 128
"""Widest halo, in pixels, of networks with global statistics: pixels beyond change the output
little.
"""
BLEND = 32
"""Pixels on each side of a seam over which tiles of such networks are blended."""
EnterPass: TypeAlias = Callable[[], AbstractContextManager[object]]


class Denoiser(Protocol):
    """Maps (H, W, 3) uint8 or uint16 of any size to the same shape and dtype."""

    @property
    def name(self) -> str:
        """Name in tables."""
        ...

    @property
    def parameters(self) -> int:
        """Number of trained parameters; 0 for a filter."""
        ...

    def __call__(self, photo: Photo) -> Photo:
        """Denoise one photo."""
        ...


class Identity:
    """Returns the noisy photo: the baseline of all gains."""

    name = "noisy"
    parameters = 0

    def __call__(self, photo: Photo) -> Photo:
        """Return the photo. Raises ValueError for a shape or dtype that is not a photo's."""
        check_photo(photo)
        return photo


class SelfEnsemble:
    """Averages a denoiser's outputs for a photo's eight flips and rotations: slightly better, eight
    times slower.

    After Lim et al., 2017, "Enhanced deep residual networks", arXiv:1707.02921, section 3.4.
    """

    def __init__(self, denoiser: Denoiser) -> None:
        self.denoiser = denoiser
        self.name, self.parameters = denoiser.name, denoiser.parameters

    def __call__(self, photo: Photo) -> Photo:
        """Denoise one photo."""
        total = np.zeros(photo.shape, dtype=np.uint32)
        for flipped in (False, True):
            for turns in range(4):
                rotated = np.rot90(photo[:, ::-1] if flipped else photo, turns)
                clean = np.rot90(self.denoiser(np.ascontiguousarray(rotated)), -turns)
                total += clean[:, ::-1] if flipped else clean
        total += 4
        total //= 8
        return total.astype(photo.dtype)


class NetworkDenoiser:
    """Runs a trained network on whole photos of any size, in tiles.

    `model` and `arguments` are those of `denoisenets.create_model`, `weights` its state dict.
    `crop` is the side of the training crops in pixels, see `denoisenets.use_local_statistics`.

    Raises ValueError for unknown names and weights that do not fit, UserError for a missing device
    or a noise level for a network that takes none.
    """

    def __init__(
        self,
        model: str,
        arguments: Mapping[str, Any],
        weights: Mapping[str, Tensor],
        *,
        name: str | None = None,
        crop: int = 128,
        config: InferenceConfig | None = None,
    ) -> None:
        self.name = name or model
        self.config = config or InferenceConfig()
        self._source = model, dict(arguments), dict(weights), crop
        self.execution = choose_execution(
            torch.device(self.config.device), self.config.precision, self.config.compiled
        )
        network = create_model(model, **arguments)
        check_positive(crop=crop)
        _load_weights(network, model, weights)
        self.parameters = sum(p.numel() for p in network.parameters())
        self._noise_level = _noise_level_input(
            model, network, self.config.noise_level, self.execution.device
        )
        window = use_local_statistics(network, crop)
        contract = model_contract(model, **arguments)
        self.bytes_per_pixel = (
            bytes_per_pixel(model, **arguments) * self.execution.bytes_per_value / 4
        )
        """Peak memory of activations, per pixel of a tile's input."""
        self._halo, self._grid, self._blend = _overlap(contract, window)
        self._size = contract.size
        self.network = self.execution.place(network.eval())
        self._forward_pass = self.execution.compile(self.network)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by weights and arguments: another machine chooses its own execution."""
        return _rebuild, (*self._source, self.name, self.config)

    def __call__(self, photo: Photo) -> Photo:
        """Denoise one (H, W, 3) photo of any size."""
        return self.batch([photo])[0]

    @torch.inference_mode()
    def batch(
        self, photos: Sequence[Photo], enter: EnterPass = nullcontext, pass_pixels: float = math.inf
    ) -> list[Photo]:
        """Denoise photos of any sizes; small photos of one shape and dtype share a batch.

        Each forward pass runs inside `enter()`, which may wait, or raise to end the work, and reads
        at most `pass_pixels` if smallest tiles have no more.

        Raises ValueError for a shape or dtype that is not a photo's.
        """
        for photo in photos:
            check_photo(photo)
        results: dict[int, Photo] = {}
        groups: dict[tuple[object, ...], list[int]] = {}
        for index, photo in enumerate(photos):
            groups.setdefault((photo.shape, photo.dtype), []).append(index)
        for indices in groups.values():
            height, width = photos[indices[0]].shape[:2]
            tiling = self.tiling(height, width, pass_pixels)
            for start in range(0, len(indices), tiling.batch):
                chosen = indices[start : start + tiling.batch]
                together = self._denoise([photos[i] for i in chosen], tiling, enter)
                results.update(zip(chosen, together, strict=True))
        return [results[i] for i in range(len(photos))]

    def tiling(self, height: int, width: int, pass_pixels: float = math.inf) -> Tiling:
        """The tiling of photos of this size: the largest tiles and the largest batch that fit in
        memory and in `pass_pixels`.
        """
        limit = self.config.memory
        memory = self.execution.free_memory() if limit is None else limit * 2**20
        most_pixels = min(memory / self.bytes_per_pixel, pass_pixels)
        largest = -(-max(height, width) // self._grid) * self._grid
        fits = self._size.padded(height) * self._size.padded(width) <= most_pixels
        by_memory = largest if fits else max(int(most_pixels**0.5) - 2 * self._halo, MINIMUM_TILE)
        tile = self.config.tile or min(by_memory, largest)
        read = [min(side, tile + 2 * self._halo) for side in (height, width)]
        pixels = self._size.padded(read[0]) * self._size.padded(read[1])
        batch = min(max(int(most_pixels / pixels), 1), LARGEST_BATCH)
        return Tiling(
            tile=tile,
            halo=self._halo,
            size=self._size,
            grid=self._grid,
            blend=self._blend,
            batch=batch,
        )

    def _denoise(self, photos: Sequence[Photo], tiling: Tiling, enter: EnterPass) -> Photo:
        """Photos of one shape and dtype -> (B, H, W, 3)."""
        stacked = photos[0][None] if len(photos) == 1 else np.stack(photos)
        deep = stacked.dtype == np.uint16
        # PyTorch knows no arithmetic of uint16: whole photos are stored as int16 with the same
        # bits, tiles are computed in int32.
        writable = np.require(stacked.view(np.int16) if deep else stacked, requirements=["C", "W"])
        pixels = torch.from_numpy(writable).to(self.execution.device)
        # The photos are one batch already; a batch of tiles multiplies it.
        tiling = replace(tiling, batch=max(tiling.batch // len(photos), 1))
        output = apply_tiled(
            partial(self._forward, enter),
            pixels.permute(0, 3, 1, 2),  # (B, H, W, 3) -> (B, 3, H, W)
            tiling,
            start=_from_sixteen_bits if deep else _unchanged,
            finish=_to_sixteen_bits if deep else _to_eight_bits,
        )
        result: Photo = output.permute(0, 2, 3, 1).cpu().numpy()
        return result.view(np.uint16) if deep else result

    def _forward(self, enter: EnterPass, tiles: Tensor) -> Tensor:
        """(B, 3, H, W) pixels -> float32 in [0, 1], for one batch of tiles."""
        x = to_float(tiles).contiguous(memory_format=self.execution.memory_format)
        with enter(), self.execution.autocast():
            return self._forward_pass(x, *self._noise_level).float()


def _rebuild(
    model: str,
    arguments: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    crop: int,
    name: str,
    config: InferenceConfig,
) -> NetworkDenoiser:
    return NetworkDenoiser(model, arguments, weights, name=name, crop=crop, config=config)


def _unchanged(tiles: Tensor) -> Tensor:
    return tiles


def _from_sixteen_bits(tiles: Tensor) -> Tensor:
    """The bits of uint16 in int16 -> values in int32."""
    return tiles.to(torch.int32) & 0xFFFF


def _to_sixteen_bits(strip: Tensor) -> Tensor:
    """Floats in [0, 1] -> the bits of uint16 in int16."""
    return to_pixels(strip, torch.int32).to(torch.int16)


def _to_eight_bits(strip: Tensor) -> Tensor:
    """Floats in [0, 1] -> uint8."""
    return to_pixels(strip, torch.uint8)


def _load_weights(network: nn.Module, model: str, weights: Mapping[str, Tensor]) -> None:
    """Load a state dict. Raises ValueError for weights that do not fit or are not finite."""
    try:
        network.load_state_dict(dict(weights))
    except RuntimeError as error:
        raise ValueError(
            f"its weights do not fit {model}: {' '.join(str(error).split())}"
        ) from None
    if not all(bool(value.isfinite().all()) for value in weights.values()):
        raise ValueError(
            "its weights are not all finite; train it again, from a checkpoint before it diverged"
        )


def _noise_level_input(
    model: str, network: nn.Module, noise_level: float | None, device: torch.device
) -> tuple[Tensor, ...]:
    """The network's inputs beside the photo: the noise level, (1, 1, 1, 1), or none."""
    if noise_level is None:
        return ()
    if "noise_level" not in inspect.signature(network.forward).parameters:
        raise UserError(f"model '{model}' takes no noise level; leave out `noise_level`")
    return (torch.full((1, 1, 1, 1), noise_level, device=device),)


def _overlap(contract: Contract, window: int) -> tuple[int, int, int]:
    """Halo, grid and blend width of a network's tiles, in pixels; `window` is that of its local
    statistics, or 0.
    """
    if not contract.global_statistics:
        return contract.receptive_radius, contract.size.multiple, 0
    cell = window // CELLS_PER_WINDOW
    halo = min(contract.receptive_radius + window // 2 + cell, LARGEST_HALO)
    return halo, math.lcm(contract.size.multiple, cell), min(BLEND, halo)
