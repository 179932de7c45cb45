"""Ctrl-C, SIGTERM and SIGHUP: all raise KeyboardInterrupt, and all can be deferred."""

import contextlib
import math
import os
import signal
import stat
import threading
import time
from collections.abc import Iterator
from typing import NoReturn

_ONE_SECOND = 1.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def interrupt_on_signals() -> None:
    """Make SIGTERM (`kill`, Kubernetes, a time limit) and SIGHUP (a closed terminal) raise
    KeyboardInterrupt, as Ctrl-C does; several within a second are one.

    A signal that is ignored, as by `nohup`, stays so. Does nothing outside the main thread.
    """
    last = -math.inf

    def interrupt(*_: object) -> None:
        # A key that is held down must not interrupt what the first one makes the program do.
        nonlocal last
        now = time.monotonic()
        if now - last >= _ONE_SECOND:
            last = now
            raise KeyboardInterrupt

    def hang_up(*_: object) -> NoReturn:
        # The shell sends one and the kernel another; a second must not end what the first began.
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        _leave_terminal()
        raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, interrupt)
        if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, interrupt)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            signal.signal(signal.SIGHUP, hang_up)


def _leave_terminal() -> None:
    """Send further output nowhere: writing to a terminal that is gone raises OSError."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for file in (1, 2):
        if stat.S_ISCHR(os.fstat(file).st_mode):
            os.dup2(nowhere, file)
    os.close(nowhere)


@contextlib.contextmanager
def children_outlive_terminal() -> Iterator[None]:
    """Let processes that are started in the block ignore SIGHUP, which a terminal that is closed
    sends to all of its processes: those of Ray are needed to save what this one has done.

    Does nothing outside the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


@contextlib.contextmanager
def defer_interrupts() -> Iterator[None]:
    """Defer Ctrl-C, SIGTERM and SIGHUP until the block ends, so that it runs completely.

    Raises KeyboardInterrupt after the block if a signal arrived. Does nothing outside the main
    thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _: arrived.append(number))
        for number in _SIGNALS
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if signal.SIGHUP in arrived:
        _leave_terminal()
    if arrived:
        raise KeyboardInterrupt
