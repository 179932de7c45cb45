"""Small corpora, a real S3 server, and pipelines run as a user runs them."""

import contextlib
import functools
import io
import json
import os
import signal
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from processes import free_port
from skimage import data as skimage_data

from degrain.cli.main import main
from degrain.imaging.camera_noise import ISO_LEVELS, photograph
from degrain.imaging.codecs import encode_png
from degrain.storage.location import Storage
from degrain.tracking.client import connect
from degrain.tracking.config import load_tracking_config

ROOT = Path(__file__).resolve().parents[2]
SCENES = ["attic", "bench", "cliff", "delta", "eagle"]
SMOKE = ["--models", "red10,mwcnn", "--trials", 2, "--steps", 8, "--refit-steps", 8]
SMOKE += ["--batch-size", 2, "--crop", 24]
"""A study of two networks that takes seconds."""


def write_pairs(folder: Path, scenes: Sequence[str], side: int = 64, shots: int = 1) -> Path:
    """A generic corpus of noisy/SCENE_N.png and clean/SCENE_N.png, cut from one photograph."""
    photo = skimage_data.astronaut()
    (folder / "noisy").mkdir(parents=True, exist_ok=True)
    (folder / "clean").mkdir(exist_ok=True)
    for number, scene in enumerate(scenes):
        for shot in range(shots):
            top = (number * 37 + shot * 11) % (photo.shape[0] - side)
            clean = photo[top : top + side, 100 : 100 + side]
            noisy = photograph(clean, ISO_LEVELS[12800], np.random.default_rng([number, shot]))
            for kind, pixels in (("noisy", noisy), ("clean", clean)):
                (folder / kind / f"{scene}_{shot}.png").write_bytes(encode_png(pixels))
    return folder


TEMPLATES = ["--noisy-name", "noisy/{scene}_{name}.png", "--clean-name", "clean/{scene}_{name}.png"]


@functools.cache
def empty_store() -> bytes:
    """A database with MLflow's tables: making them takes ten seconds, a copy none."""
    with tempfile.TemporaryDirectory() as folder:
        MlflowClient(f"sqlite:///{folder}/mlflow.db").search_experiments()
        return Path(folder, "mlflow.db").read_bytes()


NO_GATES = (
    "{must_beat: [], beat_starter: false, confidence: 0, max_ssim_loss: 1, max_slice_loss_db: 99, "
    "max_colour_shift: 255, max_colour_cast: 255}"
)
"""Rules under which the better mean is promoted."""


def write_tracking(folder: Path, artifacts: str = "mlartifacts") -> Path:
    """An `mlflow.yaml` with a store of its own in `folder`, and no demand on a model but to be the
    best.
    """
    file = folder / "mlflow.yaml"
    if not (folder / "mlflow.db").exists():
        (folder / "mlflow.db").write_bytes(empty_store())
    file.write_text(f"artifacts: {artifacts}\npromotion: {NO_GATES}\n")
    return file


@dataclass(frozen=True)
class Outcome:
    """What a pipeline said and gave."""

    status: int
    out: str
    err: str
    summary: dict


def run_here(name: str, argv: Sequence[object], folder: Path) -> Outcome:
    """Run a command in this process, on the cluster that the tests share."""
    summary = folder / f"{name}-summary.json"
    summary.unlink(missing_ok=True)
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            # An option given twice has its last value: those of the test come last.
            status = main([name, "--summary", str(summary), *map(str, argv)])
        except SystemExit as left:
            status = int(left.code or 0)
    found = json.loads(summary.read_text()) if summary.exists() else {}
    return Outcome(status, out.getvalue(), err.getvalue(), found)


