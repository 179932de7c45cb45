"""Bodies within limits of size and time."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from degrain.serving import uploads
from degrain.serving.uploads import RefusedError, read_body


async def chunks(*parts: bytes, pause: float = 0.0) -> AsyncIterator[bytes]:
    for part in parts:
        await asyncio.sleep(pause)
        yield part


def read(
    source: AsyncIterator[bytes],
    *,
    stated: str | None = None,
    largest: int = 10,
    seconds: float = 5,
) -> tuple[bytes, list[int]]:
    reserved: list[int] = []
    body = asyncio.run(
        read_body(source, stated=stated, largest=largest, seconds=seconds, reserve=reserved.append)
    )
    return body, reserved


def test_a_body_is_read_whole_and_each_chunk_is_reserved() -> None:
    assert read(chunks(b"abc", b"", b"defg")) == (b"abcdefg", [3, 0, 4])
    assert read(chunks(b"0123456789"), stated="10")[0] == b"0123456789"


@pytest.mark.parametrize("stated", [None, "5", "nonsense", "-1"])
def test_the_limit_counts_the_bytes_that_arrive(stated: str | None) -> None:
    with pytest.raises(RefusedError) as caught:
        read(chunks(b"012345", b"67890"), stated=stated)
    assert caught.value.status == 413


def test_a_stated_length_above_the_limit_is_refused_before_a_byte_is_read() -> None:
    async def untouched() -> AsyncIterator[bytes]:
        raise AssertionError
        yield b""

    with pytest.raises(RefusedError) as caught:
        read(untouched(), stated="11")
    assert caught.value.status == 413


def test_nothing_above_the_limit_is_kept() -> None:
    reserved: list[int] = []
    with contextlib.suppress(RefusedError):
        asyncio.run(
            read_body(
                chunks(b"01234", b"012345678"),
                stated=None,
                largest=10,
                seconds=5,
                reserve=reserved.append,
            )
        )
    assert reserved == [5]


def test_a_slow_client_is_refused_in_time() -> None:
    with pytest.raises(RefusedError) as caught:
        read(chunks(*[b"a"] * 100, pause=0.05), largest=1000, seconds=0.2)
    assert caught.value.status == 408


def test_a_client_that_stalls_or_drips_does_not_keep_its_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(uploads, "FIRST_SECONDS", 0.2)
    monkeypatch.setattr(uploads, "SLOWEST_BYTES_PER_SECOND", 1000)
    for source in (chunks(b"a", b"a", pause=60), chunks(*[b"a"] * 1000, pause=0.06)):
        with pytest.raises(RefusedError) as caught:
            read(source, largest=10**6, seconds=60)
        assert caught.value.status == 408
    # One that is fast enough has more time than the first seconds.
    body, _ = read(chunks(*[b"a" * 10_000] * 6, pause=0.06), largest=10**6, seconds=60)
    assert len(body) == 60_000


def test_an_empty_body_is_refused() -> None:
    with pytest.raises(RefusedError) as caught:
        read(chunks())
    assert caught.value.status == 422
