"""Evenly spaced samples of a sequence."""

import numpy as np


def evenly_spaced(count: int, wanted: int) -> list[int]:
    """Return at most `wanted` of the indices 0 to count - 1, evenly spaced."""
    return sorted({round(i) for i in np.linspace(0, count - 1, min(count, wanted)).tolist()})
