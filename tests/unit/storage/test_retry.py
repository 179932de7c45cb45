"""Which errors of buckets pass by themselves, and which are none of a bucket."""

import pytest
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionClosedError,
    EndpointConnectionError,
    IncompleteReadError,
    NoCredentialsError,
    ResponseStreamingError,
)

from degrain.storage.retry import bucket_error, retry


def answer(status: int, code: str = "X") -> ClientError:
    response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(response, "GetObject")


PASSING = [
    answer(500),
    answer(503, "SlowDown"),
    answer(429),
    ConnectionClosedError(endpoint_url="http://bucket"),
    ResponseStreamingError(error="reset"),
    IncompleteReadError(actual_bytes=1, expected_bytes=2),
    OSError("When reading information for key 'x': AWS Error NETWORK_CONNECTION"),
]
LASTING = [
    answer(400),
    answer(403, "AccessDenied"),
    answer(404, "NoSuchKey"),
    EndpointConnectionError(endpoint_url="http://nowhere"),
    NoCredentialsError(),
    BotoCoreError(),
    OSError("When reading information for key 'x': AWS Error ACCESS_DENIED"),
    OSError(28, "No space left on device"),
    FileNotFoundError(2, "No such file"),
    ValueError("x"),
]


def attempts(error: Exception, monkeypatch: pytest.MonkeyPatch) -> int:
    """How often work that always fails is begun."""
    count = 0

    def fail() -> None:
        nonlocal count
        count += 1
        raise error

    monkeypatch.setattr("tenacity.nap.time.sleep", lambda _seconds: None)
    with pytest.raises(type(error)) as raised:
        retry(fail)
    assert raised.value is error
    return count


@pytest.mark.parametrize("error", PASSING, ids=repr)
def test_an_error_that_passes_is_waited_for(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert attempts(error, monkeypatch) == 6


@pytest.mark.parametrize("error", LASTING, ids=repr)
def test_an_error_that_lasts_is_raised_at_once(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert attempts(error, monkeypatch) == 1


def test_other_errors_are_none_of_a_bucket() -> None:
    assert bucket_error(OSError(28, "No space left on device")) is None
    assert bucket_error(ValueError("x")) is None
