"""Weights that balance corpora, cameras and ISOs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from degrain.balance import balanced_weights

SIZES = [60, 20, 10, 10]
CORPORA = ["large", "large", "large", "small"]


def drawn(balance: float) -> np.ndarray:
    """Share of the draws that each group gets."""
    return balanced_weights(SIZES, CORPORA, balance) * SIZES / 100


def test_without_balance_all_patches_are_drawn_equally_often() -> None:
    assert balanced_weights(SIZES, CORPORA, 0) == pytest.approx([1, 1, 1, 1])


def test_full_balance_draws_corpora_equally_often_and_groups_within_them() -> None:
    assert drawn(1) == pytest.approx([1 / 6, 1 / 6, 1 / 6, 1 / 2])


def test_half_balance_draws_by_the_square_root_of_the_size() -> None:
    large, small = 90**0.5, 10**0.5
    share = large / (large + small)
    roots = np.sqrt([60, 20, 10])
    assert drawn(0.5)[:3] == pytest.approx(share * roots / roots.sum())
    assert drawn(0.5)[3] == pytest.approx(1 - share)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 1000), st.sampled_from("abc")), min_size=1, max_size=12),
    st.floats(0, 1),
)
def test_weights_are_one_on_average(groups: list[tuple[int, str]], balance: float) -> None:
    sizes, corpora = zip(*groups, strict=True)
    weights = balanced_weights(sizes, corpora, balance)
    assert (weights * sizes).sum() == pytest.approx(sum(sizes))
    assert (weights > 0).all()
