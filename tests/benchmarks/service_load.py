"""Clients of a running service: closed loops of photos, and hostile ones."""

import contextlib
import http.client
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import numpy as np
import psutil
from client_threads import client_threads

HEAD = b"POST /v1/denoise HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/jpeg\r\n"


@dataclass(frozen=True)
class Answer:
    """One answer of the service."""

    started: float
    seconds: float
    status: int
    """HTTP status; 0 for a connection that ended without one."""
    model: str | None
    retry_after: str | None


@dataclass
class Load:
    """Clients that each send one photo after another."""

    port: int
    photos: Sequence[bytes]
    obedient: bool = True
    """Whether clients wait for the time of `Retry-After` before they send a refused photo again,
    and not for 0.2 s.
    """
    answers: list[Answer] = field(default_factory=list)

    def run(self, clients: int) -> AbstractContextManager[None]:
        """Send photos for the length of a block."""
        return client_threads(clients, self._send_next)

    def _send_next(self, number: int) -> None:
        answer = self.send(self.photos[number % len(self.photos)])
        self.answers.append(answer)
        if answer.status == 429:
            time.sleep(float(answer.retry_after or 0) if self.obedient else 0.2)

    def send(self, photo: bytes) -> Answer:
        """Send one photo on a connection of its own."""
        started = time.perf_counter()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        try:
            connection.request("POST", "/v1/denoise", photo, {"Content-Type": "image/jpeg"})
            answer = connection.getresponse()
            answer.read()
        except (ConnectionError, http.client.HTTPException):
            return Answer(started, time.perf_counter() - started, 0, None, None)
        finally:
            connection.close()
        seconds = time.perf_counter() - started
        found = answer.headers
        return Answer(
            started, seconds, answer.status, found.get("Degrain-Model"), found.get("Retry-After")
        )

    @property
    def statuses(self) -> Counter[int]:
        """How many answers had each status."""
        return Counter(answer.status for answer in self.answers)

    def percentiles(self) -> list[float]:
        """p50, p95 and p99 of the seconds of photos that were denoised."""
        seconds = [answer.seconds for answer in self.answers if answer.status == 200]
        return [float(np.percentile(seconds, p)) for p in (50, 95, 99)]

    def per_second(self, first: float, last: float) -> float:
        """Photos that were denoised between two moments, per second."""
        ends = [a.started + a.seconds for a in self.answers if a.status == 200]
        return sum(first <= end < last for end in ends) / (last - first)


def service_processes() -> list[psutil.Process]:
    """The HTTP proxy and the replicas of all deployments."""
    names = ("ray::ServeRepli", "ray::ProxyActor")
    return [p for p in psutil.Process().children(recursive=True) if p.name().startswith(names)]


def photo_replicas() -> list[psutil.Process]:
    """The replicas that denoise."""
    found = []
    for process in service_processes():
        # One that was killed is a zombie for a moment.
        with contextlib.suppress(psutil.NoSuchProcess):
            if "PhotoReplica" in process.cmdline()[0]:
                found.append(process)
    return found


def cpu_seconds() -> float:
    """CPU time so far of all processes below this one: the service, and Ray's own."""
    total = 0.0
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
    return total


class PeakMemory:
    """The largest memory of the service's processes together, in MB above that at the start."""

    def __init__(self) -> None:
        self._before = self._now()
        self._ended = threading.Event()
        self.megabytes = 0.0

    def __enter__(self) -> "PeakMemory":
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(0.05):
            self.megabytes = max(self.megabytes, self._now() - self._before)

    def _now(self) -> float:
        total = 0.0
        for process in service_processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                memory = process.memory_info()
                total += memory.rss - memory.shared
        return total / 1e6


def hostile(port: int) -> Iterator[tuple[str, Callable[[], str]]]:
    """Name and deed of each hostile client; the deed returns what happened."""
    yield "10 GB in chunks", lambda: _endless(port)
    yield "10 GB by Content-Length", lambda: _stated(port)
    yield "1000 connections that send half a header", lambda: _half_headers(port, 1000)


def _connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=120)


def _endless(port: int) -> str:
    chunk = b"100000\r\n" + bytes(2**20) + b"\r\n"
    sent = 0
    with _connect(port) as connection:
        connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            for _ in range(10_000):
                connection.sendall(chunk)
                sent += len(chunk)
    return f"cut off after {sent / 1e6:.0f} MB"


def _stated(port: int) -> str:
    with _connect(port) as connection:
        connection.sendall(HEAD + b"Content-Length: 10000000000\r\n\r\n")
        return f"status {connection.recv(4096).split()[1].decode()} before the body"


def _half_headers(port: int, count: int) -> str:
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            connection = stack.enter_context(_connect(port))
            connection.sendall(HEAD + b"X-Slow: ")
        other = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        started = time.perf_counter()
        other.request("GET", "/ready")
        status = other.getresponse().status
        other.close()
    return f"/ready: {status} in {time.perf_counter() - started:.2f} s"
