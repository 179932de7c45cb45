"""The service as a Ray Serve application: load, full queue, killed replicas, promotions, hostile
clients.
"""

import concurrent.futures
import contextlib
import http.client
import itertools
import os
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import pytest
from client_threads import client_threads
from integration.support import MlflowServer, client_of, free_ports, run_here, write_tracking
from unit.serving_support import untrained

from degrain.imaging.codecs import decode, encode_png
from degrain.inference.config import InferenceConfig
from degrain.registry.resolver import Resolver
from degrain.registry.versions import register
from degrain.serving.config import ServingConfig
from degrain.serving.settings import Settings
from degrain.storage.location import Storage
from degrain.tracking.config import load_tracking_config
from degrain.tracking.runs import Tracker

pytestmark = pytest.mark.ray
PHOTO = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
CONTENT = encode_png(PHOTO)
LARGE = encode_png(np.random.default_rng(1).integers(0, 256, (400, 400, 3), dtype=np.uint8))
QUEUE = 3
REPLICAS = 2


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class Service:
    """The running service, and its registry."""

    port: int
    folder: Path
    mlflow: MlflowServer

    def request(
        self, method: str, path: str, body: object = None, seconds: float = 120, **headers: str
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=seconds)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        with contextlib.closing(connection):
            connection.request(method, path, body=body, headers=named)  # type: ignore[arg-type]
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, found, answer.read())

    def post(self, content: object = CONTENT, path: str = "/v1/denoise", **headers: str) -> Answer:
        return self.request("POST", path, content, **{"Content_Type": "image/png", **headers})

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=600)

    def move(self, version: str) -> None:
        """Move the alias, as `degrain promote` does."""
        client = client_of(self.folder / "mlflow.yaml")
        client.set_registered_model_alias("degrain-denoiser", "champion", version)


def register_versions(tracking: Path, count: int) -> None:
    """Register untrained networks, each with weights of its own."""
    tracker = Tracker.open(load_tracking_config(tracking), Storage())
    for number in range(count):
        weights, card = untrained(number)
        with tracker.run("training", "training") as run:
            register(tracker, run, weights, card)


