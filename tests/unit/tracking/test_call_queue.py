"""Calls in a background thread: order, errors, and an end that does not wait for ever."""

import contextlib
import threading
import time

import pytest

from degrain.tracking.call_queue import CallQueue


def test_calls_run_in_order_and_have_run_at_the_end() -> None:
    found: list[int] = []
    with CallQueue() as calls:
        for number in range(50):
            calls.add(lambda number=number: found.append(number))
    assert found == list(range(50))


def test_the_caller_does_not_wait() -> None:
    release, found = threading.Event(), []
    with CallQueue() as calls:
        calls.add(lambda: found.append(release.wait(200)))
        assert found == []
        release.set()
    assert found == [True]


def refuse() -> None:
    raise ValueError("refused")


def queue_around_a_failure(found: list[str]) -> None:
    with CallQueue() as calls:
        calls.add(lambda: found.append("before"))
        calls.add(refuse)
        calls.add(lambda: found.append("after"))


def test_no_call_runs_after_one_that_failed() -> None:
    found: list[str] = []
    with pytest.raises(ValueError, match="refused"):
        queue_around_a_failure(found)
    assert found == ["before"]


def queue_until_refused() -> None:
    with CallQueue() as calls:
        calls.add(refuse)
        for _ in range(1000):
            time.sleep(0.01)
            calls.add(lambda: None)
        pytest.fail("the error was not raised")


def test_the_next_call_raises_the_error_of_an_earlier_one() -> None:
    with pytest.raises(ValueError, match="refused"):
        queue_until_refused()


def test_an_error_of_the_block_waits_briefly_and_drops_the_calls_that_are_left() -> None:
    release, found = threading.Event(), []
    with contextlib.suppress(KeyboardInterrupt), CallQueue(seconds_after_error=0.2) as calls:
        calls.add(lambda: release.wait(200) or found.append("waited for"))
        calls.add(lambda: found.append("left"))
        raise KeyboardInterrupt
    assert found == []
    release.set()
    calls._thread.join()
    assert found == []
