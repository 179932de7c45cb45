"""A few of many, evenly spread."""

import numpy as np


def spread(count: int, wanted: int) -> list[int]:
    """At most `wanted` of the indices 0..count, evenly spread."""
    return sorted({round(i) for i in np.linspace(0, count - 1, min(count, wanted)).tolist()})