@pytest.fixture(scope="module")
def service(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("registry")
    mlflow = MlflowServer(folder, f"sqlite:///{folder / 'mlflow.db'}", str(folder / "artifacts"))
    tracking = write_tracking(folder)
    with tracking.open("a") as file:
        file.write(f"tracking_uri: {mlflow.url}\n")
    with mlflow.running():
        register_versions(tracking, 2)
        made = Service(free_ports(1)[0], folder, mlflow)
        made.move("1")
        yield from serve(made, tracking)


def serve(made: Service, tracking: Path) -> Iterator[Service]:
    """Start the service; end it with the generator."""
    from degrain.serving.application import start, stop

    config = ServingConfig(
        port=made.port,
        min_replicas=REPLICAS,
        max_replicas=REPLICAS,
        queue=QUEUE,
        largest_megabytes=2,
        buffered_megabytes=8,
        largest_megapixels=1,
        upload_seconds=10,
        follow_seconds=0.5,
    )
    settings = Settings(
        serving=config,
        inference=InferenceConfig(precision="float32"),
        tracking=load_tracking_config(tracking),
        storage=Storage(),
        token=None,
    )
    models = start(settings)
    assert models.champion.label == "degrain-denoiser v1"
    yield made
    stop()


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 1200
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(0.05)


@dataclass
class Load:
    """Clients that send photos one after another until the block ends."""

    service: Service
    answers: list[tuple[float, Answer]] = field(default_factory=list)

    def run(self, clients: int = 2) -> contextlib.AbstractContextManager[None]:
        return client_threads(clients, self._send)

    def _send(self, _: int) -> None:
        self.answers.append((time.monotonic(), self.service.post()))

    def statuses(self) -> Counter[int]:
        return Counter(answer.status for _, answer in self.answers)

    def wait_for(self, version: str) -> None:
        """Wait until every new answer is from a version."""
        wanted = f"degrain-denoiser v{version}"

        def serves() -> bool:
            latest = [a.headers.get("degrain-model") for _, a in self.answers[-6:]]
            return len(latest) == 6 and set(latest) == {wanted}

        wait_until(serves, f"version {version} serves")

    def wait_for_answers(self, count: int) -> None:
        """Wait until so many more photos were denoised."""
        wanted = self.statuses()[200] + count
        wait_until(lambda: self.statuses()[200] >= wanted, f"{count} more photos are denoised")


def replica_processes() -> list[psutil.Process]:
    """The replicas that denoise; a killed one is a zombie for a moment, without a command."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "PhotoReplica" in "".join(process.cmdline()[:1]):
                found.append(process)
    return found


def wait_until_ready(service: Service, replicas: int = REPLICAS, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        answer = service.request("GET", "/ready")
        if answer.status == 200 and f'"replicas":{replicas}' in answer.body.decode():
            return
        time.sleep(0.2)
    raise AssertionError(answer.body)


def test_photos_at_one_time_are_each_denoised_by_the_champion(service: Service) -> None:
    denoiser, _ = Resolver(service.folder / "mlflow.yaml", Storage()).load(
        None, InferenceConfig(precision="float32")
    )
    photos = [np.roll(PHOTO, shift, axis=0) for shift in range(QUEUE + REPLICAS)]
    with concurrent.futures.ThreadPoolExecutor(len(photos)) as pool:
        answers = list(pool.map(lambda photo: service.post(encode_png(photo)), photos))
    for photo, answer in zip(photos, answers, strict=True):
        assert answer.status == 200, answer.body
        assert answer.headers["degrain-model"] == "degrain-denoiser v1"
        difference = decode(answer.body).astype(int) - denoiser(photo)
        assert np.abs(difference).max() <= 1


def test_beyond_the_queue_photos_get_429_and_the_others_are_served(service: Service) -> None:
    with concurrent.futures.ThreadPoolExecutor(30) as pool:
        answers = list(pool.map(lambda _: service.post(LARGE), range(30)))
    statuses = Counter(answer.status for answer in answers)
    assert set(statuses) == {200, 429}
    assert statuses[200] >= QUEUE + REPLICAS
    refused = [answer for answer in answers if answer.status == 429]
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
    assert service.post().status == 200


def test_a_promotion_and_a_rollback_under_load_are_live_and_fail_nothing(service: Service) -> None:
    load = Load(service)
    with load.run():
        load.wait_for("1")
        options = ["--mlflow", service.folder / "mlflow.yaml"]
        promoted = run_here("promote", [2, *options, "--without-gates", "test"], service.folder)
        assert promoted.status == 0, promoted.err
        load.wait_for("2")
        assert run_here("rollback", options, service.folder).status == 0
        load.wait_for("1")
    assert set(load.statuses()) == {200}


@pytest.mark.soak
def test_a_killed_replica_loses_at_most_the_photos_in_work(service: Service) -> None:
    load = Load(service)
    with load.run(clients=3):
        load.wait_for_answers(3)
        victim = replica_processes()[0]
        os.kill(victim.pid, signal.SIGKILL)
        wait_until(
            lambda: len({p.pid for p in replica_processes()} - {victim.pid}) == REPLICAS,
            "another replica has started",
        )
        wait_until_ready(service)
        load.wait_for_answers(3)
    statuses = load.statuses()
    # A replica has two photos at a time.
    assert sum(count for status, count in statuses.items() if status != 200) <= 2
    assert set(statuses) <= {200, 503}
    assert victim.pid not in [process.pid for process in replica_processes()]


def test_while_the_registry_is_away_the_loaded_champion_serves(service: Service) -> None:
    service.mlflow.kill()
    wait_for_registry(service, reachable=False)
    assert service.post().headers["degrain-model"] == "degrain-denoiser v1"
    service.mlflow.start()
    service.mlflow.wait()
    wait_for_registry(service, reachable=True)
    service.move("2")
    load = Load(service)
    with load.run():
        load.wait_for("2")
    service.move("1")


def wait_for_registry(service: Service, *, reachable: bool, seconds: float = 60) -> None:
    """Wait until `/ready`, which stays 200, says so."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        answer = service.request("GET", "/ready")
        assert answer.status == 200
        if ('"registry":"reachable"' in answer.body.decode()) == reachable:
            return
        time.sleep(0.2)
    raise AssertionError(answer.body)


def memory(service: Service) -> float:
    """Megabytes of Ray Serve's processes."""
    names = ("ray::ServeRepli", "ray::ProxyActor")
    processes = psutil.Process().children(recursive=True)
    return sum(p.memory_info().rss for p in processes if p.name().startswith(names)) / 1e6


def test_an_endless_stream_is_refused_and_memory_stays_bounded(service: Service) -> None:
    before = memory(service)
    head = b"POST /v1/denoise HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/png\r\n"
    chunk = b"10000\r\n" + bytes(65536) + b"\r\n"
    with service.connect() as connection:
        connection.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n")
        sent = 0
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for _ in range(16_000):
                connection.sendall(chunk)
                sent += len(chunk)
    assert sent < 1_000_000_000
    with service.connect() as connection:
        connection.sendall(head + b"Content-Length: 10000000000\r\n\r\n")
        assert b" 413 " in connection.recv(4096)
    assert memory(service) - before < 300
    assert service.post().status == 200


def test_slow_clients_are_cut_off_and_leave_their_places(service: Service) -> None:
    head = b"POST /v1/denoise HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/png\r\n"
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(service.connect()) for _ in range(QUEUE + REPLICAS)]
        for connection in slow:
            connection.sendall(head + b"Content-Length: 100000\r\n\r\nfirst bytes")
        wait_until(lambda: service.post().status == 429, "the slow clients have all places")
        for connection in slow:
            assert b" 408 " in connection.recv(4096)
    assert service.post().status == 200


