"""Who computes in a replica: small photos first, large ones behind them, jobs last.

A small photo has the network for its whole length. What has a lower rank gives way: it computes in
forward passes of bounded size, and before each one it waits until nothing of a higher rank is in
work, but at most `PATIENCE_SECONDS`, so that it ends under any load. On a CPU a photo does not wait
for the pass that runs: the thread of the lower rank has a lower priority, and the scheduler
interrupts it. An accelerator has no such priority, so there a photo waits for the end of the pass.

Work that nobody waits for any more ends before its next pass.
"""

import contextlib
import math
import os
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from enum import IntEnum
from functools import partial

import torch

from degrain.imaging.pixels import Photo
from degrain.inference.denoiser import NetworkDenoiser
from degrain.inference.tiling import Window

SMALL_PIXELS = 4_000_000
"""Pixels of a small photo at most."""
PASS_PIXELS = 768 * 768
"""Pixels that a forward pass of what gives way reads."""
PATIENCE_SECONDS = 1.0
_NICENESS = 10
"""Added to that of a thread that gives way: beside a photo on one core it gets a tenth. With less
it could hold Python's global lock for seconds while other processes use the core."""
_LOWEST = 19


class Rank(IntEnum):
    """The order of photos; those of a rank compute one after another."""

    SMALL = 0
    LARGE = 1
    JOB = 2


class AbandonedError(Exception):
    """Nobody waits for the photo any more."""


class Abandonment:
    """Whether anybody waits for a photo."""

    def __init__(self) -> None:
        self.is_set = False

    def check(self) -> None:
        """Raise AbandonedError if nobody waits."""
        if self.is_set:
            raise AbandonedError


class Turns:
    """The order in which the threads of a replica compute.

    `exclusive` is for devices where passes of two photos must not overlap. `patience` is how long a
    pass waits for higher ranks at most, seconds.
    """

    def __init__(self, *, exclusive: bool, patience: float = PATIENCE_SECONDS) -> None:
        self._exclusive, self._patience = exclusive, patience
        self._changed = threading.Condition()
        self._photos: Counter[Rank] = Counter()
        """Photos that compute or wait to."""
        self._computing: set[Rank] = set()
        """Ranks of which a photo has its turn."""
        self._in_pass = False

    @contextlib.contextmanager
    def photo(self, rank: Rank, abandonment: Abandonment) -> Iterator[None]:
        """Have the turn of this rank for the length of a block. Raises AbandonedError."""
        with self._changed:
            self._photos[rank] += 1
        try:
            with self._changed:
                self._changed.wait_for(lambda: abandonment.is_set or rank not in self._computing)
                abandonment.check()
                self._computing.add(rank)
            try:
                yield
            finally:
                with self._changed:
                    self._computing.remove(rank)
        finally:
            with self._changed:
                self._photos[rank] -= 1
                self._changed.notify_all()

    @contextlib.contextmanager
    def in_pass(self, rank: Rank, abandonment: Abandonment) -> Iterator[None]:
        """Compute a pass for the length of a block. Raises AbandonedError."""
        higher = [other for other in Rank if other < rank]
        with self._changed:
            self._changed.wait_for(
                lambda: abandonment.is_set or not any(self._photos[other] for other in higher),
                self._patience,
            )
        abandonment.check()
        if not self._exclusive:
            yield
            return
        with self._changed:
            self._changed.wait_for(lambda: abandonment.is_set or not self._in_pass)
            abandonment.check()
            self._in_pass = True
        try:
            yield
            # Until then the pass has only been queued.
            torch.accelerator.synchronize()
        finally:
            with self._changed:
                self._in_pass = False
                self._changed.notify_all()

    def abandon(self, abandonment: Abandonment) -> None:
        """End the work of a photo that nobody waits for any more."""
        with self._changed:
            abandonment.is_set = True
            self._changed.notify_all()


class InTurns:
    """A denoiser for one photo whose network also works on photos of other threads."""

    def __init__(
        self, network: NetworkDenoiser, turns: Turns, abandonment: Abandonment, rank: Rank
    ) -> None:
        self._network, self._turns = network, turns
        self._abandonment, self._rank = abandonment, rank
        self.name, self.parameters = network.name, network.parameters

    def __call__(self, photo: Photo, window: Window | None = None) -> Photo:
        """Denoise one photo. Raises AbandonedError."""
        enter = partial(self._turns.in_pass, self._rank, self._abandonment)
        most = math.inf if self._rank is Rank.SMALL else PASS_PIXELS
        with self._turns.photo(self._rank, self._abandonment):
            return self._network.batch([photo], window, enter=enter, pass_pixels=most)[0]


def lower_priority() -> None:
    """Let other threads interrupt this one, and those that it starts. Linux alone has priorities of
    threads.
    """
    if sys.platform == "linux":
        thread = threading.get_native_id()
        usual = os.getpriority(os.PRIO_PROCESS, thread)
        os.setpriority(os.PRIO_PROCESS, thread, min(usual + _NICENESS, _LOWEST))
