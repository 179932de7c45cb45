"""A one-machine cluster: a Ray head with its dashboard, and an MLflow server, on 127.0.0.1.

`up` starts both and records their processes; `down` ends only these (`ray stop` would end every
cluster on the machine). Ray's token authentication is enabled, so that other users of the machine
cannot submit jobs.
"""

import contextlib
import functools
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "runs" / "cluster"
STATE_FILE = "cluster.json"
RAY_STARTED = b"Ray runtime started"
START_SECONDS = 180
STOP_SECONDS = 5


@dataclass(frozen=True)
class Server:
    """A process that `up` started, identified by process id and start time."""

    name: str
    pid: int
    created: float
    url: str
    scratch: str | None = None
    """A temporary folder to remove when the process ends."""

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


class ClusterError(RuntimeError):
    """The cluster cannot be started; one line with the reason and a remedy."""


def free_port() -> int:
    """Return a free TCP port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def up(
    folder: Path, *, dashboard_port: int, mlflow_port: int, store: Path, cpus: int | None = None
) -> list[Server]:
    """Start both servers and wait until they answer.

    Raises ClusterError, after ending both, if one does not.
    """
    if any(server.process() for server in read_state(folder)):
        raise ClusterError("a cluster is already running; end it with 'make down' first")
    for port, option in ((dashboard_port, "--dashboard-port"), (mlflow_port, "--mlflow-port")):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                raise ClusterError(
                    f"port {port} is in use; end its process, or choose another with {option}"
                )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ClusterError(
            f"cannot write to '{folder}': {error.strerror}; name a folder with --folder"
        ) from None
    servers: list[Server] = []
    try:
        mlflow = start_mlflow(folder, mlflow_port, store)
        servers.append(mlflow)
        servers.append(start_ray(folder, dashboard_port, mlflow.url, cpus))
        write_state(folder, servers)
        for server, path in zip(servers, ("/health", "/api/version"), strict=True):
            wait_for(server, functools.partial(answers, server.url + path), folder)
        # The job server answers before the node that runs the jobs has started.
        wait_for(servers[1], lambda: RAY_STARTED in (folder / "ray.log").read_bytes(), folder)
    except BaseException:
        stop(servers)
        write_state(folder, [])
        raise
    return servers


def start_mlflow(folder: Path, port: int, store: Path) -> Server:
    """Start the tracking server on the database and artifacts of the embedded store."""
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--workers",
        "1",
    ]
    command += ["--backend-store-uri", f"sqlite:///{store / 'mlflow.db'}"]
    command += ["--artifacts-destination", str(store / "mlartifacts")]
    # The job execution of MLflow (for LLM evaluation) is not needed and slows the start.
    environment = {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        **os.environ,
    }
    return launch("mlflow", command, folder, f"http://127.0.0.1:{port}", environment)


def start_ray(folder: Path, dashboard_port: int, tracking_uri: str, cpus: int | None) -> Server:
    """Start the Ray head; jobs inherit its environment, MLflow server and Python."""
    ray = str(Path(sys.executable).parent / "ray")
    environment = {
        **os.environ,
        "RAY_AUTH_MODE": "token",
        "MLFLOW_TRACKING_URI": tracking_uri,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
    }
    environment.pop("RAY_ADDRESS", None)
    if not environment.get("RAY_AUTH_TOKEN"):
        subprocess.run(
            [ray, "get-auth-token", "--generate"], env=environment, check=True, capture_output=True
        )
    command = [
        ray,
        "start",
        "--head",
        "--block",
        "--disable-usage-stats",
        "--node-ip-address=127.0.0.1",
    ]
    command += [f"--port={free_port()}", f"--ray-client-server-port={free_port()}"]
    command += ["--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard_port}"]
    command += [
        f"--dashboard-agent-listen-port={free_port()}",
        "--min-worker-port=0",
        "--max-worker-port=0",
    ]
    # Ray creates sockets in this folder, whose paths are limited to 107 characters.
    scratch = tempfile.mkdtemp(prefix="degrain-ray-")
    command += [f"--temp-dir={scratch}"]
    if cpus is not None:
        command.append(f"--num-cpus={cpus}")
    return launch(
        "ray", command, folder, f"http://127.0.0.1:{dashboard_port}", environment, scratch
    )


def launch(
    name: str,
    command: list[str],
    folder: Path,
    url: str,
    environment: dict[str, str],
    scratch: str | None = None,
) -> Server:
    """Start a detached process that writes its output to a log file."""
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd=ROOT,
            env=environment,
        )
    return Server(name, process.pid, psutil.Process(process.pid).create_time(), url, scratch)


def answers(url: str) -> bool:
    """Whether a server answers at `url`; 401 and 403 count as answers."""
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except urllib.error.HTTPError as refusal:
        return refusal.code in (401, 403)
    except OSError:
        return False


def wait_for(server: Server, ready: Callable[[], bool], folder: Path) -> None:
    """Wait until the server is ready. Raises ClusterError if it ends or takes too long."""
    deadline = time.monotonic() + START_SECONDS
    while server.process() is not None and time.monotonic() < deadline:
        if ready():
            return
        time.sleep(0.5)
    raise ClusterError(
        f"the {server.name} server did not start; see its log '{folder / (server.name + '.log')}'"
    )


def stop(servers: list[Server]) -> None:
    """End the servers' processes and their children: by SIGTERM, then by SIGKILL."""
    processes: list[psutil.Process] = []
    for server in servers:
        process = server.process()
        if process is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                processes += [process, *process.children(recursive=True)]
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    _, alive = psutil.wait_procs(processes, timeout=STOP_SECONDS)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=STOP_SECONDS)
    for server in servers:
        if server.scratch is not None:
            shutil.rmtree(server.scratch, ignore_errors=True)


def down(folder: Path) -> tuple[list[Server], list[Server]]:
    """End the servers that `up` started, and remove their temporary folders.

    Returns the servers that were running and those that had already ended.
    """
    servers = read_state(folder)
    running = [server for server in servers if server.process()]
    stop(servers)
    write_state(folder, [])
    return running, [server for server in servers if server not in running]


def read_state(folder: Path) -> list[Server]:
    """Read the servers that the last `up` started."""
    file = folder / STATE_FILE
    return [Server(**entry) for entry in json.loads(file.read_text())] if file.exists() else []


def write_state(folder: Path, servers: list[Server]) -> None:
    """Write the state file, or remove it if there are no servers."""
    file = folder / STATE_FILE
    if servers:
        file.write_text(json.dumps([asdict(s) for s in servers], indent=1))
    else:
        file.unlink(missing_ok=True)
