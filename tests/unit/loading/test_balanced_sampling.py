"""An even sampling: groups of cameras and ISOs are shown equally often, whoever asks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from degrain.loading.order import Permuted
from degrain.loading.patches import PatchMetadata, balanced_sample


def order(weights: np.ndarray | None, patches: int, seed: int = 3) -> Permuted:
    return Permuted(seed=seed, patches=patches, weights=weights)


def shown(made: Permuted, epochs: int) -> np.ndarray:
    """How often each patch is shown in so many epochs."""
    return np.bincount(made.indices(np.arange(made.patches * epochs)), minlength=made.patches)


def test_groups_count_the_same_however_large_they_are() -> None:
    groups = np.repeat([0, 1, 2], [80, 16, 4])
    weights = np.repeat([100 / 3 / 80, 100 / 3 / 16, 100 / 3 / 4], [80, 16, 4])
    counts = shown(order(weights, 100), epochs=6)
    per_group = np.bincount(groups, counts)
    assert per_group.sum() == 600
    assert per_group == pytest.approx([200, 200, 200], abs=7)


def test_equal_weights_show_each_patch_once_an_epoch() -> None:
    assert (shown(order(np.ones(20), 20), epochs=3) == 3).all()
    assert (shown(order(None, 20), epochs=3) == 3).all()


def test_a_patch_of_small_weight_gets_its_turn() -> None:
    weights = np.repeat([0.2, 1.8], 50)
    counts = shown(order(weights, 100), epochs=60)
    assert counts.min() > 0
    assert counts[:50].mean() == pytest.approx(12, rel=0.1)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0.01, 20), min_size=4, max_size=40))
def test_an_epoch_keeps_its_length_and_no_patch_strays_from_its_weight(values: list[float]) -> None:
    weights = np.array(values) / np.mean(values)
    count = len(values)
    made = order(weights, count)
    counts = shown(made, epochs=1)
    assert counts.sum() == count
    assert (np.abs(counts - weights) < 1 + 1e-9).all()
    assert (made.indices(np.arange(3)) == order(weights, count).indices(np.arange(3))).all()


def metadata(*patches: int) -> PatchMetadata:
    """A corpus of each number of patches, one after the other."""
    groups = np.repeat(np.arange(len(patches), dtype=np.int32), patches)
    names = tuple(f"corpus{i}" for i in range(len(patches)))
    return PatchMetadata(groups, names, np.full(sum(patches), -1, dtype=np.int16), ())


def test_a_sample_has_as_many_patches_of_each_corpus() -> None:
    chosen = balanced_sample(metadata(100, 4, 50), 24)
    assert [
        int(((chosen >= a) & (chosen < b)).sum()) for a, b in ((0, 100), (100, 104), (104, 154))
    ] == [10, 4, 10]
    assert chosen[0] == 0
    assert chosen[-1] == 153


def test_a_sample_of_one_corpus_is_evenly_spaced() -> None:
    assert balanced_sample(metadata(9), 3).tolist() == [0, 4, 8]


@settings(deadline=None)
@given(patches=st.lists(st.integers(1, 30), min_size=1, max_size=5), count=st.integers(1, 80))
def test_a_sample_takes_what_it_may(patches: list[int], count: int) -> None:
    chosen = balanced_sample(metadata(*patches), count)
    assert len(set(chosen.tolist())) == len(chosen) == min(count, sum(patches))
