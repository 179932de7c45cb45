"""The MLflow client retries calls while the server is unavailable."""

import base64
import contextlib
import datetime
import ipaddress
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
import sqlalchemy
from boto3.exceptions import S3UploadFailedError
from botocore.exceptions import NoCredentialsError
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from degrain.errors import JobFailedError, UserError
from degrain.storage.location import Storage
from degrain.tracking.client import (
    RetryingClient,
    ServerUnavailableError,
    connect,
    no_retry,
    retry,
    store_errors,
)
from degrain.tracking.config import TrackingConfig


class FakeClient:
    """Raises MLflow's error `code` in its first `failures` calls."""

    def __init__(self, failures: int, code: str) -> None:
        self.failures = failures
        self.code = code

    def get_run(self, name: str) -> str:
        self.failures -= 1
        if self.failures >= 0:
            error = MlflowException("unavailable")
            error.error_code = self.code
            raise error
        return f"run {name}"


def fake(failures: int, code: str = "INTERNAL_ERROR") -> MlflowClient:
    return RetryingClient(FakeClient(failures, code))  # type: ignore[arg-type]


@pytest.fixture
def delays(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    recorded: list[float] = []
    monkeypatch.setattr("tenacity.nap.time", SimpleNamespace(sleep=recorded.append))
    return recorded


def test_calls_are_retried_for_more_than_a_minute(delays: list[float]) -> None:
    assert fake(8).get_run("a") == "run a"
    assert delays == [1, 2, 4, 8, 15, 15, 15, 15]
    assert sum(delays) > 60


def test_retries_end_after_two_minutes(delays: list[float]) -> None:
    with pytest.raises(
        ServerUnavailableError, match="the MLflow store failed: unavailable; check the server"
    ):
        fake(1000).get_run("a")
    assert 100 < sum(delays) <= 120


def test_a_rejected_call_is_not_retried(delays: list[float]) -> None:
    with pytest.raises(MlflowException, match="unavailable"):
        fake(1, "RESOURCE_DOES_NOT_EXIST").get_run("a")
    assert delays == []


def test_no_retry_disables_retries(delays: list[float]) -> None:
    with no_retry(), pytest.raises(ServerUnavailableError):
        fake(1).get_run("a")
    assert delays == []
    with no_retry(enabled=False):
        assert fake(1).get_run("a") == "run a"
    assert retry(lambda: 3) == 3


def sqlite_error(statement: str, uri: str) -> MlflowException:
    """What MLflow raises where a statement fails."""
    engine = sqlalchemy.create_engine(uri, connect_args={"timeout": 0})
    with pytest.raises(sqlalchemy.exc.OperationalError) as caught, engine.begin() as database:
        database.execute(sqlalchemy.text(statement))
    engine.dispose()
    error = MlflowException(str(caught.value))
    error.error_code = "TEMPORARILY_UNAVAILABLE"
    error.__cause__ = caught.value
    return error


def failing(error: Exception) -> None:
    """A call of MLflow's client that raises an error."""
    with store_errors():

        def call() -> None:
            raise error

        retry(call)


def test_a_store_that_cannot_be_written_is_one_line_at_once(
    tmp_path: Path, delays: list[float]
) -> None:
    file = tmp_path / "mlflow.db"
    file.touch()
    error = sqlite_error("CREATE TABLE t (a)", f"sqlite:///file:{file}?mode=ro&uri=true")
    with pytest.raises(
        JobFailedError, match=r"attempt to write a readonly database.*; make its file and folder"
    ):
        failing(error)
    assert delays == []


def test_a_locked_store_is_retried(tmp_path: Path, delays: list[float]) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    engine = sqlalchemy.create_engine(uri)
    with engine.connect() as other:
        other.execute(sqlalchemy.text("BEGIN EXCLUSIVE"))
        error = sqlite_error("CREATE TABLE t (a)", uri)
    engine.dispose()
    with pytest.raises(ServerUnavailableError, match="database is locked"):
        failing(error)
    assert sum(delays) > 60


@pytest.mark.parametrize(
    "error",
    [
        S3UploadFailedError(
            "Failed to upload a to b/a: An error occurred (InvalidAccessKeyId) when calling"
        ),
        NoCredentialsError(),
        MlflowException("failures: ClientError('An error occurred (SignatureDoesNotMatch)')"),
    ],
)
def test_wrong_keys_of_the_bucket_are_one_line_at_once(
    error: Exception, delays: list[float]
) -> None:
    with pytest.raises(JobFailedError, match=r"the MLflow store failed: .*; check "):
        failing(error)
    assert delays == []


def test_a_broken_upload_is_retried(delays: list[float]) -> None:
    with pytest.raises(ServerUnavailableError):
        failing(S3UploadFailedError("Failed to upload a to b/a: Could not connect"))
    assert sum(delays) > 60


def test_a_file_that_is_no_database_is_one_line_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlflow.store.db.utils.time", SimpleNamespace(sleep=pytest.fail))
    (tmp_path / "mlflow.db").write_bytes(b"no database" * 100)
    config = TrackingConfig(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    with pytest.raises(UserError, match="file is not a database; set a server"):
        connect(config, Storage())


class Login(BaseHTTPRequestHandler):
    """A tracking server without runs that answers to the right login alone."""

    expected: str

    def do_POST(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        known = self.headers.get("Authorization") == self.expected
        body = b'{"experiments": []}' if known else b"not authenticated"
        self.send_response(200 if known else 401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@contextlib.contextmanager
def server(login: str, tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """A tracking server for the length of a block; its port."""
    handler = type("Handler", (Login,), {"expected": login})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        if tls is not None:
            running.socket = tls.wrap_socket(running.socket, server_side=True)
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        try:
            yield running.server_port
        finally:
            running.shutdown()
            thread.join()


BASIC = f"Basic {base64.b64encode(b'me:se@cret').decode()}"
LOGIN = {"MLFLOW_TRACKING_USERNAME": "me", "MLFLOW_TRACKING_PASSWORD": "se@cret"}


@pytest.mark.parametrize(
    ("expected", "environment", "user"),
    [
        (BASIC, LOGIN, ""),
        (BASIC, {}, "me:se%40cret@"),
        ("Bearer abc", {"MLFLOW_TRACKING_TOKEN": "abc"}, ""),
    ],
)
def test_a_server_with_a_login_is_used_as_by_mlflow(
    expected: str, environment: dict[str, str], user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with server(expected) as port:
        config = TrackingConfig(tracking_uri=f"http://{user}127.0.0.1:{port}")
        assert connect(config, Storage()).search_experiments() == []


def test_errors_do_not_show_a_password(delays: list[float]) -> None:
    with server(BASIC) as port:
        config = TrackingConfig(tracking_uri=f"http://me:wrong@127.0.0.1:{port}")
        with pytest.raises(UserError, match=r"me:\*\*\*@.* refuses requests \(HTTP 401: ") as first:
            connect(config, Storage())
    with pytest.raises(UserError, match=r"does not answer \(.*Connection refused\)") as second:
        connect(config, Storage())
    client = RetryingClient(MlflowClient(config.tracking_uri))
    with pytest.raises(ServerUnavailableError) as third, store_errors():
        client.search_experiments()  # type: ignore[operator]
    assert all("wrong" not in str(error.value) for error in (first, second, third))
    assert "wrong" not in repr(config)


def private_authority(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """The TLS of a server on 127.0.0.1, and the certificate that proves it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file, secret = folder / "ca.pem", folder / "key.pem"
    file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file, secret)
    return context, file


@pytest.mark.parametrize(
    "variable", ["MLFLOW_TRACKING_SERVER_CERT_PATH", "REQUESTS_CA_BUNDLE", None]
)
def test_a_server_with_a_private_authority_is_used_as_by_mlflow(
    variable: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls, certificate = private_authority(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "abc")
    with server("Bearer abc", tls) as port:
        config = TrackingConfig(tracking_uri=f"https://127.0.0.1:{port}")
        if variable is not None:
            monkeypatch.setenv(variable, str(certificate))
            assert connect(config, Storage()).search_experiments() == []
        else:
            with pytest.raises(UserError, match="; set MLFLOW_TRACKING_SERVER_CERT_PATH"):
                connect(config, Storage())
