"""Splits in Ray's object store, which all trials and workers of a node map without copying.

A *resident* split is read once as a whole. A *streamed* split does not fit: windows of its shards
are read one window ahead of training, once for all workers, and dropped afterwards.
"""

from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from degrain.corpora.record import PairRecord
from degrain.errors import UserError
from degrain.imaging.pixels import Photo
from degrain.loading.order import Window
from degrain.loading.patches import (
    Block,
    Patches,
    PatchMetadata,
    ResidentPatches,
    balanced_sample,
)
from degrain.loading.streamed import StreamedPatches
from degrain.patchsets.manifest import Shard, split_chunks
from degrain.patchsets.patch_set import PatchSet
from degrain.patchsets.reading import ShardReader

_BLOCK_BYTES = 256 * 2**20
_STORE_SHARE = 0.6
"""Share of a node's object store that a resident split may take."""
_SAMPLE_TASKS = 8
"""Tasks that read a sample, per bit depth."""
_WINDOWS_KEPT = 4
"""The two that a step may read, the next, and one for a worker that is behind."""

_LARGEST_WINDOW = 1024 * 10**6
"""Bytes; larger ones hardly shuffle better."""


class Split(Protocol):
    """A split that can be sent to other processes."""

    def patches(self) -> Patches:
        """Return its patches, as read-only views of shared memory."""
        ...


@dataclass(frozen=True)
class ResidentSplit:
    """References to the blocks of a split in the object store."""

    blocks: tuple[ray.ObjectRef, ...]
    metadata: PatchMetadata | None = None

    def patches(self) -> Patches:
        """Return the patches, as read-only views of shared memory."""
        return ResidentPatches(ray.get(list(self.blocks)), self.metadata)


@dataclass(frozen=True)
class StreamedSplit:
    """The reader of a split's windows, and the sizes of its shards."""

    cache: Any
    """Handle of a `WindowCache`."""
    shards: tuple[int, ...]
    """Patches in each shard."""
    side: int
    bits: int
    window: int
    """Patches that are shuffled together."""
    metadata: PatchMetadata

    def patches(self) -> Patches:
        """Return the patches, of which a few windows are loaded at a time."""

        def fetch(window: Window) -> Any:  # noqa: ANN401 - a function that returns blocks
            references = ray.get(self.cache.window.remote(window))

            def wait() -> Any:  # noqa: ANN401 - the blocks
                try:
                    return ray.get(references)
                except ray.exceptions.RayError:
                    # The next worker reads the window again.
                    self.cache.forget.remote(window)
                    raise

            return wait

        return StreamedPatches(fetch, self.shards, self.side, self.bits, self.window, self.metadata)


def make_resident(patch_set: PatchSet, split: str) -> ResidentSplit:
    """Read a split into the object store, in parallel.

    Raises UserError if the split is empty or would not fit into the store.
    """
    shards = patch_set.shards(split)
    if (needed := _bytes(patch_set, shards)) > (free := _store_bytes()):
        raise UserError(
            f"the {split} split of {patch_set.uri} needs {needed / 2**30:.1f} GiB of Ray's object "
            f"store, which has {free / 2**30:.1f} GiB for it on its smallest node; set `batches` "
            "to streaming, or start Ray with a larger object store (ray start "
            "--object-store-memory)"
        )
    runs = [
        run
        for bits in (8, 16)
        for run in split_chunks([s for s in shards if s.bits == bits], _BLOCK_BYTES)
    ]
    blocks = tuple(_task().remote(patch_set.reader, run) for run in runs)
    return ResidentSplit(
        blocks, patch_metadata(patch_set, [shard for run in runs for shard in run])
    )


