"""Batches by index: a step's patches depend on the seed and the step alone.

`BatchPlan` decides which patches each step sees, how they are cropped and how they are flipped and
rotated; `BatchLoader` makes the share of one rank, a few steps ahead of training. So the number of
workers changes nothing, and resuming needs the step number only.
"""

import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from degrain.imaging.metrics import to_float
from degrain.imaging.pixels import Photo
from degrain.loading.order import Order, Window
from degrain.loading.patches import Patches

_AHEAD = 2
"""Batches that are made in advance."""
Input: TypeAlias = Literal["pair", "synthetic", "clean"]
"""The input of a patch: its noisy half, its clean half with synthetic noise, or its clean half."""


@dataclass(frozen=True)
class Batch:
    """Noisy and clean patches, each (B, 3, S, S) float32 in [0, 1], channels last in memory."""

    noisy: Tensor
    clean: Tensor
    teacher_weight: Tensor | None = None
    """(B, 1, 1, 1): weight of the teacher's output in the target; the clean patch has the rest.
    None: there is no teacher."""

    def __len__(self) -> int:
        return len(self.noisy)

    def parts(self, count: int) -> list["Batch"]:
        """Split the batch into `count` pieces whose sizes differ by one at most."""
        weights: Sequence[Tensor | None] = [None] * count
        if self.teacher_weight is not None:
            weights = self.teacher_weight.tensor_split(count)
        return [
            Batch(*part)
            for part in zip(
                self.noisy.tensor_split(count),
                self.clean.tensor_split(count),
                weights,
                strict=True,
            )
        ]


@dataclass(frozen=True, kw_only=True)
class BatchPlan:
    """The patches that each step sees, with their crops, flips and rotations."""

    seed: int
    order: Order
    side: int
    """Side of a stored patch in pixels."""
    batch_size: int
    """Patches per step over all workers."""
    crop: int
    """Side of the crop that a step sees, at most `side`."""
    synthetic_share: float = 0.0
    """Share of the patches whose clean half gets synthetic noise in place of its noisy half."""
    clean_share: float = 0.0
    """Share of the patches whose clean half is also the input."""
    teacher_share: float | None = None
    """Weight of the teacher's output in the target of a pair. None: there is no teacher."""

    def indices(self, step: int) -> NDArray[np.int64]:
        """Return the patches of step `step` (from 0): (batch_size,) indices, a slice of the
        concatenated epochs.
        """
        return self.order.indices(np.arange(step * self.batch_size, (step + 1) * self.batch_size))

    def windows(self, step: int) -> list[Window]:
        """Return the windows that step `step` reads, and the next one."""
        return self.order.windows(step * self.batch_size, (step + 1) * self.batch_size - 1)

    def crop_positions(self, step: int) -> NDArray[np.int64]:
        """Return the crop of each patch of step `step`: (batch_size, 3) of top, left and one of
        eight orientations.
        """
        random = np.random.default_rng([self.seed, 1, step])
        places = random.integers(0, self.side - self.crop + 1, size=(self.batch_size, 2))
        return np.concatenate([places, random.integers(0, 8, size=(self.batch_size, 1))], axis=1)

    def inputs(self, step: int) -> list[Input]:
        """Return how the input of each patch of step `step` is made."""
        drawn = np.random.default_rng([self.seed, 5, step]).random(self.batch_size)
        clean, synthetic = self.clean_share, self.clean_share + self.synthetic_share
        return ["clean" if d < clean else "synthetic" if d < synthetic else "pair" for d in drawn]

    def share(self, rank: int, world_size: int) -> slice:
        """Return rank `rank`'s share of a batch; shares differ by one patch at most."""
        return slice(
            self.batch_size * rank // world_size, self.batch_size * (rank + 1) // world_size
        )


def dihedral(patch: NDArray[np.generic], orientation: int) -> NDArray[np.generic]:
    """Return one of the eight flips and rotations of a square (S, S, ...) patch, as a view; 0 is
    the identity.
    """
    if orientation & 1:
        patch = patch[::-1]
    if orientation & 2:
        patch = patch[:, ::-1]
    if orientation & 4:
        patch = patch.swapaxes(0, 1)
    return patch


def augment(photos: Tensor, orientations: Tensor) -> Tensor:
    """Apply `dihedral` to each of (B, 3, S, S) photos, in one pass on their device."""
    side = photos.shape[-1]
    pixels = np.arange(side * side).reshape(side, side)
    table = torch.from_numpy(
        np.stack([np.ascontiguousarray(dihedral(pixels, i)).reshape(-1) for i in range(8)])
    )
    places = table.to(photos.device)[orientations.to(photos.device)]
    flat = photos.permute(0, 2, 3, 1).reshape(len(photos), side * side, 3)
    oriented = flat.gather(1, places[:, :, None].expand(-1, -1, 3))
    return oriented.view(len(photos), side, side, 3).permute(0, 3, 1, 2)


