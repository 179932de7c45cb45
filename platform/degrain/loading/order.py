"""The order in which training sees the patches of a split, drawn from (seed, epoch).

Places number the patches of the concatenated epochs from 0. `Permuted` permutes all patches and is
for splits in memory. `Windowed` is for streamed splits: it permutes the shards, groups them into
windows that fit in memory, and permutes the patches of each window. In both, an epoch shows each
patch once, or in proportion to its weight, and any place is computed without those before it.
"""

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Window: TypeAlias = tuple[int, ...]
"""Indices of the shards that are in memory together, in the order of the split."""


class Order(Protocol):
    """Maps places to patches."""

    def indices(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the patches at these places."""
        ...

    def windows(self, first: int, last: int) -> list[Window]:
        """Return the windows of the places from `first` to `last`, and the next one."""
        ...


def systematic(
    weights: NDArray[np.float64], start: float, places: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Sample systematically: patch i is drawn `weights[i]` times, rounded up or down.

    Returns the patches drawn at `places`. `start`, in [0, 1), decides the rounding, so that a patch
    of small weight is drawn in some epochs.
    """
    ends = np.cumsum(weights)
    return np.minimum(np.searchsorted(ends, places + start, side="right"), len(weights) - 1)


@lru_cache(maxsize=2)
def epoch_order(seed: int, epoch: int, patches: int) -> NDArray[np.int64]:
    """Return the order of an epoch: a permutation of 0..patches."""
    return np.random.default_rng([seed, 0, epoch]).permutation(patches)


@dataclass(frozen=True, kw_only=True)
class Permuted:
    """All patches of an epoch in one permutation."""

    seed: int
    patches: int
    """Patches in the split."""
    weights: NDArray[np.float64] | None = field(default=None, repr=False)
    """(patches,): how often an epoch shows each patch, 1 on average. None: once each."""
    _drawn: dict[int, NDArray[np.int64]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    """Weighted orders of recent epochs."""

    def indices(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the patches at these places."""
        epochs = places // self.patches
        found = np.empty(len(places), dtype=np.int64)
        for epoch in np.unique(epochs):
            chosen = epochs == epoch
            found[chosen] = self._order(int(epoch))[places[chosen] % self.patches]
        return found

    def windows(self, first: int, last: int) -> list[Window]:  # noqa: ARG002 - one window for all
        """Return no window: all patches are in memory."""
        return []

    def _order(self, epoch: int) -> NDArray[np.int64]:
        order = epoch_order(self.seed, epoch, self.patches)
        if self.weights is None:
            return order
        if epoch not in self._drawn:
            if len(self._drawn) > 1:
                self._drawn.clear()
            start = np.random.default_rng([self.seed, 2, epoch]).random()
            weights = self.weights * (self.patches / self.weights.sum())
            self._drawn[epoch] = systematic(weights, start, np.arange(self.patches))[order]
        return self._drawn[epoch]


@dataclass(frozen=True, kw_only=True)
class _Epoch:
    """An epoch of `Windowed`."""

    windows: list[Window]
    borders: NDArray[np.int64]
    """(windows + 1,): first place of each window, counted within the epoch, and the end."""
    start: float
    """Of `systematic`."""


@dataclass(frozen=True, kw_only=True)
class Windowed:
    """Permuted shards, grouped into windows of at most `window` patches, permuted within each."""

    seed: int
    shards: tuple[int, ...]
    """Patches in each shard."""
    window: int
    """Patches of a window at most, unless a single shard has more."""
    weights: NDArray[np.float64] | None = field(default=None, repr=False)
    """As in `Permuted`."""
    _epochs: dict[int, _Epoch] = field(default_factory=dict, init=False, repr=False, compare=False)
    _contents: dict[tuple[int, int], NDArray[np.int64]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    """Orders of recent windows, by epoch and index."""

    @property
    def patches(self) -> int:
        """Patches in the split."""
        return sum(self.shards)

    def indices(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the patches at these places."""
        found = np.empty(len(places), dtype=np.int64)
        for i, place in enumerate(places.tolist()):
            epoch, number = self._where(place)
            inside = place % self.patches - int(self._epoch(epoch).borders[number])
            found[i] = self._content(epoch, number)[inside]
        return found

    def windows(self, first: int, last: int) -> list[Window]:
        """Return the windows of the places from `first` to `last`, and the next one."""
        (epoch, number), end = self._where(first), self._where(last)
        found = [self._epoch(epoch).windows[number]]
        while (epoch, number) != end:
            epoch, number = self._after(epoch, number)
            found.append(self._epoch(epoch).windows[number])
        epoch, number = self._after(epoch, number)
        return [*found, self._epoch(epoch).windows[number]]

    def _where(self, place: int) -> tuple[int, int]:
        """Return the epoch of a place, and the index of its window."""
        epoch, inside = divmod(place, self.patches)
        return epoch, int(np.searchsorted(self._epoch(epoch).borders, inside, side="right")) - 1

    def _after(self, epoch: int, number: int) -> tuple[int, int]:
        borders = self._epoch(epoch).borders
        following = next(
            (n for n in range(number + 1, len(borders) - 1) if borders[n] < borders[n + 1]), None
        )
        if following is not None:
            return epoch, following
        return self._where((epoch + 1) * self.patches)

    def _epoch(self, epoch: int) -> _Epoch:
        if epoch not in self._epochs:
            if len(self._epochs) > 2:
                del self._epochs[min(self._epochs)]
            self._epochs[epoch] = self._plan(epoch)
        return self._epochs[epoch]

    def _plan(self, epoch: int) -> _Epoch:
        random = np.random.default_rng([self.seed, 3, epoch])
        windows: list[Window] = []
        filled = self.window
        for shard in random.permutation(len(self.shards)).tolist():
            if filled + self.shards[shard] > self.window:
                windows.append(())
                filled = 0
            # Sorted, so that the same shards are the same window.
            windows[-1] = tuple(sorted((*windows[-1], shard)))
            filled += self.shards[shard]
        start = 0.0 if self.weights is None else float(random.random())
        ends = np.cumsum([float(self._weights(w).sum()) for w in windows])
        # Draws at 0 + start, 1 + start, ... below a window's end belong to it or to those before.
        borders = np.concatenate([[0], np.ceil(np.round(ends, 9) - start)]).astype(np.int64)
        borders[-1] = self.patches
        return _Epoch(windows=windows, borders=borders, start=start)

    def _weights(self, window: Window) -> NDArray[np.float64]:
        members = self._members(window)
        if self.weights is None:
            return np.ones(len(members))
        return np.asarray(self.weights[members] * (self.patches / self.weights.sum()))

    def _members(self, window: Window) -> NDArray[np.int64]:
        ends = np.cumsum(self.shards)
        return np.concatenate([np.arange(ends[s] - self.shards[s], ends[s]) for s in window])

    def _content(self, epoch: int, number: int) -> NDArray[np.int64]:
        if (epoch, number) not in self._contents:
            if len(self._contents) > 2:
                del self._contents[min(self._contents)]
            planned = self._epoch(epoch)
            window, first = planned.windows[number], int(planned.borders[number])
            count = int(planned.borders[number + 1]) - first
            weights = self._weights(window)
            before = sum(float(self._weights(w).sum()) for w in planned.windows[:number])
            drawn = systematic(weights, first + planned.start - before, np.arange(count))
            random = np.random.default_rng([self.seed, 4, epoch, number])
            self._contents[epoch, number] = self._members(window)[drawn][random.permutation(count)]
        return self._contents[epoch, number]
