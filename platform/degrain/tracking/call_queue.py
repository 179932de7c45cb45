"""Calls that run one after another in a background thread, so that their caller does not wait."""

from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import Self

_SECONDS_AFTER_ERROR = 10


class CallQueue:
    """Runs calls in their order in a background thread. No call runs after one that failed.

    At its end the context manager waits for all calls, and raises the error of the one that failed.
    If the block raised an exception, it waits at most `seconds_after_error` seconds, so that the
    exception propagates, and drops the calls that are left.
    """

    def __init__(self, seconds_after_error: float = _SECONDS_AFTER_ERROR) -> None:
        self._seconds_after_error = seconds_after_error
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._error: Exception | None = None
        self._dropping = False
        # A daemon, because a call may retry for minutes after Ctrl-C.
        self._thread = Thread(target=self._work, name="calls", daemon=True)

    def add(self, call: Callable[[], None]) -> None:
        """Queue a call. Raises the error of an earlier call that failed."""
        self._check()
        self._calls.put(call)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._calls.put(None)
        self._thread.join(None if kind is None else self._seconds_after_error)
        self._dropping = True
        if kind is None:
            self._check()

    def _check(self) -> None:
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        while (call := self._calls.get()) is not None and not self._dropping:
            try:
                call()
            except Exception as error:  # noqa: BLE001 - the caller's thread raises it
                self._error = error
                return
