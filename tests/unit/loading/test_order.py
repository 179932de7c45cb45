"""Streamed splits: shards in windows, patches shuffled within them, any place found without those
before it.
"""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.support import random_photo

from degrain.imaging.pixels import sixteen_bits
from degrain.loading.batches import BatchLoader, BatchPlan
from degrain.loading.order import Permuted, Window, Windowed
from degrain.loading.patches import Block, PatchMetadata, ResidentPatches
from degrain.loading.streamed import StreamedPatches

CPU = torch.device("cpu")
SHARDS = st.lists(st.integers(1, 9), min_size=1, max_size=12).map(tuple)


@settings(max_examples=80, deadline=None)
@given(shards=SHARDS, window=st.integers(1, 30), seed=st.integers(0, 5))
def test_an_epoch_shows_each_patch_once(shards: tuple[int, ...], window: int, seed: int) -> None:
    order = Windowed(seed=seed, shards=shards, window=window)
    count = sum(shards)
    shown = order.indices(np.arange(3 * count))
    for epoch in range(3):
        assert sorted(shown[epoch * count : (epoch + 1) * count].tolist()) == list(range(count))


@settings(max_examples=80, deadline=None)
@given(shards=SHARDS, window=st.integers(1, 30), batch=st.integers(1, 7), step=st.integers(0, 40))
def test_the_windows_of_a_step_hold_its_patches(
    shards: tuple[int, ...], window: int, batch: int, step: int
) -> None:
    order = Windowed(seed=1, shards=shards, window=window)
    first, last = step * batch, (step + 1) * batch - 1
    windows = order.windows(first, last)
    held = {shard for w in windows[:-1] for shard in w}
    owners = np.searchsorted(
        np.cumsum(shards), order.indices(np.arange(first, last + 1)), side="right"
    )
    assert set(owners.tolist()) <= held
    assert all(sum(shards[s] for s in w) <= max(window, *shards) for w in windows)
    # The last is the first that a later place lies in.
    later = last + 1
    while len(order.windows(last, later)) == 2:
        later += 1
    assert order.windows(last, later)[1] == windows[-1]


def test_any_place_is_found_without_those_before() -> None:
    shards = (4, 7, 2, 9, 5)
    whole = Windowed(seed=2, shards=shards, window=10).indices(np.arange(200))
    for place in (0, 13, 26, 27, 199, 54, 3):
        assert (
            Windowed(seed=2, shards=shards, window=10).indices(np.array([place]))[0] == whole[place]
        )


