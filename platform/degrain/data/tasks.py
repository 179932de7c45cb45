"""Ray tasks whose results are taken as they finish."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import ray

K = TypeVar("K")


def collect(
    pending: Mapping[ray.ObjectRef, K], progress: Callable[[int, int], None] = lambda _done, _all: None
) -> Iterator[tuple[K, Any]]:
    """Give (key, result) of each reference when it is there; `progress` gets (done, in all). Raises what a task raised."""
    waiting = list(pending)
    while waiting:
        done, waiting = ray.wait(waiting)
        for reference in done:
            yield pending[reference], ray.get(reference)
        progress(len(pending) - len(waiting), len(pending))
