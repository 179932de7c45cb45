"""One thing that takes a photo and gives a photo: a classical filter, or a network run in tiles."""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from degrain.imaging.codecs import Photo
from degrain.imaging.execution import Precision, choose_execution
from degrain.imaging.metrics import to_float, to_pixels
from degrain.imaging.tiling import DEFAULT_TILE, apply_tiled
from denoisenets import create_model, receptive_radius, size_contract


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
        """Give the photo back."""
        return photo


class NetworkDenoiser:
    """A trained network that takes whole photos of any size, in tiles.

    `model` and `arguments` are those of `denoisenets.create_model`, `weights` its state dict.
    """

    def __init__(
        self,
        model: str,
        arguments: Mapping[str, Any],
        weights: Mapping[str, Tensor],
        *,
        name: str | None = None,
        precision: Precision = "auto",
        tile: int = DEFAULT_TILE,
        device: str = "cpu",
    ) -> None:
        self.name = name or model
        self.execution = choose_execution(torch.device(device), precision)
        self.tile = tile
        self.size = size_contract(model, **arguments)
        self.halo = receptive_radius(model, **arguments)
        network = create_model(model, **arguments)
        network.load_state_dict(dict(weights))
        self.parameters = sum(p.numel() for p in network.parameters())
        self.network = self.execution.place(network).eval()

    @torch.inference_mode()
    def __call__(self, photo: Photo) -> Photo:
        """Denoise one (H, W, 3) photo of any size."""
        # Padding is not made for uint16, so 16 bits travel in 32.
        x = torch.tensor(photo if photo.dtype == np.uint8 else photo.astype(np.int32), device=self.execution.device)
        x = x.permute(2, 0, 1)[None]  # (H, W, 3) -> (1, 3, H, W)
        output = apply_tiled(self._forward, x, size=self.size, halo=self.halo, tile=self.tile)
        return output[0].permute(1, 2, 0).cpu().numpy().astype(photo.dtype)

    def _forward(self, tile: Tensor) -> Tensor:
        """(1, 3, H, W) pixels -> the same; float values exist for one tile at a time."""
        x = to_float(tile).contiguous(memory_format=self.execution.memory_format)
        with self.execution.autocast():
            return to_pixels(self.network(x), tile.dtype)
