"""The MLflow client: each call is retried for two minutes while the server is unavailable.

MLflow's own client retries for four minutes and cannot be configured per call or thread. So its
retries are disabled and replaced here, where `no_retry` can disable them for one thread.
"""

import contextlib
import functools
import logging
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeVar, cast

from boto3.exceptions import Boto3Error
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, IncompleteReadError
from botocore.exceptions import ConnectionError as BucketConnectionError
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.telemetry import set_telemetry_client
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    wait_chain,
    wait_fixed,
)

from degrain.errors import JobFailedError, NoModelError, UserError
from degrain.storage.location import Storage
from degrain.storage.retry import is_failure_of_server, is_refusal
from degrain.tracking.config import TrackingConfig, without_passwords
from degrain.tracking.database import prepare_database
from degrain.tracking.moved_artifacts import follow_moved_artifacts

T = TypeVar("T")

RETRY_DELAYS_SECONDS = (1.0, 2.0, 4.0, 8.0, 15.0)
"""Delays before the attempts; the last is repeated."""
_RETRY_SECONDS = 120.0
_CHECK_TIMEOUT_SECONDS = 10
# MLflow's error codes for an unreachable server, the statuses 5xx and 429, and a database that is
# locked or full.
_TEMPORARY = {"INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED"}
_TEMPORARY_OF_SQLITE = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL)
_BUCKET_ERRORS = (ClientError, BotoCoreError, Boto3Error)
"""What MLflow's artifact store in a bucket raises."""
_BROKEN_CONNECTION = (BucketConnectionError, HTTPClientError, IncompleteReadError)

_retry_seconds: ContextVar[float] = ContextVar("retry_seconds", default=_RETRY_SECONDS)


class ServerUnavailableError(JobFailedError):
    """The MLflow server does not answer; the same call may succeed later."""


@contextlib.contextmanager
def store_errors() -> Iterator[None]:
    """Convert an error of MLflow for a rejected call to a JobFailedError of one line."""
    try:
        yield
    except (MlflowException, *_BUCKET_ERRORS) as error:
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
        return (
            error.error_code in _TEMPORARY
            and not is_refusal(error)
            and not _is_permanent_of_sqlite(error)
        )
    if isinstance(error, ClientError):
        return is_failure_of_server(error)
    if isinstance(error, BotoCoreError):
        return isinstance(error, _BROKEN_CONNECTION)
    return isinstance(error, Boto3Error) and not is_refusal(error)


def _is_permanent_of_sqlite(error: MlflowException) -> bool:
    """Whether a database file failed otherwise than by being locked or full."""
    cause = error.__cause__
    original = cause.orig if isinstance(cause, DBAPIError) else None
    if not isinstance(original, sqlite3.Error):
        return False
    # The last eight bits are the error, the others its details.
    return original.sqlite_errorcode & 0xFF not in _TEMPORARY_OF_SQLITE


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
            f"there are no models yet: {config.shown_uri} does not exist; run `degrain tune` first"
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
    # It logs the traceback of each error that it raises.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    # MLflow's request timeout is unchanged: a server may need a minute to store a large model.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    _check_server(config)
    try:
        if database is not None:
            prepare_database(database)
            if "://" not in config.artifacts:
                follow_moved_artifacts(config.tracking_uri, Path(config.artifacts))
        client = MlflowClient(config.tracking_uri, registry_uri=config.tracking_uri)
        client.search_experiments(max_results=1)
    except (MlflowException, SQLAlchemyError, sqlite3.Error, OSError) as error:
        raise UserError(_unusable(config, error)) from None
    return cast("MlflowClient", RetryingClient(client))


def _unusable(config: TrackingConfig, error: Exception) -> str:
    """One line on a store that cannot be opened."""
    if "out-of-date database schema" in str(error):
        return (
            f"the MLflow store {config.shown_uri} has the tables of another version of MLflow; "
            f"make a copy of it and run 'mlflow db upgrade {config.shown_uri}', or install the "
            "version of MLflow that wrote it"
        )
    return (
        f"cannot use the MLflow store {config.shown_uri}: {short_text(error)}; set a server or a "
        "writable sqlite:/// file in mlflow.yaml or MLFLOW_TRACKING_URI"
    )


def _check_server(config: TrackingConfig) -> None:
    """Raise UserError if a tracking server does not answer a request."""
    if not config.tracking_uri.startswith(("http://", "https://")):
        return
    try:
        answer = http_request(  # type: ignore[no-untyped-call]
            get_default_host_creds(config.tracking_uri),  # type: ignore[no-untyped-call]
            "/api/2.0/mlflow/experiments/search",
            "POST",
            json={"max_results": 1},
            timeout=_CHECK_TIMEOUT_SECONDS,
            max_retries=0,
            raise_on_status=False,
        )
    except MlflowException as error:
        reason = _reason(error)
        if "CERTIFICATE_VERIFY_FAILED" in reason:
            raise UserError(
                f"the MLflow server {config.shown_uri} does not answer ({reason}); set "
                "MLFLOW_TRACKING_SERVER_CERT_PATH to the certificate of its authority"
            ) from None
        raise UserError(
            f"the MLflow server {config.shown_uri} does not answer ({reason}); start it, or name "
            "another with MLFLOW_TRACKING_URI or in mlflow.yaml"
        ) from None
    if not answer.ok:
        said = without_passwords(" ".join(answer.text.split())[:100])
        raise UserError(
            f"the MLflow server {config.shown_uri} refuses requests (HTTP {answer.status_code}: "
            f"{said}); check its address, MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, "
            "or MLFLOW_TRACKING_TOKEN"
        )


def _reason(error: MlflowException) -> str:
    """Why a request failed: the innermost of the errors that MLflow's client wraps."""
    inner = error.__context__ or error
    wrapped = inner.args[0] if inner.args else None
    return short_text(getattr(wrapped, "reason", None) or inner)


def short_text(error: BaseException) -> str:
    """Format an error's text as one line of at most 200 characters, without passwords of URIs."""
    return without_passwords(" ".join(str(error).split()))[:200]


def _one_line(error: Exception) -> str:
    if isinstance(error, MlflowException) and _is_permanent_of_sqlite(error):
        remedy = "make its file and folder writable, or set another in mlflow.yaml"
    elif isinstance(error, _BUCKET_ERRORS):
        remedy = (
            "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL and the rights on "
            "the bucket of its artifacts"
        )
    else:
        remedy = "check the server and its disk, and run again"
    return f"the MLflow store failed: {short_text(error)}; {remedy}"
