"""The bounded queue in front of the network: places for photos, and memory for their uploads.

A photo takes a place before its first byte is read, so that neither many clients nor slow ones fill
the memory. All methods run on one event loop.
"""

import collections
import contextlib
import math
from collections.abc import Iterator

_REMEMBERED = 32
_FIRST_GUESS_SECONDS = 2.0
_LONGEST_WAIT = 30
"""Seconds that a client is told to wait at most."""


class BusyError(Exception):
    """There is no place for another photo; `retry_after` is the time to wait in seconds."""

    def __init__(self, reason: str, retry_after: int) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class Admission:
    """Counts photos between the first byte of the request and the answer."""

    def __init__(self, *, places: int, buffered_bytes: int, workers: int) -> None:
        self._places, self._buffered_bytes, self._workers = places, buffered_bytes, workers
        self._seconds: collections.deque[float] = collections.deque(maxlen=_REMEMBERED)
        self.taken = 0
        """Photos that wait or are denoised."""
        self.bytes = 0
        """Bytes of uploads in memory."""

    @contextlib.contextmanager
    def place(self) -> Iterator["Place"]:
        """Take a place for the length of a block. Raises BusyError if there is none."""
        if self.taken >= self._places:
            raise BusyError(
                f"{self.taken} photos are waiting or in work; send it again later",
                self._retry_after(),
            )
        self.taken += 1
        place = Place(self)
        try:
            yield place
        finally:
            self.taken -= 1
            self.bytes -= place.bytes

    def reserve(self, place: "Place", count: int) -> None:
        """Count bytes of an upload. Raises BusyError if all uploads together are too large."""
        if self.bytes + count > self._buffered_bytes:
            raise BusyError(
                "the uploads of all clients fill the memory; send it again later",
                self._retry_after(),
            )
        self.bytes += count
        place.bytes += count

    def finished(self, seconds: float) -> None:
        """Remember how long a photo was in work; the time to wait follows from it."""
        self._seconds.append(seconds)

    def _retry_after(self) -> int:
        """Whole seconds until half of the photos are done, which may be smaller than the last."""
        known = self._seconds
        mean = sum(known) / len(known) if known else _FIRST_GUESS_SECONDS
        return max(1, min(_LONGEST_WAIT, math.ceil(mean * self.taken / self._workers / 2)))


class Place:
    """The place of one photo, with the bytes of its upload."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self.bytes = 0

    def reserve(self, count: int) -> None:
        """Count bytes of the upload. Raises BusyError."""
        self._admission.reserve(self, count)