def make_streamed(patch_set: PatchSet, split: str, window_bytes: int) -> StreamedSplit:
    """Stream a split in windows of about `window_bytes`.

    Raises UserError if the split is empty or the windows would not fit into the object store.
    """
    shards = patch_set.shards(split)
    needed, free = min(_WINDOWS_KEPT * window_bytes, _bytes(patch_set, shards)), _store_bytes()
    if needed > free:
        raise UserError(
            f"streaming needs {needed / 2**30:.1f} GiB of Ray's object store for windows of "
            f"{window_bytes / 2**20:.0f} MiB, but {free / 2**30:.1f} GiB are free; lower "
            "`window_megabytes`, or start Ray with a larger object store (ray start "
            "--object-store-memory)"
        )
    bits = max(s.bits for s in shards)
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    cache = (
        ray.remote(WindowCache)
        .options(num_cpus=0, scheduling_strategy=here)
        .remote(patch_set.reader, shards)
    )
    return StreamedSplit(
        cache,
        tuple(s.patches for s in shards),
        patch_set.manifest.geometry.patch_size,
        bits,
        max(1, window_bytes // (2 * patch_set.manifest.geometry.patch_bytes(bits))),
        patch_metadata(patch_set, shards),
    )


def window_megabytes(patch_set: PatchSet, split: str) -> int:
    """The size of windows that the object store has room for, at most a gigabyte, at least that of
    the largest shard.
    """
    shards = patch_set.shards(split)
    largest = max(_bytes(patch_set, [shard]) for shard in shards)
    room = max(min(_LARGEST_WINDOW, _store_bytes() // _WINDOWS_KEPT), largest)
    return -(-room // 10**6) if room == largest else room // 10**6


def fits(patch_set: PatchSet, split: str) -> bool:
    """Whether a split fits into the object store."""
    return _bytes(patch_set, patch_set.shards(split)) <= _store_bytes()


def make_sample(patch_set: PatchSet, split: str, count: int) -> ResidentSplit:
    """Read at most `count` patches of a split for validation, as many of each corpus as possible,
    evenly spaced over its patches.

    Raises UserError if the split is empty.
    """
    shards = patch_set.shards(split)
    ends = np.cumsum([s.patches for s in shards])
    chosen = balanced_sample(patch_metadata(patch_set, shards), count)
    owners = np.searchsorted(ends, chosen, side="right")
    task = ray.remote(_read_some).options(num_cpus=0)
    # Patches of 8 and of 16 bits need blocks of their own.
    parts: dict[tuple[int, int], list[tuple[Shard, list[int]]]] = defaultdict(list)
    for place, n in enumerate(np.unique(owners).tolist()):
        first = int(ends[n]) - shards[n].patches
        parts[shards[n].bits, place % _SAMPLE_TASKS].append(
            (shards[n], (chosen[owners == n] - first).tolist())
        )
    return ResidentSplit(tuple(task.remote(patch_set.reader, run) for run in parts.values()))


def patch_metadata(patch_set: PatchSet, shards: Sequence[Shard]) -> PatchMetadata:
    """Return the catalog's metadata of each patch of the shards, in their order."""
    rows: dict[str | None, list[PairRecord]] = defaultdict(list)
    for row in patch_set.catalog:
        rows[row.shard].append(row)
    # A shard holds its pairs by id, as the catalog does.
    ordered = [row for shard in shards for row in rows[shard.key]]
    counts = [row.patches for row in ordered]
    noises = sorted({row.noise for row in ordered if row.noise is not None})
    codes = [-1 if row.noise is None else noises.index(row.noise) for row in ordered]
    keys = [(row.corpus, row.camera, row.iso) for row in ordered]
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    unpaired = np.array([row.unpaired for row in ordered], dtype=np.bool_)
    return PatchMetadata(
        np.repeat(np.array([numbers[key] for key in keys], dtype=np.int32), counts),
        tuple(corpus for corpus, _, _ in numbers),
        np.repeat(np.array(codes, dtype=np.int16), counts),
        tuple(noises),
        unpaired=np.repeat(unpaired, counts) if unpaired.any() else None,
    )


class WindowCache:
    """Actor that reads each window on its first request and keeps the most recent ones."""

    def __init__(self, reader: ShardReader, shards: Sequence[Shard]) -> None:
        self._reader = reader
        self._shards = shards
        self._windows: OrderedDict[Window, list[ray.ObjectRef]] = OrderedDict()

    def window(self, window: Window) -> list[ray.ObjectRef]:
        """Return references to the blocks of a window, one per shard."""
        if window not in self._windows:
            self._windows[window] = [
                _task().remote(self._reader, [self._shards[n]]) for n in window
            ]
        self._windows.move_to_end(window)
        while len(self._windows) > _WINDOWS_KEPT:
            self._windows.popitem(last=False)
        return self._windows[window]

    def forget(self, window: Window) -> None:
        """Drop a window whose reading failed, so that the next request reads it again."""
        self._windows.pop(window, None)


def _task() -> Any:  # noqa: ANN401 - a remote function
    # Without CPUs of its own, because waiting workers may hold all of them.
    return ray.remote(_read_block).options(num_cpus=0)


def _read_block(reader: ShardReader, shards: Sequence[Shard]) -> Block:
    parts = [reader.read(shard) for shard in shards]
    return np.concatenate([noisy for noisy, _ in parts]), np.concatenate(
        [clean for _, clean in parts]
    )


def _read_some(reader: ShardReader, parts: Sequence[tuple[Shard, list[int]]]) -> Block:
    found: list[tuple[Photo, Photo]] = []
    for shard, places in parts:
        noisy, clean = reader.read(shard)
        found.append((noisy[places], clean[places]))
    return np.concatenate([noisy for noisy, _ in found]), np.concatenate(
        [clean for _, clean in found]
    )


def _bytes(patch_set: PatchSet, shards: Sequence[Shard]) -> int:
    return sum(2 * s.patches * patch_set.manifest.geometry.patch_bytes(s.bits) for s in shards)


def _store_bytes() -> int:
    """Return the bytes that a split may take: of the smallest node's store, and of free memory."""
    stores = [
        node["Resources"].get("object_store_memory", 0) for node in ray.nodes() if node["Alive"]
    ]
    free = ray.available_resources().get("object_store_memory", 0)
    return int(min(_STORE_SHARE * min(stores), free))
