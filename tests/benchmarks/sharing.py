"""Small photos at `degrain serve` beside large ones or a job, and after clients that left: latency
against that of the quiet service.
"""

import http.client
import json
import socket
import time
from dataclasses import dataclass

from service_load import HEAD, Load
from serving import as_jpeg, noisy_photo, service
from table import Settings, Table, progress

SIDE = 256
ABANDONED = 20
LARGE_CLIENTS = 2
"""Clients with large photos; as many as a process takes at one time."""


def run(settings: Settings) -> list[Table]:
    """All tables."""
    count, job_side, left_side = (10, 2100, 800) if settings.quick else (100, 4900, 3500)
    small = as_jpeg(noisy_photo(SIDE, 0))
    large = as_jpeg(noisy_photo(job_side, 1))
    left = as_jpeg(noisy_photo(left_side, 2))
    with service(replicas=1) as (port, _):
        Load(port, [small]).send(small)
        loads = [Measured.of("quiet", port, small, count)]
        with Load(port, [large]).run(LARGE_CLIENTS):
            time.sleep(3)
            name = f"beside {LARGE_CLIENTS} large photos"
            loads.append(Measured.of(name, port, small, count))
        job = Job(port, large)
        loads.append(Measured.of("beside a job", port, small, count))
        progress(f"the job is {job.state()} after {job.seconds:.0f} s")
        job.delete()
        loads.append(Measured.of("after the job was deleted", port, small, count))
        for _ in range(ABANDONED):
            leave(port, left)
        loads.append(Measured.of(f"after {ABANDONED} clients that left", port, small, count))
        loads.append(Measured.of("quiet again", port, small, count))
    rows = [load.row(loads[0]) for load in loads]
    columns = ["load", "photos", "first s", "p50 s", "p95 s", "p50 ratio", "p95 ratio"]
    megapixels = [side**2 / 1e6 for side in (job_side, left_side)]
    caption = (
        f"One replica, one client with photos of {SIDE}x{SIDE}. Large photos and the job have "
        f"{megapixels[0]:.0f} megapixels; clients that left sent {megapixels[1]:.0f} and closed "
        "the connection after 0.5 s."
    )
    return [Table(columns, rows, caption)]


@dataclass(frozen=True)
class Measured:
    """Latencies of one load in seconds."""

    name: str
    answers: int
    first: float
    p50: float
    p95: float

    @classmethod
    def of(cls, name: str, port: int, photo: bytes, count: int) -> "Measured":
        """Send photos one after another."""
        load = Load(port, [photo])
        load.answers = [load.send(photo) for _ in range(count)]
        p50, p95, _ = load.percentiles()
        found = cls(name, load.statuses[200], load.answers[0].seconds, p50, p95)
        progress(f"{found}")
        return found

    def row(self, quiet: "Measured") -> list[str]:
        """Of the table; with ratios to the quiet service."""
        seconds = [f"{value:.2f}" for value in (self.first, self.p50, self.p95)]
        ratios = [f"{self.p50 / quiet.p50:.2f}", f"{self.p95 / quiet.p95:.2f}"]
        return [self.name, str(self.answers), *seconds, *ratios]


class Job:
    """A job of the service."""

    def __init__(self, port: int, photo: bytes) -> None:
        self._port, self._started = port, time.perf_counter()
        headers = {"Content-Type": "image/jpeg"}
        self._path = f"/v1/jobs/{json.loads(self._ask('POST', '/v1/jobs', photo, headers))['id']}"
        while self.state() == "waiting":
            time.sleep(0.05)

    @property
    def seconds(self) -> float:
        """Since its start."""
        return time.perf_counter() - self._started

    def state(self) -> str:
        """Its state."""
        return str(json.loads(self._ask("GET", self._path))["state"])

    def delete(self) -> None:
        """End it."""
        self._ask("DELETE", self._path)

    def _ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=600)
        try:
            connection.request(method, path, body, headers or {})
            return connection.getresponse().read()
        finally:
            connection.close()


def leave(port: int, photo: bytes) -> None:
    """Send a photo, and close the connection before the answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=120) as connection:
        connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(photo) + photo)
        time.sleep(0.5)
