"""Retries while a bucket does not answer."""

from collections.abc import Callable
from typing import TypeVar

from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_chain, wait_fixed

T = TypeVar("T")

_RETRY_DELAYS_SECONDS = (1, 2, 4, 8, 15)


def retry(work: Callable[[], T]) -> T:
    """Call `work`, and retry for half a minute while a bucket does not answer.

    Errors of a local file system are not retried. Raises the last OSError.
    """
    attempts = Retrying(
        retry=retry_if_exception(_is_bucket_error),
        wait=wait_chain(*map(wait_fixed, _RETRY_DELAYS_SECONDS)),
        stop=stop_after_attempt(len(_RETRY_DELAYS_SECONDS) + 1),
        reraise=True,
    )
    return attempts(work)


def _is_bucket_error(error: BaseException) -> bool:
    """Whether pyarrow raised `error` for a bucket: only local errors have an errno."""
    return isinstance(error, OSError) and error.errno is None
