"""Ctrl-C and SIGTERM: both raise KeyboardInterrupt, and both can be deferred."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import NoReturn


def interrupt_on_sigterm() -> None:
    """Make SIGTERM (`kill`, Kubernetes, a time limit) raise KeyboardInterrupt, as Ctrl-C does.

    Does nothing outside the main thread.
    """

    def interrupt(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, interrupt)


@contextlib.contextmanager
def defer_interrupts() -> Iterator[None]:
    """Defer Ctrl-C and SIGTERM until the block ends, so that it runs completely.

    Raises KeyboardInterrupt after the block if a signal arrived. Does nothing outside the main
    thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[int] = []
    before = {
        s: signal.signal(s, lambda number, _: arrived.append(number))
        for s in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if arrived:
        raise KeyboardInterrupt
