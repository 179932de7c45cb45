"""Resident splits: read once, kept in Ray's object store, mapped without copying by every trial and worker."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import ray
from numpy.typing import NDArray

from degrain.data.loader import Patches
from degrain.data.patches import PatchSet, Shard, split_chunks
from degrain.errors import UserError

_BLOCK_BYTES = 256 * 2**20


@dataclass(frozen=True)
class ResidentSplit:
    """References to the blocks of a split; travels to other processes, where `patches` maps them."""

    blocks: tuple[ray.ObjectRef, ...]

    def patches(self) -> Patches:
        """The patches, as read-only views of shared memory."""
        return Patches(ray.get(list(self.blocks)))


def make_resident(patch_set: PatchSet, split: str) -> ResidentSplit:
    """Read a split into the object store, in parallel.

    Raises UserError if the split is empty or would not fit into the store's free memory.
    """
    shards = patch_set.shards(split)
    needed = sum(s.bytes for s in shards)
    free = ray.available_resources().get("object_store_memory", 0)
    if needed > free:
        raise UserError(
            f"the {split} split of {patch_set.uri} needs {needed / 2**30:.1f} GiB of Ray's object store, which has "
            f"{free / 2**30:.1f} GiB free; start Ray with a larger --object-store-memory or ingest with a larger stride"
        )
    read = ray.remote(_read_block)
    return ResidentSplit(tuple(read.remote(patch_set, run) for run in split_chunks(shards, _BLOCK_BYTES)))


def _read_block(patch_set: PatchSet, shards: Sequence[Shard]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    parts = [patch_set.read_shard(shard) for shard in shards]
    return np.concatenate([noisy for noisy, _ in parts]), np.concatenate([clean for _, clean in parts])
