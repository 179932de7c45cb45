"""One thing that takes a photo and gives a photo: a classical filter, or a network run in tiles."""

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from degrain.errors import UserError
from degrain.imaging.execution import COMPILED, PRECISIONS, Compiled, Precision, choose_execution
from degrain.imaging.metrics import to_float, to_pixels
from degrain.imaging.pixels import Photo, check_noise_level, check_photo
from degrain.imaging.tiling import Tiling, apply_tiled
from denoisenets import Contract, bytes_per_pixel, create_model, model_contract, use_local_statistics
from denoisenets.contract import check_positive
from denoisenets.layers import CELLS

MINIMUM_TILE = 64
"""Smaller tiles would be mostly halo; a network that leaves no room for one takes more memory than it was given."""
LARGEST_BATCH = 16
FARTHEST = 128
"""Widest halo in pixels of networks that see the whole frame: beyond, what they see changes their output by little."""
BLEND = 32
"""Pixels on each side of a join over which tiles of such networks are blended."""


class Denoiser(Protocol):
    """Takes (H, W, 3) uint8 or uint16 of any size and gives the same."""

    @property
    def name(self) -> str:
        """What a table calls it."""
        ...

    @property
    def parameters(self) -> int:
        """Number of trained values; 0 for a filter."""
        ...

    def __call__(self, photo: Photo) -> Photo:
        """Denoise one photo."""
        ...


class Untouched:
    """The denoiser that does nothing: the row against which gains are counted."""

    name = "untouched"
    parameters = 0

    def __call__(self, photo: Photo) -> Photo:
        """Give the photo back. Raises ValueError for another shape or type than a photo's."""
        check_photo(photo)
        return photo


class Strength:
    """A denoiser's result blended with its input: 0 leaves the photo as it is, 1 is the result itself.

    Raises ValueError for a strength outside 0 to 1.
    """

    def __init__(self, denoiser: Denoiser, strength: float) -> None:
        if not 0 <= strength <= 1:
            raise ValueError(f"strength must be from 0 to 1, got {strength}")
        self.denoiser, self.strength = denoiser, strength
        self.name, self.parameters = denoiser.name, denoiser.parameters

    def __call__(self, photo: Photo) -> Photo:
        """Denoise one photo."""
        clean = self.denoiser(photo)
        blended = np.empty_like(photo)
        # Row by row: whole photos in float take eight times their memory.
        for into, noisy_row, clean_row in zip(blended, photo, clean, strict=True):
            noisy = noisy_row.astype(np.float32)
            into[:] = np.round(noisy + self.strength * (clean_row - noisy))
        return blended


