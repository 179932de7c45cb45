"""Server processes on 127.0.0.1: start, wait until one answers, find again, end."""

import contextlib
import http.client
import os
import random
import secrets
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
HOST = "127.0.0.1"
MARKER = "DEGRAIN_SERVER"
"""Variable that a server and all processes below it have in their environment."""
START_SECONDS = 600
"""A busy machine may need minutes for a server; one that has ended is not waited for."""
STOP_SECONDS = 5
STOP_ROUNDS = 5
FREE_PORTS = range(20_000, 32_000)
"""Where free ports are chosen: neither among those that systems hand out themselves, which another
process may get before the server listens, nor among those of Ray's workers.
"""


class StackError(RuntimeError):
    """A server cannot be started; one line with the reason and a remedy."""


@dataclass(frozen=True)
class Server:
    """A process that was started, identified by process id and start time."""

    name: str
    pid: int
    created: float
    url: str
    log: str
    mark: str
    """The value of `MARKER` in the environment of the process and of all below it."""
    health: str = "/"
    """Path below `url` that answers while the server works."""
    scratch: str | None = None
    """A temporary folder to remove when the process ends."""
    sockets: Sequence[str] = ()
    """Files elsewhere that the process may leave."""

    def process(self) -> psutil.Process | None:
        """Return the process, or None if it has ended."""
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(self.pid)
            if (
                abs(process.create_time() - self.created) < 1
                and process.status() != psutil.STATUS_ZOMBIE
            ):
                return process
        return None

    def answers(self) -> bool:
        """Whether the server answers requests."""
        return answers(self.url + self.health)

    @property
    def port(self) -> int:
        """The TCP port of `url`."""
        return int(self.url.rpartition(":")[2])


def is_used(port: int) -> bool:
    """Whether a process listens on a TCP port of 127.0.0.1."""
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


def free_port() -> int:
    """Return a free TCP port of 127.0.0.1."""
    while True:
        port = random.choice(FREE_PORTS)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind((HOST, port))
            return port


def choose_port(named: int | None, usual: int, option: str) -> int:
    """Return `named`, else the usual port, else a free one.

    Raises StackError if `named` is in use.
    """
    if named is not None and is_used(named):
        raise StackError(f"port {named} is in use; leave out {option} to choose a free one")
    return free_port() if is_used(named or usual) else named or usual


def launch(
    name: str,
    command: Sequence[str],
    folder: Path,
    url: str,
    environment: Mapping[str, str],
    *,
    health: str = "/",
    scratch: Path | None = None,
    sockets: Sequence[str] = (),
) -> Server:
    """Start a detached process that writes its output to `NAME.log` in the folder."""
    file, mark = folder / f"{name}.log", secrets.token_hex(8)
    with file.open("wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd=ROOT,
            env={**environment, MARKER: mark},
        )
    created = psutil.Process(process.pid).create_time()
    temporary = None if scratch is None else str(scratch)
    return Server(
        name, process.pid, created, url, str(file), mark, health, temporary, list(sockets)
    )


def answers(url: str) -> bool:
    """Whether a server answers at `url`; 401 and 403 count as answers."""
    # Of this machine: a proxy that the user has set does not reach it.
    directly = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with directly.open(url, timeout=5):
            return True
    except urllib.error.HTTPError as refusal:
        return refusal.code in (401, 403)
    except (OSError, http.client.HTTPException):
        # The latter: what answers does not speak HTTP.
        return False


def wait_for(server: Server, ready: Callable[[], bool]) -> None:
    """Wait until the server is ready. Raises StackError if it ends or takes too long."""
    deadline = time.monotonic() + START_SECONDS
    while server.process() is not None and time.monotonic() < deadline:
        if ready():
            return
        time.sleep(0.25)
    raise StackError(f"the {server.name} server did not start; see its log '{server.log}'")


def stop(servers: Iterable[Server]) -> None:
    """End the servers' processes and all below them: by SIGTERM, then by SIGKILL.

    A process may start another while it ends, so that one round may not be enough.
    """
    servers = list(servers)
    end = psutil.Process.terminate
    for _ in range(STOP_ROUNDS):
        if not (processes := _processes(servers)):
            break
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                end(process)
        psutil.wait_procs(processes, timeout=STOP_SECONDS)
        end = psutil.Process.kill
    for server in servers:
        if server.scratch is not None:
            shutil.rmtree(server.scratch, ignore_errors=True)
        for file in server.sockets:
            Path(file).unlink(missing_ok=True)


def _processes(servers: Sequence[Server]) -> list[psutil.Process]:
    """The servers' processes and all below them.

    Those whose parent was killed are found by their environment.
    """
    known = [p for server in servers if (p := server.process()) is not None]
    found = {p.pid: p for p in [*known, *_marked({server.mark for server in servers})]}
    for process in list(found.values()):
        with contextlib.suppress(psutil.NoSuchProcess):
            found |= {
                p.pid: p
                for p in process.children(recursive=True)
                if p.status() != psutil.STATUS_ZOMBIE
            }
    found.pop(os.getpid(), None)
    return list(found.values())


def _marked(marks: set[str]) -> list[psutil.Process]:
    """The processes of this user that have one of these marks in their environment."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(MARKER) in marks:
                found.append(process)
    return found