class BatchLoader:
    """Makes the share of rank `rank` of each batch, on its device."""

    def __init__(
        self,
        patches: Patches,
        plan: BatchPlan,
        *,
        rank: int = 0,
        world_size: int = 1,
        device: torch.device,
        on_the_fly_noise: bool = False,
    ) -> None:
        self.patches = patches
        self.plan = plan
        self.device = device
        self._share = plan.share(rank, world_size)
        self._on_the_fly_noise = on_the_fly_noise and patches.metadata is not None
        # On a stream of its own, a copy to the GPU overlaps with the step before.
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def batches(self, first: int, last: int) -> Iterator[Batch]:
        """Yield this rank's share of the steps from `first` to before `last`; a thread makes them
        in advance.
        """
        with ThreadPoolExecutor(1, thread_name_prefix="batches") as pool:
            pending = [
                pool.submit(self._make, step) for step in range(first, min(first + _AHEAD, last))
            ]
            try:
                for step in range(first, last):
                    made = pending.pop(0).result()
                    if step + _AHEAD < last:
                        pending.append(pool.submit(self._make, step + _AHEAD))
                    yield self._synchronised(*made)
            finally:
                for future in pending:
                    future.cancel()

    def batch(self, step: int) -> Batch:
        """Return this rank's share of step `step`."""
        return self._synchronised(*self._make(step))

    def _make(self, step: int) -> tuple[Batch, torch.cuda.Event | None]:
        """Make the batch of a step, and an event for the end of its copy to the GPU."""
        self.patches.prefetch(self.plan.windows(step))
        positions = self.plan.crop_positions(step)[self._share]
        # A CPU flips and rotates in the copy that it makes anyway, a GPU after the transfer.
        on_cpu = self.device.type == "cpu"
        pixels = torch.from_numpy(self._crops(step, positions, orient=on_cpu))
        if self._stream is not None:
            pixels = pixels.pin_memory()
        with torch.cuda.stream(self._stream) if self._stream is not None else nullcontext():
            # (2, B, S, S, 3) pixels are (2, B, 3, S, S), channels last.
            noisy, clean = to_float(
                pixels.to(self.device, non_blocking=True).permute(0, 1, 4, 2, 3)
            ).unbind(0)
            if not on_cpu:
                orientations = torch.from_numpy(positions[:, 2])
                noisy, clean = augment(noisy, orientations), augment(clean, orientations)
            weight = self._teacher_weight(step)
        copied = self._stream.record_event() if self._stream is not None else None
        return Batch(noisy, clean, weight), copied

    def _synchronised(self, batch: Batch, copied: torch.cuda.Event | None) -> Batch:
        """Make the current stream wait for the copy of the batch."""
        if copied is not None:
            stream = torch.cuda.current_stream(self.device)
            stream.wait_event(copied)
            for tensor in (batch.noisy, batch.clean, batch.teacher_weight):
                if tensor is not None:
                    tensor.record_stream(stream)
        return batch

    def _teacher_weight(self, step: int) -> Tensor | None:
        """Weights of the teacher's outputs: 1 without a clean partner, 0 for a clean input."""
        if self.plan.teacher_share is None:
            return None
        inputs = self._inputs(step)
        weights = [
            1.0 if self._unpaired(index) else 0.0 if kind == "clean" else self.plan.teacher_share
            for index, kind in zip(self.plan.indices(step)[self._share], inputs, strict=True)
        ]
        return torch.tensor(weights, device=self.device).view(-1, 1, 1, 1)

    def _inputs(self, step: int) -> list[Input]:
        """How the input of each patch of this rank is made; without a clean half, by no noise."""
        indices = self.plan.indices(step)[self._share]
        return [
            "pair" if self._unpaired(index) else kind
            for index, kind in zip(indices, self.plan.inputs(step)[self._share], strict=True)
        ]

    def _unpaired(self, index: int) -> bool:
        metadata = self.patches.metadata
        return bool(
            metadata is not None and metadata.unpaired is not None and metadata.unpaired[index]
        )

    def _crops(self, step: int, positions: NDArray[np.int64], *, orient: bool) -> Photo:
        """Cut noisy and clean crops of this rank: (2, B, S, S, 3) of the patches' type."""
        indices, size = self.plan.indices(step)[self._share], self.plan.crop
        crops: Photo = np.empty((2, len(indices), size, size, 3), dtype=self.patches.dtype)
        targets, inputs = _as_pixels(crops), self._inputs(step)
        for i, (index, (top, left, orientation)) in enumerate(
            zip(indices.tolist(), positions.tolist(), strict=True)
        ):
            pair = self._pair(index, inputs[i], f"{self.plan.seed}:{step}:{self._share.start + i}")
            for target, patch in zip(targets[:, i], pair, strict=True):
                crop = _as_pixels(patch)[top : top + size, left : left + size]
                np.copyto(target, dihedral(crop, orientation if orient else 0))
        return crops

    def _pair(self, index: int, kind: Input, seed: str) -> tuple[Photo, Photo]:
        """Return the input and the clean half of a patch; `seed` is that of its synthetic noise."""
        noisy, clean = self.patches[index]
        if kind == "clean":
            return clean, clean
        noise = self._noise(index, kind, seed)
        if noise is not None:
            # Imported here so that batches are made where there is no SciPy.
            from degrain.imaging.noise_synthesis import add_noise

            noisy = add_noise(clean, noise, seed)
        return noisy, clean

    def _noise(self, index: int, kind: Input, seed: str) -> str | None:
        """Return the synthetic noise of a patch in this step; None: its noisy half is the input."""
        metadata = self.patches.metadata
        if self._on_the_fly_noise and metadata is not None and (code := metadata.noise[index]) >= 0:
            return str(metadata.noises[code])
        if kind != "synthetic":
            return None
        choices = ("wide", *(metadata.fitted if metadata is not None else ()))
        return random.Random(seed).choice(choices)


def _as_pixels(photos: Photo) -> NDArray[np.void]:
    """View (..., 3) values as (...) pixels of three values; whole pixels are copied three times as
    fast.
    """
    return photos.view(np.dtype((np.void, 3 * photos.itemsize)))[..., 0]
