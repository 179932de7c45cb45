"""Batches by index: what a step sees depends on the seed and the step alone.

The patches of a split are arrays (`Patches`), mapped from Ray's object store or read into memory. `BatchPlan` says which of
them each step sees and how they are cropped and turned; `BatchLoader` makes rank r's part of it, a little ahead of the step
that takes it. So the number of workers changes nothing, and resuming needs no more than the step's number.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from degrain.data.order import Order, Window
from degrain.imaging.metrics import to_float
from degrain.imaging.pixels import Photo, sixteen_bits

_AHEAD = 2
"""Batches that are made before they are asked for."""


@dataclass(frozen=True)
class PatchNotes:
    """What is known of each patch of a split beside its pixels, in the order of the patches."""

    weights: NDArray[np.float64]
    """(N,): how often to draw each patch so that corpora, cameras and ISOs are balanced; 1 on average."""
    noise: NDArray[np.int16]
    """(N,): which of `noises` made the noisy patch of the clean one; -1 for real pairs."""
    noises: tuple[str, ...]
    """Named noises, see `imaging.synthesis`."""


class Patches:
    """The patch pairs of a split: blocks of (N, P, P, 3) uint8 or uint16, noisy and clean, addressed as one sequence.

    Where some blocks have 16 bits, all patches come in 16.
    """

    def __init__(self, blocks: Sequence[tuple[Photo, Photo]], notes: PatchNotes | None = None) -> None:
        assert blocks, "a split has at least one block"
        self._blocks = list(blocks)
        self._ends = list(accumulate(len(noisy) for noisy, _ in blocks))
        self.side = int(blocks[0][0].shape[1])
        """Side of a patch in pixels."""
        self.dtype = np.result_type(*(noisy.dtype for noisy, _ in blocks))
        """uint8 or uint16."""
        self.notes = notes

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> tuple[Photo, Photo]:
        """One pair of patches, each (P, P, 3), as views where their bits are those of the split."""
        block = bisect_right(self._ends, index)
        place = index - (self._ends[block - 1] if block else 0)
        noisy, clean = self._blocks[block]
        if noisy.dtype != self.dtype:
            return sixteen_bits(noisy[place]), sixteen_bits(clean[place])
        return noisy[place], clean[place]

    def hold(self, windows: Sequence[Window]) -> None:
        """Get ready for the patches of these windows, and of no others: here all of them are there."""


@dataclass(frozen=True)
class Batch:
    """Noisy and clean patches, each (B, 3, S, S) float32 in [0, 1], channels last in memory."""

    noisy: Tensor
    clean: Tensor

    def __len__(self) -> int:
        return len(self.noisy)

    def parts(self, count: int) -> list["Batch"]:
        """The batch in so many pieces, as equal as can be."""
        return [Batch(*pair) for pair in zip(self.noisy.tensor_split(count), self.clean.tensor_split(count), strict=True)]


@dataclass(frozen=True, kw_only=True)
class BatchPlan:
    """Which patches each step sees, and how they are cropped and turned."""

    seed: int
    order: Order
    side: int
    """Side of a stored patch in pixels."""
    batch_size: int
    """Patches per step over all workers."""
    crop: int
    """Side of the crop that a step sees, at most `side`."""

    def indices(self, step: int) -> NDArray[np.int64]:
        """The patches of step `step` (from 0): (batch_size,) indices, a slice of the epochs laid end to end."""
        return self.order.indices(np.arange(step * self.batch_size, (step + 1) * self.batch_size))

    def windows(self, step: int) -> list[Window]:
        """The windows of the order that step `step` sees, and the one after them."""
        return self.order.windows(step * self.batch_size, (step + 1) * self.batch_size - 1)

    def views(self, step: int) -> NDArray[np.int64]:
        """How each patch of step `step` is seen: (batch_size, 3) of top, left and one of eight orientations."""
        random = np.random.default_rng([self.seed, 1, step])
        places = random.integers(0, self.side - self.crop + 1, size=(self.batch_size, 2))
        return np.concatenate([places, random.integers(0, 8, size=(self.batch_size, 1))], axis=1)

    def share(self, rank: int, world_size: int) -> slice:
        """Rank `rank`'s part of a step's patches: the parts of all ranks differ by one patch at most."""
        return slice(self.batch_size * rank // world_size, self.batch_size * (rank + 1) // world_size)


def oriented(patch: NDArray[np.generic], orientation: int) -> NDArray[np.generic]:
    """One of the eight flips and rotations of a square (S, S, ...) patch, as a view; 0 leaves it as it is."""
    if orientation & 1:
        patch = patch[::-1]
    if orientation & 2:
        patch = patch[:, ::-1]
    if orientation & 4:
        patch = patch.swapaxes(0, 1)
    return patch


def turned(photos: Tensor, orientations: Tensor) -> Tensor:
    """Each of (B, 3, S, S) photos in its orientation, as `oriented` does it, in one pass on the photos' device."""
    side = photos.shape[-1]
    pixels = np.arange(side * side).reshape(side, side)
    table = torch.from_numpy(np.stack([np.ascontiguousarray(oriented(pixels, i)).reshape(-1) for i in range(8)]))
    places = table.to(photos.device)[orientations.to(photos.device)]
    flat = photos.permute(0, 2, 3, 1).reshape(len(photos), side * side, 3)
    made = flat.gather(1, places[:, :, None].expand(-1, -1, 3))
    return made.view(len(photos), side, side, 3).permute(0, 3, 1, 2)


