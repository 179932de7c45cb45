"""Splits in Ray's object store, mapped from there without copying by every trial and worker of a node.

A *resident* split is read whole, once. A *streamed* one does not fit: windows of its shards are read one ahead of the steps
that see them, each once for all workers, and dropped when they have been seen.
"""

from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from degrain.data.catalog import CatalogRow
from degrain.data.loader import Patches, PatchNotes
from degrain.data.order import Window
from degrain.data.patches import PatchSet, Shard, split_chunks
from degrain.data.spread import spread
from degrain.data.streamed import Block, StreamedPatches
from degrain.errors import UserError
from degrain.imaging.pixels import Photo

_BLOCK_BYTES = 256 * 2**20
_STORE_SHARE = 0.6
"""Share of a node's object store that a resident split may take."""
_SAMPLE_TASKS = 8
"""Tasks that read a sample, of each depth."""
_WINDOWS_KEPT = 4
"""That a step ends in, that it begins in, the next, and one for a worker that lags behind."""


class Split(Protocol):
    """A split that travels to other processes."""

    def patches(self) -> Patches:
        """Its patches, as read-only views of shared memory."""
        ...


@dataclass(frozen=True)
class ResidentSplit:
    """References to the blocks of a split; travels to other processes, where `patches` maps them."""

    blocks: tuple[ray.ObjectRef, ...]
    notes: PatchNotes | None = None

    def patches(self) -> Patches:
        """The patches, as read-only views of shared memory."""
        return Patches(ray.get(list(self.blocks)), self.notes)


@dataclass(frozen=True)
class StreamedSplit:
    """What reads the windows of a split, and what is in its shards."""

    shelf: Any
    """Handle of a `_Shelf`."""
    shards: tuple[int, ...]
    side: int
    bits: int
    window: int
    notes: PatchNotes

    def patches(self) -> Patches:
        """The patches, of which those of a few windows are there at a time."""

        def fetch(window: Window) -> Any:  # noqa: ANN401 - a function that waits for blocks
            references = ray.get(self.shelf.window.remote(window))

            def wait() -> Any:  # noqa: ANN401 - the blocks
                try:
                    return ray.get(references)
                except ray.exceptions.RayError:
                    # Who comes next should have it read again.
                    self.shelf.forget.remote(window)
                    raise

            return wait

        return StreamedPatches(fetch, self.shards, self.side, self.bits, self.window, self.notes)


def make_resident(patch_set: PatchSet, split: str) -> ResidentSplit:
    """Read a split into the object store, in parallel.

    Raises UserError if the split is empty or would not fit into the store.
    """
    shards = patch_set.shards(split)
    if (needed := _bytes(patch_set, shards)) > (free := _store_bytes()):
        raise UserError(
            f"the {split} split of {patch_set.uri} needs {needed / 2**30:.1f} GiB of Ray's object store, which has "
            f"{free / 2**30:.1f} GiB for it on its smallest node; stream it (--batches streaming), or start Ray with a "
            "larger --object-store-memory"
        )
    runs = [run for bits in (8, 16) for run in split_chunks([s for s in shards if s.bits == bits], _BLOCK_BYTES)]
    blocks = tuple(_reader().remote(patch_set, run) for run in runs)
    return ResidentSplit(blocks, patch_notes(patch_set, [shard for run in runs for shard in run]))


