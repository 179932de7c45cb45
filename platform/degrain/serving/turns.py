"""Who computes in a replica: photos one after another, and a job behind them.

A photo has the network for its whole length. A job nobody waits for, so it gives way: it computes
in forward passes of bounded size, and before each one it waits until no photo is in work, but at
most `PATIENCE_SECONDS`, so that it ends under any load. On a CPU a photo does not wait for the
pass that runs: the job's thread has a lower priority, and the scheduler interrupts it. An
accelerator has no such priority, so there a photo waits for the end of the pass.

Work that nobody waits for any more ends before its next pass.
"""

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from functools import partial

import torch

from degrain.imaging.pixels import Photo
from degrain.inference.denoiser import NetworkDenoiser
from degrain.inference.tiling import Window

PASS_PIXELS = 768 * 768
"""Pixels that a job's forward pass reads."""
PATIENCE_SECONDS = 1.0
_NICENESS = 10
"""Added to that of a job's thread: beside a photo on one core it gets a tenth. With less it could
hold Python's global lock for seconds while other processes use the core."""
_LOWEST = 19


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

    `exclusive` is for devices where a job's pass and a photo must not overlap. `patience` is how
    long a pass waits for photos at most, seconds.
    """

    def __init__(self, *, exclusive: bool, patience: float = PATIENCE_SECONDS) -> None:
        self._exclusive, self._patience = exclusive, patience
        self._changed = threading.Condition()
        self._photos = 0
        """Photos that compute or wait to."""
        self._computing = False

    @contextlib.contextmanager
    def photo(self, abandonment: Abandonment) -> Iterator[None]:
        """Compute for the length of a block. Raises AbandonedError."""
        with self._counted():
            self._begin(abandonment)
            try:
                yield
            finally:
                self._end()

    @contextlib.contextmanager
    def job_pass(self, abandonment: Abandonment) -> Iterator[None]:
        """Compute a pass for the length of a block. Raises AbandonedError."""
        with self._changed:
            self._changed.wait_for(lambda: abandonment.is_set or not self._photos, self._patience)
        abandonment.check()
        if not self._exclusive:
            yield
            return
        self._begin(abandonment)
        try:
            yield
            # Until then the pass has only been queued.
            torch.accelerator.synchronize()
        finally:
            self._end()

    def abandon(self, abandonment: Abandonment) -> None:
        """End the work of a photo that nobody waits for any more."""
        with self._changed:
            abandonment.is_set = True
            self._changed.notify_all()

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        with self._changed:
            self._photos += 1
        try:
            yield
        finally:
            with self._changed:
                self._photos -= 1
                self._changed.notify_all()

    def _begin(self, abandonment: Abandonment) -> None:
        with self._changed:
            self._changed.wait_for(lambda: abandonment.is_set or not self._computing)
            abandonment.check()
            self._computing = True

    def _end(self) -> None:
        with self._changed:
            self._computing = False
            self._changed.notify_all()


class InTurns:
    """A denoiser for one photo whose network also works on photos of other threads."""

    def __init__(
        self, network: NetworkDenoiser, turns: Turns, abandonment: Abandonment, *, is_job: bool
    ) -> None:
        self._network, self._turns = network, turns
        self._abandonment, self._is_job = abandonment, is_job
        self.name, self.parameters = network.name, network.parameters

    def __call__(self, photo: Photo, window: Window | None = None) -> Photo:
        """Denoise one photo. Raises AbandonedError."""
        if self._is_job:
            enter = partial(self._turns.job_pass, self._abandonment)
            return self._network.batch([photo], window, enter=enter, pass_pixels=PASS_PIXELS)[0]
        with self._turns.photo(self._abandonment):
            return self._network.batch([photo], window, enter=self._unless_abandoned)[0]

    @contextlib.contextmanager
    def _unless_abandoned(self) -> Iterator[None]:
        self._abandonment.check()
        yield


def lower_priority() -> None:
    """Let other threads interrupt this one, and those that it starts. Linux alone has priorities of
    threads.
    """
    if sys.platform == "linux":
        thread = threading.get_native_id()
        usual = os.getpriority(os.PRIO_PROCESS, thread)
        os.setpriority(os.PRIO_PROCESS, thread, min(usual + _NICENESS, _LOWEST))