class BatchLoader:
    """Gives rank `rank` of `world_size` its part of each step's batch, on its device."""

    def __init__(
        self,
        patches: Patches,
        plan: BatchPlan,
        *,
        rank: int = 0,
        world_size: int = 1,
        device: torch.device,
        fresh_noise: bool = False,
    ) -> None:
        self.patches = patches
        self.plan = plan
        self.device = device
        self._part = plan.share(rank, world_size)
        self._fresh_noise = fresh_noise and patches.notes is not None
        # A stream of its own lets copies to a GPU run beside the step that uses the batch before.
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def batches(self, first: int, last: int) -> Iterator[Batch]:
        """This rank's parts of the steps from `first` to before `last`, made by a thread before they are asked for."""
        with ThreadPoolExecutor(1, thread_name_prefix="batches") as pool:
            pending = [pool.submit(self._make, step) for step in range(first, min(first + _AHEAD, last))]
            try:
                for step in range(first, last):
                    made = pending.pop(0).result()
                    if step + _AHEAD < last:
                        pending.append(pool.submit(self._make, step + _AHEAD))
                    yield self._arrived(*made)
            finally:
                for future in pending:
                    future.cancel()

    def batch(self, step: int) -> Batch:
        """This rank's part of step `step`."""
        return self._arrived(*self._make(step))

    def _make(self, step: int) -> tuple[Batch, torch.cuda.Event | None]:
        """The batch of a step, and what says that it is on the GPU."""
        self.patches.hold(self.plan.windows(step))
        views = self.plan.views(step)[self._part]
        # A CPU turns patches for little more than the copy that it makes anyway; a GPU turns them after the transfer.
        here = self.device.type == "cpu"
        pixels = torch.from_numpy(self._cut(step, views, turn=here))
        if self._stream is not None:
            pixels = pixels.pin_memory()
        with torch.cuda.stream(self._stream) if self._stream is not None else nullcontext():
            # (2, B, S, S, 3) pixels are (2, B, 3, S, S), channels last.
            noisy, clean = to_float(pixels.to(self.device, non_blocking=True).permute(0, 1, 4, 2, 3)).unbind(0)
            if not here:
                orientations = torch.from_numpy(views[:, 2])
                noisy, clean = turned(noisy, orientations), turned(clean, orientations)
        return Batch(noisy, clean), self._stream.record_event() if self._stream is not None else None

    def _arrived(self, batch: Batch, copied: torch.cuda.Event | None) -> Batch:
        """The batch, whose copy to the GPU the coming work waits for."""
        if copied is not None:
            now = torch.cuda.current_stream(self.device)
            now.wait_event(copied)
            for tensor in (batch.noisy, batch.clean):
                tensor.record_stream(now)
        return batch

    def _cut(self, step: int, views: NDArray[np.int64], *, turn: bool) -> Photo:
        """Noisy and clean crops of this rank: (2, B, S, S, 3) of the patches' type."""
        indices, size = self.plan.indices(step)[self._part], self.plan.crop
        made: Photo = np.empty((2, len(indices), size, size, 3), dtype=self.patches.dtype)
        targets = _whole_pixels(made)
        for i, (index, (top, left, orientation)) in enumerate(zip(indices.tolist(), views.tolist(), strict=True)):
            for target, patch in zip(targets[:, i], self._pair(index, step, self._part.start + i), strict=True):
                crop = _whole_pixels(patch)[top : top + size, left : left + size]
                np.copyto(target, oriented(crop, orientation if turn else 0))
        return made

    def _pair(self, index: int, step: int, place: int) -> tuple[Photo, Photo]:
        """The pair of a patch; where its noise was made and is to be fresh, made anew for this place of this step."""
        noisy, clean = self.patches[index]
        notes = self.patches.notes
        if self._fresh_noise and notes is not None and (code := notes.noise[index]) >= 0:
            # Here alone, so that batches are made where there is no SciPy.
            from degrain.imaging.synthesis import add_noise

            noisy = add_noise(clean, notes.noises[code], f"{self.plan.seed}:{step}:{place}")
        return noisy, clean


def _whole_pixels(photos: Photo) -> NDArray[np.void]:
    """(..., 3) values as (...) pixels of three values, without copying: moving them whole is three times as fast."""
    return photos.view(np.dtype((np.void, 3 * photos.itemsize)))[..., 0]
