"""Threads that call a service again and again, for the length of a block."""

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def client_threads(count: int, send: Callable[[int], None]) -> Iterator[None]:
    """Run `count` threads; the calls of the thread i get i, i + 1, i + 2 and so on."""
    ended = threading.Event()

    def work(first: int) -> None:
        for turn in itertools.count(first):
            if ended.is_set():
                return
            send(turn)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()
