"""One thing that takes a photo and gives a photo: a classical filter, or a network run in tiles."""

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from degrain.imaging.codecs import Photo
from degrain.imaging.execution import Precision, choose_execution
from degrain.imaging.metrics import to_eight_bits, to_float
from degrain.imaging.tiling import DEFAULT_TILE, apply_tiled
from denoisenets import create_model, receptive_radius, size_contract


class Denoiser(Protocol):
    """Takes and gives (H, W, 3) uint8 of any size."""

    name: str
    """What a table calls it."""
    parameters: int
    """Number of trained values; 0 for a filter."""

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
        """Denoise one (H, W, 3) uint8 photo of any size."""
        x = torch.tensor(photo, device=self.execution.device).permute(2, 0, 1)[None]  # (H, W, 3) -> (1, 3, H, W)
        output = apply_tiled(self._forward, x, size=self.size, halo=self.halo, tile=self.tile)
        return output[0].permute(1, 2, 0).cpu().numpy()

    def _forward(self, tile: Tensor) -> Tensor:
        """uint8 (1, 3, H, W) -> the same; float values exist for one tile at a time."""
        x = to_float(tile).contiguous(memory_format=self.execution.memory_format)
        with self.execution.autocast():
            return to_eight_bits(self.network(x))
