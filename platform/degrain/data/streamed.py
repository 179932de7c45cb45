"""Patches of a split that does not fit in memory: those of a few windows are there at a time."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import TypeAlias

import numpy as np

from degrain.data.loader import Patches, PatchNotes
from degrain.data.order import Window
from degrain.imaging.pixels import Photo, sixteen_bits

Block: TypeAlias = tuple[Photo, Photo]
"""Noisy and clean patches of one shard, each (N, P, P, 3)."""
Fetch: TypeAlias = Callable[[Window], Callable[[], Sequence[Block]]]
"""Has a window read; what it gives waits for the blocks of its shards."""


class StreamedPatches(Patches):
    """As `Patches`, of which only those of the windows that are held can be taken."""

    def __init__(
        self, fetch: Fetch, shards: Sequence[int], side: int, bits: int, window: int, notes: PatchNotes | None = None
    ) -> None:
        self.side = side
        self.dtype = np.dtype(np.uint16 if bits == 16 else np.uint8)
        self.notes = notes
        self.shards = tuple(shards)
        """Patches in each shard."""
        self.window = window
        """Patches that are shuffled at once."""
        self._fetch = fetch
        self._ends = list(accumulate(shards))
        self._coming: dict[Window, Callable[[], Sequence[Block]]] = {}
        self._held: dict[Window, dict[int, Block]] = {}

    def __getitem__(self, index: int) -> Block:
        """One pair of patches, each (P, P, 3). Raises KeyError if no window that is held has it."""
        shard = bisect_right(self._ends, index)
        place = index - self._ends[shard] + self.shards[shard]
        noisy, clean = next((blocks for blocks in self._held.values() if shard in blocks), {})[shard]
        if noisy.dtype != self.dtype:
            return sixteen_bits(noisy[place]), sixteen_bits(clean[place])
        return noisy[place], clean[place]

    def hold(self, windows: Sequence[Window]) -> None:
        """Wait for all windows but the last, which is the next to be needed: have it read. Forget all others."""
        for window in windows:
            if window not in self._held and window not in self._coming:
                self._coming[window] = self._fetch(window)
        for window in windows[:-1]:
            if window not in self._held:
                self._held[window] = dict(zip(window, self._coming.pop(window)(), strict=True))
        self._held = {w: blocks for w, blocks in self._held.items() if w in windows}
        self._coming = {w: wait for w, wait in self._coming.items() if w in windows}
