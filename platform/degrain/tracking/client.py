"""The MLflow client: each call is retried for two minutes while the server is unavailable.

MLflow's own client retries for four minutes and cannot be configured per call or thread. So its
retries are disabled and replaced here, where `no_retry` can disable them for one thread.
"""

import contextlib
import functools
import logging
import os
import sqlite3
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeVar, cast

from boto3.exceptions import Boto3Error
from botocore.exceptions import BotoCoreError, ClientError
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.telemetry import set_telemetry_client
from sqlalchemy.exc import SQLAlchemyError
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    wait_chain,
    wait_fixed,
)

from degrain.errors import JobFailedError, NoModelError, UserError
from degrain.storage.location import Storage
from degrain.storage.retry import is_failure_of_server
from degrain.tracking.config import TrackingConfig
from degrain.tracking.database import prepare_database

T = TypeVar("T")

RETRY_DELAYS_SECONDS = (1.0, 2.0, 4.0, 8.0, 15.0)
"""Delays before the attempts; the last is repeated."""
_RETRY_SECONDS = 120.0
_HEALTH_TIMEOUT_SECONDS = 10
# MLflow's error codes for an unreachable server, the statuses 5xx and 429, and a database that is
# locked or full.
_TEMPORARY = {"INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED"}

_retry_seconds: ContextVar[float] = ContextVar("retry_seconds", default=_RETRY_SECONDS)


class ServerUnavailableError(JobFailedError):
    """The MLflow server does not answer; the same call may succeed later."""


@contextlib.contextmanager
def store_errors() -> Iterator[None]:
    """Convert MLflow's error for a rejected call to a JobFailedError of one line."""
    try:
        yield
    except MlflowException as error:
        raise JobFailedError(_one_line(error)) from error


@contextlib.contextmanager
def no_retry(enabled: bool = True) -> Iterator[None]:
    """Disable retries of this thread's calls inside the block, if `enabled`."""
    before = _retry_seconds.set(0 if enabled else _retry_seconds.get())
    try:
        yield
    finally:
        _retry_seconds.reset(before)


def retry(work: Callable[[], T]) -> T:
    """Call `work`, and retry for two minutes while the server is unavailable.

    Raises ServerUnavailableError if it is still unavailable then.
    """
    seconds = _retry_seconds.get()
    attempts = Retrying(
        retry=retry_if_exception(_is_temporary),
        wait=wait_chain(*map(wait_fixed, RETRY_DELAYS_SECONDS)),
        stop=lambda state: state.idle_for + state.upcoming_sleep > seconds,
        retry_error_callback=_raise_unavailable,
    )
    return attempts(work)


def _is_temporary(error: BaseException) -> bool:
    if isinstance(error, MlflowException):
        return error.error_code in _TEMPORARY
    if isinstance(error, ClientError):
        return is_failure_of_server(error)
    return isinstance(error, Boto3Error | BotoCoreError)


def _raise_unavailable(state: RetryCallState) -> None:
    assert state.outcome is not None
    error = state.outcome.exception()
    assert isinstance(error, Exception)
    raise ServerUnavailableError(_one_line(error)) from error


def retry_delay(failures: int, delays: Sequence[float]) -> float:
    """Seconds to wait after one more than `failures` failed attempts in a row."""
    return delays[min(failures, len(delays) - 1)]


class RetryingClient:
    """Wraps a client so that each call is retried.

    It is no subclass of MlflowClient, in which methods that call each other would nest retries.
    """

    def __init__(self, client: MlflowClient) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - an attribute of the client
        found = getattr(self._client, name)
        if not callable(found):
            return found

        @functools.wraps(found)
        def call(*args: object, **kwargs: object) -> object:
            return retry(lambda: found(*args, **kwargs))

        return call


def connect(config: TrackingConfig, storage: Storage, *, create: bool = True) -> MlflowClient:
    """Return a client of the tracking store and registry whose calls are retried.

    If `create`, an embedded store that does not exist is created. Raises UserError if the server
    does not answer or the store cannot be used.
    """
    database = Path(config.tracking_uri.removeprefix("sqlite:///")) if config.embedded else None
    if not create and database is not None and not database.exists():
        raise NoModelError(
            f"there are no models yet: {config.tracking_uri} does not exist; run `degrain tune` "
            "first"
        )
    os.environ.update(storage.mlflow_environment())
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
    # A model's folder has enough files for a bar, which would mix with our own output.
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    # MLflow sends usage telemetry by default, with a client that it creates at import.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    set_telemetry_client()  # type: ignore[no-untyped-call]
    for name in ("alembic", "mlflow"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # MLflow's request timeout is unchanged: a server may need a minute to store a large model.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    _check_server(config.tracking_uri)
    try:
        if database is not None:
            prepare_database(database)
        client = MlflowClient(config.tracking_uri, registry_uri=config.tracking_uri)
        client.search_experiments(max_results=1)
    except (MlflowException, SQLAlchemyError, sqlite3.Error, OSError) as error:
        short = " ".join(str(error).split())[:160]
        raise UserError(
            f"cannot use the MLflow store {config.tracking_uri}: {short}; set a server or a "
            "writable sqlite:/// file in mlflow.yaml or MLFLOW_TRACKING_URI"
        ) from None
    return cast("MlflowClient", RetryingClient(client))


def _check_server(uri: str) -> None:
    """Raise UserError if a tracking server does not answer a health request."""
    if not uri.startswith(("http://", "https://")):
        return
    try:
        with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=_HEALTH_TIMEOUT_SECONDS):
            pass
    except (urllib.error.URLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise UserError(
            f"the MLflow server {uri} does not answer ({reason}); start it, or unset "
            "MLFLOW_TRACKING_URI to use the embedded store of mlflow.yaml"
        ) from None


def short_text(error: BaseException) -> str:
    """Format an error's text as one line of at most 200 characters."""
    return " ".join(str(error).split())[:200]


def _one_line(error: Exception) -> str:
    reason = short_text(error)
    return f"the MLflow store failed: {reason}; check the server and its disk, and run again"