class SelfEnsemble:
    """The mean of a denoiser's results for a photo's eight flips and rotations: a little better, eight times as slow.

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
                seen = np.rot90(photo[:, ::-1] if flipped else photo, turns)
                clean = np.rot90(self.denoiser(np.ascontiguousarray(seen)), -turns)
                total += clean[:, ::-1] if flipped else clean
        total += 4
        total //= 8
        return total.astype(photo.dtype)


@dataclass(frozen=True, kw_only=True)
class Application:
    """How a trained network is run. Raises ValueError for values that cannot be."""

    device: str = "cpu"
    """`cpu` or `cuda`."""
    precision: Precision = "auto"
    """`bfloat16` autocast, `float32`, or what the device is fastest with."""
    compiled: Compiled = "auto"
    """Whether `torch.compile` is used; `auto` on CUDA alone."""
    memory: int | None = None
    """Bytes that the activations of a batch of tiles may take; None for a share of what is free."""
    tile: int | None = None
    """Side of a tile's output in pixels; None chooses it by memory."""
    noise_level: float | None = None
    """Standard deviation of the noise in (0, 1], for networks that are told it; None lets them estimate it."""

    def __post_init__(self) -> None:
        for name, known in (("precision", PRECISIONS), ("compiled", COMPILED)):
            if getattr(self, name) not in known:
                raise ValueError(f"unknown {name} '{getattr(self, name)}'; known: {', '.join(known)}")
        for name in ("memory", "tile"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if self.noise_level is not None:
            check_noise_level(self.noise_level)


class NetworkDenoiser:
    """A trained network that takes whole photos of any size, in tiles.

    `model` and `arguments` are those of `denoisenets.create_model`, `weights` its state dict. `crop` is the side in pixels
    of what it saw in training, see `denoisenets.use_local_statistics`.

    Raises ValueError for unknown names and weights that do not fit, UserError for a device that is not there or a noise
    level for a network that takes none.
    """

    def __init__(
        self,
        model: str,
        arguments: Mapping[str, Any],
        weights: Mapping[str, Tensor],
        *,
        name: str | None = None,
        crop: int = 128,
        application: Application | None = None,
    ) -> None:
        self.name = name or model
        self.application = application or Application()
        wanted = self.application
        self.execution = choose_execution(torch.device(wanted.device), wanted.precision, wanted.compiled)
        network = create_model(model, **arguments)
        check_positive(crop=crop)
        try:
            network.load_state_dict(dict(weights))
        except RuntimeError as error:
            raise ValueError(f"its weights do not fit {model}: {' '.join(str(error).split())}") from None
        if not all(bool(value.isfinite().all()) for value in weights.values()):
            raise ValueError("its weights are not all finite; train it again, from a checkpoint before it diverged")
        self.parameters = sum(p.numel() for p in network.parameters())
        self._told = _told_noise_level(model, network, wanted.noise_level, self.execution.device)
        window = use_local_statistics(network, crop)
        contract = model_contract(model, **arguments)
        self.bytes_per_pixel = bytes_per_pixel(model, **arguments) * self.execution.bytes_per_value / 4
        """Peak memory of a tile's activations."""
        self._halo, self._grid, self._blend = _reach(contract, window)
        self._size = contract.size
        self.network = self.execution.place(network.eval())
        self._forward_pass = self.execution.compile(self.network)

    def __call__(self, photo: Photo) -> Photo:
        """Denoise one (H, W, 3) photo of any size."""
        return self.batch([photo])[0]

    @torch.inference_mode()
    def batch(self, photos: Sequence[Photo]) -> list[Photo]:
        """Denoise photos of any sizes; small ones of one size and type go through the network together.

        Raises ValueError for another shape or type than a photo's.
        """
        for photo in photos:
            check_photo(photo)
        results: dict[int, Photo] = {}
        groups: dict[tuple[object, ...], list[int]] = {}
        for index, photo in enumerate(photos):
            groups.setdefault((photo.shape, photo.dtype), []).append(index)
        for indices in groups.values():
            height, width = photos[indices[0]].shape[:2]
            tiling = self.tiling(height, width)
            for start in range(0, len(indices), tiling.batch):
                chosen = indices[start : start + tiling.batch]
                together = self._denoise(np.stack([photos[i] for i in chosen]), tiling)
                results.update(zip(chosen, together, strict=True))
        return [results[i] for i in range(len(photos))]

    def tiling(self, height: int, width: int) -> Tiling:
        """How photos of this size are cut: as few tiles as memory allows, as many at once as memory allows."""
        memory = self.application.memory or self.execution.free_memory()
        most = memory / self.bytes_per_pixel
        largest = -(-max(height, width) // self._grid) * self._grid
        fits = self._size.padded(height) * self._size.padded(width) <= most
        by_memory = largest if fits else max(int(most**0.5) - 2 * self._halo, MINIMUM_TILE)
        tile = self.application.tile or min(by_memory, largest)
        read = [min(side, tile + 2 * self._halo) for side in (height, width)]
        pixels = self._size.padded(read[0]) * self._size.padded(read[1])
        batch = min(max(int(most / pixels), 1), LARGEST_BATCH)
        return Tiling(tile=tile, halo=self._halo, size=self._size, grid=self._grid, blend=self._blend, batch=batch)

    def _denoise(self, photos: Photo, tiling: Tiling) -> Photo:
        """(B, H, W, 3) -> (B, H, W, 3)."""
        # Padding is not made for uint16, so 16 bits travel in 32.
        pixels = torch.tensor(photos if photos.dtype == np.uint8 else photos.astype(np.int32))
        pixels = pixels.to(self.execution.device).permute(0, 3, 1, 2)  # (B, H, W, 3) -> (B, 3, H, W)
        # Photos of a group are one batch already; tiles of one photo are put together.
        tiling = replace(tiling, batch=max(tiling.batch // len(photos), 1))
        output = apply_tiled(self._forward, pixels, tiling, lambda strip: to_pixels(strip, pixels.dtype))
        return output.permute(0, 2, 3, 1).cpu().numpy().astype(photos.dtype)

    def _forward(self, tiles: Tensor) -> Tensor:
        """(B, 3, H, W) pixels -> float32 in [0, 1]; float values exist for one batch of tiles at a time."""
        x = to_float(tiles).contiguous(memory_format=self.execution.memory_format)
        with self.execution.autocast():
            return self._forward_pass(x, *self._told).float()


def _told_noise_level(model: str, network: nn.Module, noise_level: float | None, device: torch.device) -> tuple[Tensor, ...]:
    """What the network gets beside the photo."""
    if noise_level is None:
        return ()
    if "noise_level" not in inspect.signature(network.forward).parameters:
        raise UserError(f"model '{model}' is not told the noise level, it finds it by itself; leave noise_level out")
    return (torch.full((1, 1, 1, 1), noise_level, device=device),)


def _reach(contract: Contract, window: int) -> tuple[int, int, int]:
    """Halo, grid and blend of a network, in pixels; `window` is that of its local statistics, 0 if it has none."""
    if not contract.global_statistics:
        return contract.receptive_radius, contract.size.multiple, 0
    cell = window // CELLS
    halo = min(contract.receptive_radius + window // 2 + cell, FARTHEST)
    return halo, math.lcm(contract.size.multiple, cell), min(BLEND, halo)