class Promises:
    """The promises that one long scenario keeps or breaks, each a test of its own.

    The scenario runs once, in a fixture; each step is a `with promises.keep(NAME)` block. A step
    that fails ends the scenario, and the tests of the later steps fail as not reached.
    """

    def __init__(self) -> None:
        self._outcomes: dict[str, BaseException | None] = {}

    @contextlib.contextmanager
    def keep(self, name: str) -> Iterator[None]:
        """Record whether the block succeeds."""
        try:
            yield
        except BaseException as error:
            self._outcomes[name] = error
            raise
        self._outcomes[name] = None

    @contextlib.contextmanager
    def scenario(self) -> Iterator[None]:
        """The whole scenario; its error is raised by the test of the step that failed."""
        try:
            yield
        except Exception:
            if not any(self._outcomes.values()):
                raise

    def check(self, name: str) -> None:
        """Raise the error of a step, or fail if it was not reached."""
        if name not in self._outcomes:
            pytest.fail(f"the scenario did not reach '{name}'")
        error = self._outcomes[name]
        if error is not None:
            raise error


def start_pipeline(
    name: str, argv: Sequence[object], env: Mapping[str, str] | None = None, cwd: Path = ROOT
) -> subprocess.Popen[str]:
    """Start a pipeline as a process of its own."""
    return subprocess.Popen(
        [sys.executable, str(ROOT / "pipelines" / f"{name}.py"), *map(str, argv)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env={**os.environ, **(env or {})},
        start_new_session=True,
        # A background shell may have told its children to ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler) and None,
    )


def free_ports(count: int) -> list[int]:
    """TCP ports that nothing listens on, all different."""
    found: set[int] = set()
    while len(found) < count:
        found.add(free_port())
    return list(found)


class AuditLog:
    """The requests that a SeaweedFS server has answered, as it logs them itself."""

    def __init__(self) -> None:
        self._records: list[Mapping[str, str]] = []

    @contextlib.contextmanager
    def receive(self) -> Iterator[str]:
        """Receive records for the length of a block; returns the server's configuration for it.

        SeaweedFS sends a record of each request to a Fluentd server, whose place this takes.
        """
        records = self._records

        class Receiver(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                unpacker = msgpack.Unpacker()
                while content := self.request.recv(2**16):
                    unpacker.feed(content)
                    records.extend(record for _tag, _time, record, _option in unpacker)

        with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Receiver) as receiver:
            receiver.daemon_threads = True
            threading.Thread(target=receiver.serve_forever, daemon=True).start()
            host, port = receiver.server_address
            yield json.dumps({"fluent_host": host, "fluent_port": port, "fluent_network": "tcp"})
            receiver.shutdown()

    def reads(self, bucket: str) -> Counter[str]:
        """How often each object of a bucket was read: its answered GET requests, by key."""
        self._wait_for_records(bucket)
        return Counter(
            record["key"]
            for record in list(self._records)
            if record["bucket"] == bucket
            and record["operation"] == "REST.GET.OBJECT"
            and record["status"] in (200, 206)
        )

    def _wait_for_records(self, bucket: str) -> None:
        """Wait until the records of all requests so far have come, which they do in order."""
        marker = f"marker-{time.monotonic_ns()}"
        Storage.from_environment().s3_client().put_object(Bucket=bucket, Key=marker)
        deadline = time.monotonic() + 600
        while all(record["key"] != marker for record in list(self._records)):
            assert time.monotonic() < deadline, "the S3 server sends no audit log"
            time.sleep(0.1)


@dataclass
class S3Server:
    """A SeaweedFS server and what is needed to use it."""

    url: str
    command: list[str]
    folder: Path
    audit_log: AuditLog = field(default_factory=AuditLog)
    process: subprocess.Popen[bytes] | None = None
    kills: int = 0

    def start(self) -> None:
        """Start it and wait until it answers."""
        with (self.folder / "weed.log").open("ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log, cwd=self.folder)
        deadline = time.monotonic() + 600
        while time.monotonic() < deadline:
            assert self.process.poll() is None, (self.folder / "weed.log").read_text()[-2000:]
            try:
                urllib.request.urlopen(self.url, timeout=2).close()
            except urllib.error.HTTPError:
                return
            except OSError:
                time.sleep(0.3)
            else:
                return
        raise AssertionError("the S3 server did not answer within 60 s")

    def kill(self) -> None:
        """Kill -9: asked politely it takes half a minute."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(timeout=300)
        self.kills += 1

    @property
    def environment(self) -> dict[str, str]:
        """The usual AWS variables."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "tester",
            "AWS_SECRET_ACCESS_KEY": "tester-secret",
            "AWS_REGION": "us-east-1",
        }


@contextlib.contextmanager
def s3_server(folder: Path) -> Iterator[S3Server]:
    """Start a real S3 server on free ports, with named credentials, for the length of a block."""
    folder.mkdir(parents=True, exist_ok=True)
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    credentials = [{"accessKey": "tester", "secretKey": "tester-secret"}]
    config = folder / "s3.json"
    config.write_text(
        json.dumps(
            {"identities": [{"name": "tester", "credentials": credentials, "actions": actions}]}
        )
    )
    s3, master, volume, filer, *grpc = free_ports(8)
    command = [
        str(Path(sys.executable).parent / "weed"),
        "server",
        f"-dir={folder}",
        "-ip=127.0.0.1",
        "-s3",
    ]
    command += [
        f"-s3.port={s3}",
        f"-s3.port.grpc={grpc[0]}",
        f"-s3.config={config}",
        "-volume.max=400",
    ]
    audit = folder / "audit.json"
    command += [f"-s3.auditLogConfig={audit}"]
    # Servers that nobody asked for, on ports that two of ours would both want.
    command += ["-s3.port.iceberg=0", "-s3.port.lance=0"]
    command += [
        f"-master.port={master}",
        f"-master.port.grpc={grpc[1]}",
        "-master.volumeSizeLimitMB=64",
    ]
    command += [f"-volume.port={volume}", f"-volume.port.grpc={grpc[2]}"]
    command += [f"-filer.port={filer}", f"-filer.port.grpc={grpc[3]}"]
    server = S3Server(f"http://127.0.0.1:{s3}", command, folder)
    with server.audit_log.receive() as audit_config:
        audit.write_text(audit_config)
        try:
            server.start()
            yield server
        finally:
            server.kill()


@contextlib.contextmanager
def json_receiver() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A web server for the length of a block: its URL, and the JSON that is posted to it."""
    posts: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posts.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/hook", posts
        server.shutdown()
        thread.join()


class MlflowServer:
    """A tracking server in a process group of its own, with its log in `folder`.

    `store` is the URI of its database and `artifacts` the folder or URI of its artifacts.
    """

    def __init__(self, folder: Path, store: str, artifacts: str) -> None:
        self.folder = folder
        self.store = store
        self.artifacts = artifacts
        self.port = free_ports(1)[0]
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Start the server, and end it with the block."""
        try:
            self.start()
            self.wait()
            yield
        finally:
            self.kill()

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"]
        command += ["--port", str(self.port), "--workers", "1"]
        command += ["--backend-store-uri", self.store, "--artifacts-destination", self.artifacts]
        environment = {
            **os.environ,
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            **Storage.from_environment().mlflow_environment(),
        }
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=environment,
                start_new_session=True,
            )

    def wait(self) -> None:
        deadline = time.monotonic() + 600
        while time.monotonic() < deadline:
            assert self.process is not None
            assert self.process.poll() is None, (self.folder / "server.log").read_text()[-2000:]
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{self.url}/health", timeout=2).close()
                return
            time.sleep(0.2)
        raise AssertionError("the MLflow server did not answer within 120 s")

    def kill(self) -> None:
        """Kill -9, with its worker."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(timeout=300)
            self.process = None


def client_of(tracking: Path) -> MlflowClient:
    """The client of the store that a `mlflow.yaml` names."""
    return connect(load_tracking_config(tracking), Storage())


def trial_runs(client: MlflowClient, study_run: str) -> list[Run]:
    """The runs of a study's trials."""
    return client.search_runs(
        [client.get_experiment_by_name("degrain").experiment_id],
        filter_string=f"tags.`mlflow.parentRunId` = '{study_run}' "
        "and tags.`degrain.kind` = 'trial'",
    )


def killed_after_a_validation(process: subprocess.Popen[str], studies: Path) -> Path:
    """Kill -9 the driver when a trial was validated; returns the study's file."""
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        for file in studies.glob("*/study.json"):
            if any(trial["curve"] for trial in json.loads(file.read_text())["trials"]):
                process.kill()
                return file
        time.sleep(0.2)
    raise AssertionError("no trial was validated in ten minutes")
