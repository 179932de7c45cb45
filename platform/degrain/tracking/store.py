"""The MLflow store as something that may be lost for a minute: what is tried again, for how long, and what is final.

MLflow's own client makes a failed request again for four minutes and cannot be told otherwise for one call or thread. So
`make_impatient` turns that off, and patience lies here, where the caller can have less of it.
"""

import contextlib
import functools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any, TypeVar, cast

from boto3.exceptions import Boto3Error
from botocore.exceptions import BotoCoreError
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from degrain.errors import JobFailedError

T = TypeVar("T")

PAUSES_SECONDS = (1, 2, 4, 8, 15)
"""Between one try and the next; the last is repeated."""
_PATIENCE_SECONDS = 120
# What MLflow calls a server that cannot be reached, answers 5xx or 429, or has a database that is locked or full.
_PASSING = {"INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED"}

_patience_seconds: ContextVar[float] = ContextVar("patience_seconds", default=_PATIENCE_SECONDS)


class StoreLostError(JobFailedError):
    """The MLflow store does not answer; the same call may succeed later."""


@contextlib.contextmanager
def store_errors() -> Iterator[None]:
    """Turn what MLflow raises when its store refuses a call into a JobFailedError of one line."""
    try:
        yield
    except MlflowException as error:
        raise JobFailedError(_one_line(error)) from error


@contextlib.contextmanager
def at_once(hurried: bool = True) -> Iterator[None]:
    """In this block, and in this thread alone, a call to a lost store fails at once; unhurried, nothing changes."""
    before = _patience_seconds.set(0 if hurried else _patience_seconds.get())
    try:
        yield
    finally:
        _patience_seconds.reset(before)


def patiently(work: Callable[[], T]) -> T:
    """Do `work` again, for two minutes, while the store is lost. Raises StoreLostError if it stays lost."""
    patience, tries = _patience_seconds.get(), 0
    while True:
        try:
            return work()
        except (MlflowException, Boto3Error, BotoCoreError) as error:
            if isinstance(error, MlflowException) and error.error_code not in _PASSING:
                raise
            pause = pause_after(tries)
            if pause > patience:
                raise StoreLostError(_one_line(error)) from error
        time.sleep(pause)
        patience, tries = patience - pause, tries + 1


def pause_after(tries: int, pauses: Sequence[float] = PAUSES_SECONDS) -> float:
    """Seconds to wait when so many tries in a row, and one more, have failed."""
    return pauses[min(tries, len(pauses) - 1)]


def patient(client: MlflowClient) -> MlflowClient:
    """The same client, with each of its calls made `patiently`."""
    return cast("MlflowClient", _Patient(client))


class _Patient:
    """Stands in front of a client. A subclass would not do: a method of the client that calls another would wait twice."""

    def __init__(self, client: MlflowClient) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the client has
        found = getattr(self._client, name)
        if not callable(found):
            return found

        @functools.wraps(found)
        def call(*args: object, **kwargs: object) -> object:
            return patiently(lambda: found(*args, **kwargs))

        return call


def make_impatient() -> None:
    """Let MLflow's own client make each request once, unless the user's environment says otherwise.

    How long it waits for an answer stays as it is: a server that puts a large model into a bucket answers after a minute.
    """
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


def shortened(error: BaseException) -> str:
    """What an error says, as the middle of a line."""
    return " ".join(str(error).split())[:200]


def _one_line(error: Exception) -> str:
    return f"the MLflow store failed: {shortened(error)}; make sure it can be written, and run again"
