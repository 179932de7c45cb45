"""The bounded queue: places, bytes, and the time to wait."""

import contextlib

import pytest

from degrain.serving.admission import Admission, BusyError


def admission(places: int = 2, buffered_bytes: int = 100, workers: int = 1) -> Admission:
    return Admission(places=places, buffered_bytes=buffered_bytes, workers=workers)


def test_there_are_as_many_places_as_configured() -> None:
    queue = admission(places=2)
    with queue.place(), queue.place(), pytest.raises(BusyError), queue.place():
        pass
    assert queue.taken == 0


def test_bytes_of_all_uploads_count_together_and_are_given_back() -> None:
    queue = admission(buffered_bytes=100)
    with queue.place() as one, queue.place() as other:
        one.reserve(60)
        other.reserve(40)
        with pytest.raises(BusyError):
            other.reserve(1)
    assert queue.bytes == 0
    with queue.place() as again:
        again.reserve(100)


def test_a_place_is_given_back_after_an_error() -> None:
    queue = admission(places=1)
    with contextlib.suppress(RuntimeError), queue.place() as place:
        place.reserve(50)
        raise RuntimeError
    assert (queue.taken, queue.bytes) == (0, 0)


def test_the_time_to_wait_follows_from_the_load() -> None:
    queue = admission(places=8, workers=2)
    for _ in range(40):
        queue.finished(4.0)
    with contextlib.ExitStack() as stack:
        for _ in range(8):
            stack.enter_context(queue.place())
        # Eight photos of four seconds on two workers: half of them are done after eight seconds.
        with pytest.raises(BusyError) as caught, queue.place():
            pass
    assert caught.value.retry_after == 8
