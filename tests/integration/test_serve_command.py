"""`degrain serve` as a process of its own: start, ports, end."""

import http.client
import io
import json
import re
import signal
import socket
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import tifffile
from integration.support import free_ports, run_here, start_pipeline, write_tracking

from degrain.imaging.codecs import encode_png


def test_an_address_beyond_this_machine_needs_a_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DEGRAIN_SERVE_TOKEN", raising=False)
    outcome = run_here("serve", ["--host", "0.0.0.0"], tmp_path)
    assert outcome.status == 2
    assert "there is no token" in outcome.err
    assert "--token-file" in outcome.err


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    tracking = write_tracking(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        outcome = run_here("serve", ["--port", port, "--mlflow", tracking], tmp_path)
    assert outcome.status == 2
    assert f"cannot listen on 127.0.0.1:{port}" in outcome.err
    assert "--port" in outcome.err


def test_a_registry_that_does_not_answer_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port, mlflow = free_ports(2)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{mlflow}")
    outcome = run_here("serve", ["--port", port], tmp_path)
    assert outcome.status == 2
    assert "does not answer" in outcome.err


class Running:
    """`degrain serve` as a process, with its lines."""

    def __init__(self, folder: Path) -> None:
        self.port, self.metrics_port = free_ports(2)
        self.folder = folder
        (folder / "temporary").mkdir()
        options = ["--port", self.port, "--mlflow", write_tracking(folder), "--max-replicas", 1]
        options += ["--metrics-port", self.metrics_port, "--summary", folder / "summary.json"]
        options += ["--upload-seconds", 600]
        # Ray's sockets need a short path.
        places = {"TMPDIR": str(folder / "temporary"), "RAY_TMPDIR": tempfile.gettempdir()}
        self.process = start_pipeline("serve", options, places)
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.lines.extend(self.process.stdout)

    def wait_for(self, text: str) -> str:
        deadline = time.monotonic() + 600
        while not (found := [line for line in self.lines if text in line]):
            assert self.process.poll() is None, (self.lines, self.process.stderr.read())
            assert time.monotonic() < deadline, self.lines
            time.sleep(0.05)
        return found[0]

    def close(self) -> None:
        self.process.kill()
        self._reader.join()
        for pipe in (self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()

    def post(self, body: bytes) -> http.client.HTTPResponse:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        connection.request("POST", "/v1/denoise", body, {"Content-Type": "image/png"})
        return connection.getresponse()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    made = Running(tmp_path_factory.mktemp("serve"))
    try:
        made.wait_for("serving on")
        yield made
    finally:
        made.close()


@pytest.mark.ray
def test_the_service_listens_on_this_machine_only(running: Running) -> None:
    assert running.lines[0] == "there is no champion yet: serving the starter model\n"
    with urllib.request.urlopen(f"http://127.0.0.1:{running.port}/ready", timeout=600) as answer:
        assert json.load(answer)["model"] == "starter"
    family = psutil.Process(running.process.pid)
    listening = {
        connection.laddr.ip
        for each in [family, *family.children(recursive=True)]
        for connection in each.net_connections()
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}


@pytest.mark.ray
def test_the_address_of_the_metrics_is_chosen_and_printed(running: Running) -> None:
    address = f"http://127.0.0.1:{running.metrics_port}/metrics"
    assert running.wait_for("metrics:") == f"metrics: {address}\n"
    with urllib.request.urlopen(address, timeout=600) as answer:
        assert answer.status == 200


@pytest.mark.ray
def test_ctrl_c_finishes_and_delivers_what_is_in_work_and_refuses_new_photos(
    running: Running,
) -> None:
    small = encode_png(np.full((48, 64, 3), 100, np.uint8))
    content = large_tiff()
    slow = slow_client(running)
    with socket.create_connection(("127.0.0.1", running.port), timeout=600) as connection:
        # So much at once that the pause after it does not make a slow upload of it.
        connection.sendall(head_of(content) + content[:-20])
        while not waiting_photos(running):
            time.sleep(0.2)
        running.process.send_signal(signal.SIGINT)
        assert running.wait_for("ending").startswith("ending: 1 photos in work are finished")
        refused = running.post(small)
        assert (refused.status, refused.headers["retry-after"]) == (503, "10")
        connection.sendall(content[-20:])
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert answer.status == 200
        assert tifffile.imread(io.BytesIO(answer.read())).shape == LARGE.shape
    wait_until_connections_are_refused(running)
    assert tifffile.imread(io.BytesIO(slow.read())).shape == LARGE.shape
    assert running.process.wait(timeout=600) == 0
    summary = json.loads((running.folder / "summary.json").read_text())
    assert summary["url"].endswith(str(running.port))
    assert list((running.folder / "temporary").glob("degrain-*")) == []


LARGE = np.random.default_rng(0).random((600, 800, 3))
"""12 megabytes as a TIFF, more than the system keeps for a client that reads nothing."""


def large_tiff() -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, LARGE, photometric="rgb")
    return file.getvalue()


def head_of(content: bytes) -> bytes:
    """The head of a request that posts a TIFF."""
    head = "POST /v1/denoise HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/tiff\r\n"
    return f"{head}Content-Length: {len(content)}\r\n\r\n".encode()


def slow_client(running: Running) -> http.client.HTTPResponse:
    """The beginning of an answer; what is left is on its way until it is read."""
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(600)
        connection.connect(("127.0.0.1", running.port))
        content = large_tiff()
        connection.sendall(head_of(content) + content)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
    assert answer.status == 200
    return answer


def wait_until_connections_are_refused(running: Running) -> None:
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", running.port), timeout=600).close()
        except ConnectionRefusedError:
            return
        time.sleep(0.05)
    raise AssertionError("the service still accepts connections")


def waiting_photos(running: Running) -> bool:
    """Whether the service has a photo, by its metrics."""
    address = f"http://127.0.0.1:{running.metrics_port}/metrics"
    with urllib.request.urlopen(address, timeout=600) as answer:
        page = answer.read().decode()
    return bool(re.search(r"^ray_degrain_waiting_photos\{.*\} 1\.0$", page, re.MULTILINE))
