"""Errors of buckets: which ones pass, retries while they last, and their one line."""

from collections.abc import Callable
from typing import TypeVar

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionClosedError,
    IncompleteReadError,
    ResponseStreamingError,
)
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_chain, wait_fixed

T = TypeVar("T")

_RETRY_DELAYS_SECONDS = (1, 2, 4, 8, 15)
_PERMANENT = (
    *("ACCESS_DENIED", "AccessDenied", "EXPIRED_TOKEN", "ExpiredToken", "INVALID_ACCESS_KEY_ID"),
    *("InvalidAccessKeyId", "INVALID_CLIENT_TOKEN_ID", "SIGNATURE_DOES_NOT_MATCH"),
    *("SignatureDoesNotMatch", "NO_SUCH_BUCKET", "NoSuchBucket"),
)
"""Names of errors that another attempt does not change, as pyarrow and boto3 write them."""
_BROKEN_OFF = (ConnectionClosedError, ResponseStreamingError, IncompleteReadError)
"""Errors of connections that were made. Others are those of a wrong address, as a rule."""
_TOO_MANY_REQUESTS, _SERVER_ERROR = 429, 500


def retry(work: Callable[[], T]) -> T:
    """Call `work`, and retry for half a minute while a bucket does not answer.

    Errors of a local file system, and of missing rights, are not retried. Raises the last error.
    """
    attempts = Retrying(
        retry=retry_if_exception(_is_temporary),
        wait=wait_chain(*map(wait_fixed, _RETRY_DELAYS_SECONDS)),
        stop=stop_after_attempt(len(_RETRY_DELAYS_SECONDS) + 1),
        reraise=True,
    )
    return attempts(work)


def _is_temporary(error: BaseException) -> bool:
    if isinstance(error, ClientError):
        return is_failure_of_server(error)
    # Some errors of botocore are also an OSError without a number, as those of pyarrow are.
    if isinstance(error, BotoCoreError):
        return isinstance(error, _BROKEN_OFF)
    return _is_arrow_error(error) and not is_refusal(error)


def is_refusal(error: BaseException) -> bool:
    """Whether a bucket refused a request, as it would refuse the same again."""
    return any(name in str(error) for name in _PERMANENT)


def is_failure_of_server(error: ClientError) -> bool:
    """Whether a bucket's server answered that it is overloaded or has failed."""
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0)
    return status >= _SERVER_ERROR or status == _TOO_MANY_REQUESTS


def _is_arrow_error(error: BaseException) -> bool:
    """Whether pyarrow raised `error` for a bucket: only local errors have an errno."""
    return isinstance(error, OSError) and error.errno is None


def bucket_error(error: BaseException) -> str | None:
    """One line for an error of a bucket; None for other errors."""
    if not _is_arrow_error(error) and not isinstance(error, ClientError | BotoCoreError):
        return None
    lines = str(error).splitlines()
    remedy = (
        "check the URI, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and the rights on the bucket"
        if is_refusal(error)
        else "what was finished is kept, run it again"
    )
    return f"a bucket failed: {lines[-1].strip() if lines else type(error).__name__}; {remedy}"
