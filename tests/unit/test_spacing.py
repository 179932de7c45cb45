"""Evenly spaced indices."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from degrain.spacing import evenly_spaced


@settings(max_examples=200, deadline=None)
@given(count=st.integers(1, 500), wanted=st.integers(1, 100))
def test_indices_are_evenly_spaced(count: int, wanted: int) -> None:
    chosen = evenly_spaced(count, wanted)
    assert len(chosen) == min(count, wanted)
    assert chosen == sorted(set(chosen))
    assert chosen[0] == 0
    assert chosen[-1] == (count - 1 if min(count, wanted) > 1 else 0)
    gaps = np.diff(chosen)
    assert gaps.size == 0 or gaps.max() - gaps.min() <= 1
