"""Denoisers map a photo to a photo of the same shape: networks run in tiles, and wrappers of any
denoiser.
"""

import hashlib
import inspect
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import cached_property, partial
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from degrain.errors import UserError
from degrain.imaging.metrics import to_float, to_pixels
from degrain.imaging.pixels import Photo, check_photo
from degrain.inference.config import InferenceConfig
from degrain.inference.execution import choose_execution, find_device
from degrain.inference.tiling import Tiling, Window, apply_tiled, largest_tiling, smallest_tiling
from denoisenets import (
    bytes_per_pixel,
    create_model,
    model_contract,
    use_local_statistics,
)
from denoisenets.contract import check_positive

EnterPass: TypeAlias = Callable[[], AbstractContextManager[object]]

_log = logging.getLogger(__name__)


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

    def __call__(self, photo: Photo, window: Window | None = None) -> Photo:
        """Denoise one photo; with a `window` its other pixels may have any values."""
        ...


class Identity:
    """Returns the noisy photo: the baseline of all gains."""

    name = "noisy"
    parameters = 0

    def __call__(self, photo: Photo, window: Window | None = None) -> Photo:  # noqa: ARG002
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

    def __call__(self, photo: Photo, window: Window | None = None) -> Photo:  # noqa: ARG002
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
            find_device(self.config.device), self.config.precision, self.config.compiled
        )
        network = create_model(model, **arguments)
        check_positive(crop=crop)
        _load_weights(network, model, weights)
        self.parameters = sum(p.numel() for p in network.parameters())
        self._noise_level = _noise_level_input(
            model, network, self.config.noise_level, self.execution.device
        )
        window = use_local_statistics(network, crop)
        self._tiling = smallest_tiling(model_contract(model, **arguments), window)
        self._warned = False
        self.network = self.execution.place(network.eval())
        self._forward_pass = self.execution.compile(self.network)

    @property
    def weights(self) -> Mapping[str, Tensor]:
        """The state dict that it was made from."""
        return self._source[2]

    @property
    def digest(self) -> str:
        """SHA-256 of the network's name, arguments, crop and weights."""
        model, arguments, weights, crop = self._source
        made = hashlib.sha256(repr((model, sorted(arguments.items()), crop)).encode())
        for name in sorted(weights):
            values = weights[name].detach().cpu().contiguous()
            made.update(f"{name}{values.dtype}{tuple(values.shape)}".encode())
            made.update(values.reshape(-1).view(torch.uint8).numpy().data)
        return made.hexdigest()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by weights and arguments: another machine chooses its own execution."""
        return _rebuild, (*self._source, self.name, self.config)

    def __call__(self, photo: Photo, window: Window | None = None) -> Photo:
        """Denoise one (H, W, 3) photo of any size; with a `window`, only its tiles."""
        return self.batch([photo], window)[0]

    @torch.inference_mode()
    def batch(
        self,
        photos: Sequence[Photo],
        window: Window | None = None,
        *,
        enter: EnterPass = nullcontext,
        pass_pixels: float = math.inf,
    ) -> list[Photo]:
        """Denoise photos of any sizes; small photos of one shape and dtype share a batch. With a
        `window` only these pixels have values.

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
                together = self._denoise([photos[i] for i in chosen], tiling, window, enter)
                results.update(zip(chosen, together, strict=True))
        return [results[i] for i in range(len(photos))]

    @cached_property
    def bytes_per_pixel(self) -> float:
        """Peak memory of activations, per pixel of a tile's input."""
        model, arguments, *_ = self._source
        return bytes_per_pixel(model, dtype=self.execution.dtype, **arguments)

    def tiling(self, height: int, width: int, pass_pixels: float = math.inf) -> Tiling:
        """The tiling of photos of this size: the largest tiles and the largest batch that fit in
        memory and in `pass_pixels`.

        Logs a warning once if the smallest tile does not fit.
        """
        limit = self.config.memory
        memory = self.execution.free_memory() if limit is None else limit * 2**20
        most = min(memory / self.bytes_per_pixel, pass_pixels)
        tiling = largest_tiling(self._tiling, height, width, most, self.config.tile)
        needed = tiling.reads(height) * tiling.reads(width) * self.bytes_per_pixel
        if needed > memory and not self._warned:
            _log.warning(
                "%s needs %.0f MiB for one tile, over the limit of %.0f MiB",
                *(self.name, needed / 2**20, memory / 2**20),
            )
            self._warned = True
        return tiling

    def _denoise(
        self, photos: Sequence[Photo], tiling: Tiling, window: Window | None, enter: EnterPass
    ) -> Photo:
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
            window=window,
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