def make_streamed(patch_set: PatchSet, split: str, window_bytes: int) -> StreamedSplit:
    """Stream a split in windows of about `window_bytes`. Raises UserError if it is empty, or the windows do not fit."""
    shards = patch_set.shards(split)
    if (needed := min(_WINDOWS_KEPT * window_bytes, _bytes(patch_set, shards))) > (free := _store_bytes()):
        raise UserError(
            f"streaming needs {needed / 2**30:.1f} GiB of Ray's object store for windows of {window_bytes / 2**20:.0f} "
            f"MiB, and there are {free / 2**30:.1f}; lower --window-megabytes or start Ray with a larger "
            "--object-store-memory"
        )
    bits = max(s.bits for s in shards)
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    shelf = ray.remote(_Shelf).options(num_cpus=0, scheduling_strategy=here).remote(patch_set, shards)
    return StreamedSplit(
        shelf,
        tuple(s.patches for s in shards),
        patch_set.manifest.geometry.patch_size,
        bits,
        max(1, window_bytes // (2 * patch_set.manifest.geometry.patch_bytes(bits))),
        patch_notes(patch_set, shards),
    )


def fits(patch_set: PatchSet, split: str) -> bool:
    """Whether a split can be resident."""
    return _bytes(patch_set, patch_set.shards(split)) <= _store_bytes()


def make_sample(patch_set: PatchSet, split: str, count: int) -> ResidentSplit:
    """At most `count` patches, spread evenly over a split: what a validation scores. Raises UserError if it is empty."""
    shards = patch_set.shards(split)
    ends = np.cumsum([s.patches for s in shards])
    chosen = np.array(spread(int(ends[-1]), count))
    owners = np.searchsorted(ends, chosen, side="right")
    reader = ray.remote(_read_some).options(num_cpus=0)
    # One block of each depth and a few shards: patches of 8 and of 16 bits lie in different blocks.
    parts: dict[tuple[int, int], list[tuple[Shard, list[int]]]] = defaultdict(list)
    for place, n in enumerate(np.unique(owners).tolist()):
        first = int(ends[n]) - shards[n].patches
        parts[shards[n].bits, place % _SAMPLE_TASKS].append((shards[n], (chosen[owners == n] - first).tolist()))
    return ResidentSplit(tuple(reader.remote(patch_set, run) for run in parts.values()))


def patch_notes(patch_set: PatchSet, shards: Sequence[Shard]) -> PatchNotes:
    """What the catalog knows of each patch of the shards, in their order."""
    groups = {(g.split, g.corpus, g.camera, g.iso): g.weight for g in patch_set.manifest.groups}
    rows: dict[str | None, list[CatalogRow]] = defaultdict(list)
    for row in patch_set.catalog:
        rows[row.shard].append(row)
    # A shard holds its pairs by id, as the catalog does.
    ordered = [row for shard in shards for row in rows[shard.key]]
    counts = [row.patches for row in ordered]
    noises = sorted({row.noise for row in ordered if row.noise is not None})
    codes = [-1 if row.noise is None else noises.index(row.noise) for row in ordered]
    weights = np.array([groups[row.split, row.corpus, row.camera, row.iso] for row in ordered], dtype=np.float64)
    return PatchNotes(np.repeat(weights, counts), np.repeat(np.array(codes, dtype=np.int16), counts), tuple(noises))


class _Shelf:
    """Has windows read when they are first asked for, and keeps the newest few for the workers that ask next."""

    def __init__(self, patch_set: PatchSet, shards: Sequence[Shard]) -> None:
        self._patch_set = patch_set
        self._shards = shards
        self._windows: OrderedDict[Window, list[ray.ObjectRef]] = OrderedDict()

    def window(self, window: Window) -> list[ray.ObjectRef]:
        """References to the blocks of a window, one for each of its shards."""
        if window not in self._windows:
            self._windows[window] = [_reader().remote(self._patch_set, [self._shards[n]]) for n in window]
        self._windows.move_to_end(window)
        while len(self._windows) > _WINDOWS_KEPT:
            self._windows.popitem(last=False)
        return self._windows[window]

    def forget(self, window: Window) -> None:
        """Have a window read anew the next time: reading it failed."""
        self._windows.pop(window, None)


def _reader() -> Any:  # noqa: ANN401 - a remote function
    # It takes no CPU: workers may hold all of them, while they wait for what it reads.
    return ray.remote(_read_block).options(num_cpus=0)


def _read_block(patch_set: PatchSet, shards: Sequence[Shard]) -> Block:
    parts = [patch_set.read_shard(shard) for shard in shards]
    return np.concatenate([noisy for noisy, _ in parts]), np.concatenate([clean for _, clean in parts])


def _read_some(patch_set: PatchSet, parts: Sequence[tuple[Shard, list[int]]]) -> Block:
    found: list[tuple[Photo, Photo]] = []
    for shard, places in parts:
        noisy, clean = patch_set.read_shard(shard)
        found.append((noisy[places], clean[places]))
    return np.concatenate([noisy for noisy, _ in found]), np.concatenate([clean for _, clean in found])


def _bytes(patch_set: PatchSet, shards: Sequence[Shard]) -> int:
    return sum(2 * s.patches * patch_set.manifest.geometry.patch_bytes(s.bits) for s in shards)


def _store_bytes() -> int:
    """What a split may take of the smallest node's object store, and of what is free in all."""
    stores = [node["Resources"].get("object_store_memory", 0) for node in ray.nodes() if node["Alive"]]
    free = ray.available_resources().get("object_store_memory", 0)
    return int(min(_STORE_SHARE * min(stores), free))
