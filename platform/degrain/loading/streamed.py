"""Patches of a split that does not fit in memory: a few windows of shards are loaded at a time."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import TypeAlias

import numpy as np

from degrain.imaging.pixels import Photo
from degrain.loading.order import Order, Window, Windowed
from degrain.loading.patches import Block, PatchMetadata, pair_in_block, sampling_weights

Fetch: TypeAlias = Callable[[Window], Callable[[], Sequence[Block]]]
"""Starts to load a window; the returned function waits for it and returns a block per shard."""


class StreamedPatches:
    """Patches of which only those of the loaded windows can be read."""

    def __init__(
        self,
        fetch: Fetch,
        shards: Sequence[int],
        side: int,
        bits: int,
        window: int,
        metadata: PatchMetadata | None = None,
    ) -> None:
        self.side = side
        self.dtype = np.dtype(np.uint16 if bits == 16 else np.uint8)
        self.metadata = metadata
        self.shards = tuple(shards)
        """Patches in each shard."""
        self.window = window
        """Patches that are shuffled together."""
        self._fetch = fetch
        self._ends = list(accumulate(shards))
        self._loading: dict[Window, Callable[[], Sequence[Block]]] = {}
        self._loaded: dict[Window, dict[int, Block]] = {}

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> tuple[Photo, Photo]:
        """Return one pair of patches. Raises KeyError if its window is not loaded."""
        shard = bisect_right(self._ends, index)
        place = index - self._ends[shard] + self.shards[shard]
        blocks = next((blocks for blocks in self._loaded.values() if shard in blocks), {})
        return pair_in_block(blocks[shard], place, self.dtype)

    def order(self, seed: int, *, balance: float) -> Order:
        """Return an order that permutes shards, and patches within a window."""
        weights = sampling_weights(self.metadata, balance)
        return Windowed(seed=seed, shards=self.shards, window=self.window, weights=weights)

    def prefetch(self, windows: Sequence[Window]) -> None:
        """Load all windows, start to load the last, and drop all others."""
        for window in windows:
            if window not in self._loaded and window not in self._loading:
                self._loading[window] = self._fetch(window)
        for window in windows[:-1]:
            if window not in self._loaded:
                self._loaded[window] = dict(zip(window, self._loading.pop(window)(), strict=True))
        self._loaded = {w: blocks for w, blocks in self._loaded.items() if w in windows}
        self._loading = {w: wait for w, wait in self._loading.items() if w in windows}
