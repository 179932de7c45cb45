"""Batches by index: what a step sees depends on the seed and the step alone.

The patches of a split are a few arrays (`Patches`), mapped from Ray's object store or read into memory. An epoch's order
is a permutation drawn from (seed, epoch); step k takes the k-th slice of the epochs laid end to end, and rank r of w
takes the r-th part of that slice. Crops, flips and rotations are drawn from (seed, step) for the whole slice. So the number
of workers changes nothing, and resuming needs no more than the step's number.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from degrain.imaging.metrics import to_float
from degrain.imaging.pixels import Photo, sixteen_bits


class Patches:
    """The patch pairs of a split: blocks of (N, P, P, 3) uint8 or uint16, noisy and clean, addressed as one sequence.

    Where some blocks have 16 bits, all patches come in 16.
    """

    def __init__(self, blocks: Sequence[tuple[Photo, Photo]], weights: NDArray[np.float64] | None = None) -> None:
        assert blocks, "a split has at least one block"
        self._blocks = list(blocks)
        self._ends = np.cumsum([len(noisy) for noisy, _ in blocks])
        self.side = int(blocks[0][0].shape[1])
        """Side of a patch in pixels."""
        self.dtype = np.result_type(*(noisy.dtype for noisy, _ in blocks))
        """uint8 or uint16."""
        self.weights = weights
        """How often to draw each patch so that cameras and ISOs are balanced, (len,) of mean 1; None if not known."""

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> tuple[Photo, Photo]:
        """One pair of patches, each (P, P, 3), as views where their bits are those of the split."""
        block = int(np.searchsorted(self._ends, index, side="right"))
        place = index - (int(self._ends[block - 1]) if block else 0)
        noisy, clean = self._blocks[block]
        if noisy.dtype != self.dtype:
            return sixteen_bits(noisy[place]), sixteen_bits(clean[place])
        return noisy[place], clean[place]


@dataclass(frozen=True)
class Batch:
    """Noisy and clean patches, each (B, 3, S, S) float32 in [0, 1], channels last in memory."""

    noisy: Tensor
    clean: Tensor


@lru_cache(maxsize=2)
def epoch_order(seed: int, epoch: int, patches: int) -> NDArray[np.int64]:
    """The order in which an epoch shows its patches: a permutation of 0..patches."""
    return np.random.default_rng([seed, 0, epoch]).permutation(patches)


@dataclass(frozen=True, kw_only=True)
class BatchPlan:
    """Which patches each step sees, and how they are cropped and turned."""

    seed: int
    patches: int
    """Patches in the split."""
    side: int
    """Side of a stored patch in pixels."""
    batch_size: int
    """Patches per step over all workers."""
    crop: int
    """Side of the crop that a step sees, at most `side`."""
    weights: NDArray[np.float64] | None = field(default=None, repr=False)
    """(patches,): how often an epoch shows each patch, on average 1; None: each once."""
    _drawn: dict[int, NDArray[np.int64]] = field(default_factory=dict, init=False, repr=False, compare=False)
    """The patches of the last epochs, in their order."""

    def indices(self, step: int) -> NDArray[np.int64]:
        """The patches of step `step` (from 0): (batch_size,) indices; without weights an epoch shows each patch once."""
        places = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
        epochs = places // self.patches
        indices = np.empty(self.batch_size, dtype=np.int64)
        for epoch in np.unique(epochs):
            chosen = epochs == epoch
            indices[chosen] = self._order(int(epoch))[places[chosen] % self.patches]
        return indices

    def _order(self, epoch: int) -> NDArray[np.int64]:
        order = epoch_order(self.seed, epoch, self.patches)
        if self.weights is None:
            return order
        if epoch not in self._drawn:
            if len(self._drawn) > 1:
                self._drawn.clear()
            self._drawn[epoch] = self._draw(epoch)[order]
        return self._drawn[epoch]

    def _draw(self, epoch: int) -> NDArray[np.int64]:
        """Each patch as often as its weight says, rounded up or down so that the epoch keeps its length.

        Systematic sampling from a start that differs between epochs, so that a patch of small weight gets its turn.
        """
        assert self.weights is not None
        ends = np.cumsum(self.weights) * (self.patches / self.weights.sum())
        start = np.random.default_rng([self.seed, 2, epoch]).random()
        return np.minimum(np.searchsorted(ends, np.arange(self.patches) + start, side="right"), self.patches - 1)

    def views(self, step: int) -> NDArray[np.int64]:
        """How each patch of step `step` is seen: (batch_size, 3) of top, left and one of eight orientations."""
        random = np.random.default_rng([self.seed, 1, step])
        places = random.integers(0, self.side - self.crop + 1, size=(self.batch_size, 2))
        return np.concatenate([places, random.integers(0, 8, size=(self.batch_size, 1))], axis=1)


def oriented(patch: Photo, orientation: int) -> Photo:
    """One of the eight flips and rotations of a square (S, S, 3) patch, as a view; 0 leaves it as it is."""
    if orientation & 1:
        patch = patch[::-1]
    if orientation & 2:
        patch = patch[:, ::-1]
    if orientation & 4:
        patch = patch.transpose(1, 0, 2)
    return patch


class BatchLoader:
    """Gives rank `rank` of `world_size` its part of each step's batch, on its device."""

    def __init__(
        self, patches: Patches, plan: BatchPlan, *, rank: int = 0, world_size: int = 1, device: torch.device
    ) -> None:
        self.patches = patches
        self.plan = plan
        self.device = device
        share = plan.batch_size // world_size
        self._part = slice(rank * share, (rank + 1) * share)

    def batch(self, step: int) -> Batch:
        """This rank's part of step `step`."""
        indices, views = self.plan.indices(step)[self._part], self.plan.views(step)[self._part]
        size = self.plan.crop
        noisy = np.empty((len(indices), size, size, 3), dtype=self.patches.dtype)
        clean = np.empty_like(noisy)
        for i, (index, (top, left, orientation)) in enumerate(zip(indices, views, strict=True)):
            for target, patch in zip((noisy, clean), self.patches[int(index)], strict=True):
                target[i] = oriented(patch[top : top + size, left : left + size], int(orientation))
        return Batch(self._to_device(noisy), self._to_device(clean))

    def _to_device(self, patches: Photo) -> Tensor:
        # (B, S, S, 3) pixels are (B, 3, S, S) channels last; conversion happens on the device.
        return to_float(torch.from_numpy(patches).to(self.device).permute(0, 3, 1, 2))