def test_many_idle_connections_do_not_stop_others(service: Service) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(300):
            connection = stack.enter_context(service.connect())
            connection.sendall(b"POST /v1/denoise HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ")
        assert service.post().status == 200


def hostile_bodies() -> Iterator[tuple[str, bytes, dict[str, str], set[int]]]:
    """Name, body, headers, and the statuses that are right."""
    form = (
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="../../etc/passwd"\r\n\r\n'
    )
    multipart = {"Content_Type": "multipart/form-data; boundary=x"}
    yield "multipart", form + CONTENT + b"\r\n--x--", multipart, {415}
    yield "broken multipart", form[:30], multipart, {415}
    named = {"Content_Disposition": 'attachment; filename="../../../tmp/owned.png"'}
    yield "a path as name", CONTENT, named, {200}
    yield "a page behind a photo", CONTENT + b"<script>alert(1)</script>", {}, {200, 422}
    yield "a page as a photo", b"<html><script>alert(1)</script></html>", {}, {422}
    yield "an archive", b"PK\x03\x04" + bytes(400), {}, {422}
    yield "PostScript", b"%!PS-Adobe-3.0 EPSF-3.0\n/x {} def", {}, {422}
    yield "another type", CONTENT, {"Content_Type": "text/html"}, {415}
    yield "a bomb", _bomb(), {}, {413}
    yield "noise", bytes(range(256)) * 40, {}, {422}


def _bomb() -> bytes:
    """A PNG of a few kilobytes that claims and has 400 megapixels."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    header = struct.pack(">IIBBBBB", 20000, 20000, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes(20000 * 2501), 9)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


def test_hostile_uploads_are_refused_and_nothing_is_written(
    service: Service, tmp_path: Path
) -> None:
    before = memory(service)
    for name, body, headers, right in hostile_bodies():
        answer = service.post(body, **headers)
        assert answer.status in right, (name, answer.status, answer.body[:200])
        assert "owned" not in answer.headers.get("content-disposition", "")
        assert b"<script>" not in answer.body
        assert b"Traceback" not in answer.body
    assert not Path("/tmp/owned.png").exists()
    assert memory(service) - before < 300
    assert service.post().status == 200


def test_broken_requests_do_not_stop_the_service(service: Service) -> None:
    head = b"POST /v1/denoise HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/png\r\n"
    broken = [
        b"\x16\x03\x01\x02\x00",
        b"GET / HTTP/9.9\r\n\r\n",
        head + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        head + b"Content-Length: -5\r\n\r\n",
        head + b"Content-Length: 100\r\n\r\nends here",
        b"A" * 100_000,
    ]
    for request in itertools.chain(broken, broken):
        with service.connect() as connection, contextlib.suppress(ConnectionError):
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
            connection.recv(4096)
    assert service.post().status == 200


def test_a_job_runs_on_the_replicas(service: Service) -> None:
    accepted = service.post(path="/v1/jobs")
    assert accepted.status == 202, accepted.body
    path = accepted.headers["location"]
    deadline = time.monotonic() + 600
    while b'"state":"done"' not in service.request("GET", path).body:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert decode(service.request("GET", f"{path}/result").body).shape == PHOTO.shape