def test_epochs_seeds_and_windows_are_shuffled_differently() -> None:
    order = Windowed(seed=0, shards=(5,) * 8, window=20)
    first, second = order.indices(np.arange(40)), order.indices(np.arange(40, 80))
    assert first.tolist() != second.tolist()
    assert (
        first.tolist()
        != Windowed(seed=1, shards=(5,) * 8, window=20).indices(np.arange(40)).tolist()
    )
    assert len({tuple(sorted((first[a : a + 20] // 5).tolist())) for a in (0, 20)}) == 2
    assert len(set((first[:20] // 5).tolist())) == 4
    assert (np.diff(first[:20] // 5) != 0).sum() > 5, (
        "shards follow each other whole instead of being mixed"
    )


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0.05, 8), min_size=4, max_size=40), st.integers(3, 30), st.integers(0, 9))
def test_weights_decide_how_often_a_patch_is_shown(
    values: list[float], window: int, seed: int
) -> None:
    weights = np.array(values)
    shards = tuple([3] * (len(values) // 3) + ([len(values) % 3] if len(values) % 3 else []))
    order = Windowed(seed=seed, shards=shards, window=window, weights=weights)
    counts = np.bincount(order.indices(np.arange(len(values))), minlength=len(values))
    assert counts.sum() == len(values)
    assert (np.abs(counts - weights / weights.mean()) < 1 + 1e-6).all()


class WindowSource:
    """Fetches windows of a split, and records requests and waits."""

    def __init__(self, blocks: list[Block]) -> None:
        self.blocks = blocks
        self.requested: list[Window] = []
        self.waited: list[Window] = []

    def __call__(self, window: Window) -> object:
        self.requested.append(window)

        def wait() -> list[Block]:
            self.waited.append(window)
            return [self.blocks[shard] for shard in window]

        return wait


def blocks(*counts: int) -> list[Block]:
    found, number = [], 0
    for count in counts:
        noisy = np.stack([random_photo(20, 20, number + i) for i in range(count)])
        found.append((noisy, noisy.copy()))
        number += count
    return found


def test_streamed_and_resident_batches_are_equal() -> None:
    shards = (4, 7, 2, 9, 5)
    parts = blocks(*shards)
    cache = WindowSource(parts)
    order = Windowed(seed=0, shards=shards, window=10)
    plan = BatchPlan(seed=0, order=order, side=20, batch_size=4, crop=16)
    streamed = BatchLoader(StreamedPatches(cache, shards, 20, 8, 10), plan, device=CPU)
    whole = BatchLoader(ResidentPatches(parts), plan, device=CPU)
    for step in (0, 1, 2, 3, 9, 30, 2):
        assert torch.equal(streamed.batch(step).noisy, whole.batch(step).noisy)
    assert len(list(streamed.batches(0, 20))) == 20


def test_each_window_is_read_once_in_advance_and_dropped_afterwards() -> None:
    shards = (5,) * 6
    cache = WindowSource(blocks(*shards))
    patches = StreamedPatches(cache, shards, 20, 8, 10)
    plan = BatchPlan(
        seed=0, order=Windowed(seed=0, shards=shards, window=10), side=20, batch_size=5, crop=16
    )
    loader = BatchLoader(patches, plan, device=CPU)
    loader.batch(0)
    assert len(cache.requested) == 2
    assert len(cache.waited) == 1, "it waited for a window that no step needs yet"
    for step in range(1, 6):
        loader.batch(step)
    assert len(cache.requested) == 4
    assert cache.requested[:3] == cache.waited
    seen = int(plan.indices(0)[0])
    with pytest.raises(KeyError):
        patches[seen]


def test_a_streamed_split_of_both_depths_comes_in_sixteen_bits() -> None:
    (shallow, other) = blocks(3, 3)
    deep = (sixteen_bits(other[0]), sixteen_bits(other[1]))
    patches = StreamedPatches(WindowSource([shallow, deep]), (3, 3), 20, 16, 10)
    patches.prefetch([(0, 1), (1, 0)])
    for i in range(6):
        assert patches[i][0].dtype == np.uint16
        assert np.array_equal(patches[i][0], sixteen_bits(random_photo(20, 20, i)))


def test_a_split_in_memory_has_no_windows() -> None:
    assert Permuted(seed=0, patches=5).windows(0, 3) == []


@pytest.mark.parametrize("balance", [0.0, 1.0])
def test_patches_provide_their_order(balance: float) -> None:
    parts = blocks(3, 4)
    groups = np.array([0, 0, 0, 0, 0, 1, 1], dtype=np.int32)
    metadata = PatchMetadata(groups, ("a", "b"), np.full(7, -1, dtype=np.int16), ())
    expected = pytest.approx([0.7] * 5 + [1.75] * 2) if balance else None
    resident = ResidentPatches(parts, metadata).order(5, balance=balance)
    assert isinstance(resident, Permuted)
    assert (resident.seed, resident.patches) == (5, 7)
    assert resident.weights == expected
    streamed = StreamedPatches(WindowSource(parts), (3, 4), 20, 8, 10, metadata)
    windowed = streamed.order(5, balance=balance)
    assert isinstance(windowed, Windowed)
    assert (windowed.seed, windowed.shards, windowed.window) == (5, (3, 4), 10)
    assert windowed.weights == expected
