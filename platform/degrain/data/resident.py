"""Resident splits: read once, kept in Ray's object store, mapped without copying by every trial and worker."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import ray
from numpy.typing import NDArray

from degrain.data.catalog import CatalogRow
from degrain.data.loader import Patches
from degrain.data.patches import PatchSet, Shard, split_chunks
from degrain.errors import UserError
from degrain.imaging.pixels import Photo

_BLOCK_BYTES = 256 * 2**20


@dataclass(frozen=True)
class ResidentSplit:
    """References to the blocks of a split; travels to other processes, where `patches` maps them."""

    blocks: tuple[ray.ObjectRef, ...]
    weights: NDArray[np.float64] | None = None
    """Of each patch, see `Patches`."""

    def patches(self) -> Patches:
        """The patches, as read-only views of shared memory."""
        return Patches(ray.get(list(self.blocks)), self.weights)


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
    runs = [run for bits in (8, 16) for run in split_chunks([s for s in shards if s.bits == bits], _BLOCK_BYTES)]
    return ResidentSplit(tuple(read.remote(patch_set, run) for run in runs), patch_weights(patch_set, runs))


def patch_weights(patch_set: PatchSet, runs: Sequence[Sequence[Shard]]) -> NDArray[np.float64]:
    """The weight of each patch of the shards, in their order."""
    groups = {(g.split, g.corpus, g.camera, g.iso): g.weight for g in patch_set.manifest.groups}
    rows: dict[str | None, list[CatalogRow]] = defaultdict(list)
    for row in patch_set.catalog:
        rows[row.shard].append(row)
    # A shard holds its pairs by id, as the catalog does.
    ordered = [row for run in runs for shard in run for row in rows[shard.key]]
    weights = [groups[row.split, row.corpus, row.camera, row.iso] for row in ordered]
    return np.repeat(weights, [row.patches for row in ordered])


def _read_block(patch_set: PatchSet, shards: Sequence[Shard]) -> tuple[Photo, Photo]:
    parts = [patch_set.read_shard(shard) for shard in shards]
    return np.concatenate([noisy for noisy, _ in parts]), np.concatenate([clean for _, clean in parts])
