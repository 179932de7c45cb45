"""Patch pairs of a split, addressed by index, in memory or streamed."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from degrain.balance import balanced_weights
from degrain.imaging.pixels import Photo, sixteen_bits
from degrain.loading.order import Order, Permuted, Window
from degrain.spacing import evenly_spaced

Block: TypeAlias = tuple[Photo, Photo]
"""Noisy and clean patches, each (N, P, P, 3)."""


@dataclass(frozen=True)
class PatchMetadata:
    """Metadata of each patch of a split, in the order of the patches."""

    groups: NDArray[np.int32]
    """(N,): index of the group of each patch: the camera and ISO of a corpus."""
    corpora: tuple[str, ...]
    """The corpus of each group."""
    noise: NDArray[np.int16]
    """(N,): index into `noises` of the synthetic noise of each patch; -1 for real pairs."""
    noises: tuple[str, ...]
    """Synthetic noises, see `imaging.noise_synthesis`."""
    fitted: tuple[str, ...] = ()
    """Noises around those of the real pairs, for patches that get synthetic noise."""
    unpaired: NDArray[np.bool_] | None = None
    """(N,): patches of noisy photos without clean partners. None: there are none."""


class Patches(Protocol):
    """The patch pairs of a split; all are 16-bit if some are."""

    side: int
    """Side of a patch, pixels."""
    dtype: np.dtype[np.generic]
    """uint8 or uint16."""
    metadata: PatchMetadata | None

    def __len__(self) -> int:
        """Number of patch pairs."""
        ...

    def __getitem__(self, index: int) -> tuple[Photo, Photo]:
        """Return one pair of patches, each (P, P, 3)."""
        ...

    def order(self, seed: int, *, balance: float) -> Order:
        """Return the order in which training sees the patches, see `balanced_weights`."""
        ...

    def prefetch(self, windows: Sequence[Window]) -> None:
        """Load the windows that a step needs; the last one may still be loading on return."""
        ...


class ResidentPatches:
    """Patches of which all are in memory, in blocks of (N, P, P, 3) uint8 or uint16."""

    def __init__(self, blocks: Sequence[Block], metadata: PatchMetadata | None = None) -> None:
        assert blocks, "a split has at least one block"
        self.side = int(blocks[0][0].shape[1])
        self.dtype = np.result_type(*(noisy.dtype for noisy, _ in blocks))
        self.metadata = metadata
        self._blocks = list(blocks)
        self._ends = list(accumulate(len(noisy) for noisy, _ in blocks))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> tuple[Photo, Photo]:
        """Return one pair of patches, as views unless they are converted to 16 bits."""
        block = bisect_right(self._ends, index)
        place = index - (self._ends[block - 1] if block else 0)
        return pair_in_block(self._blocks[block], place, self.dtype)

    def order(self, seed: int, *, balance: float) -> Order:
        """Return a permutation of all patches per epoch."""
        weights = sampling_weights(self.metadata, balance)
        return Permuted(seed=seed, patches=len(self), weights=weights)

    def prefetch(self, windows: Sequence[Window]) -> None:
        """Do nothing: all patches are in memory."""


def pair_in_block(block: Block, place: int, dtype: np.dtype[np.generic]) -> tuple[Photo, Photo]:
    """Return one pair of a block; a view, except for 8-bit patches of a 16-bit split."""
    noisy, clean = block
    if noisy.dtype != dtype:
        return sixteen_bits(noisy[place]), sixteen_bits(clean[place])
    return noisy[place], clean[place]


def sampling_weights(metadata: PatchMetadata | None, balance: float) -> NDArray[np.float64] | None:
    """Return the weights of the patches; None means that an epoch shows each patch once."""
    if metadata is None or balance == 0:
        return None
    sizes = np.bincount(metadata.groups, minlength=len(metadata.corpora))
    return balanced_weights(sizes, metadata.corpora, balance)[metadata.groups]


def balanced_sample(metadata: PatchMetadata, count: int) -> NDArray[np.int64]:
    """Choose at most `count` patches, as many of each corpus as possible, evenly spaced over its
    patches; returns their sorted indices.
    """
    corpora = np.array(metadata.corpora)[metadata.groups]
    members = [np.flatnonzero(corpora == corpus) for corpus in dict.fromkeys(metadata.corpora)]
    # The smallest corpora first, so that larger ones take what they leave.
    members.sort(key=len)
    chosen: list[NDArray[np.int64]] = []
    for number, own in enumerate(members):
        share = (count - sum(map(len, chosen))) // (len(members) - number)
        chosen.append(own[evenly_spaced(len(own), share)])
    return np.sort(np.concatenate(chosen))
