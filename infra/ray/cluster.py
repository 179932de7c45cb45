"""A one-machine cluster: a Ray head with its dashboard, and an MLflow server, on 127.0.0.1.

`up` starts both and remembers their processes; `down` ends these and nothing else (`ray stop` would end every cluster of the
machine). Ray's token authentication stays on, so that nobody else on the machine can submit jobs.
"""

import argparse
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
    """A process that `up` started; the time of its start tells it from another that has its number later."""

    name: str
    pid: int
    created: float
    url: str
    scratch: str | None = None
    """A folder that goes with the process."""

    def process(self) -> psutil.Process | None:
        """The process, if it still runs."""
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(self.pid)
            if abs(process.create_time() - self.created) < 1 and process.status() != psutil.STATUS_ZOMBIE:
                return process
        return None


class ClusterError(RuntimeError):
    """The cluster cannot be started or ended; one line that says why and what to do."""


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def up(folder: Path, *, dashboard_port: int, mlflow_port: int, store: Path, cpus: int | None = None) -> list[Server]:
    """Start both servers and wait until they answer. Raises ClusterError, leaving nothing behind, if they do not."""
    if any(server.process() for server in read_state(folder)):
        raise ClusterError("a cluster is up already; end it with 'make down' first")
    for port, option in ((dashboard_port, "--dashboard-port"), (mlflow_port, "--mlflow-port")):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                raise ClusterError(f"port {port} is taken; end what listens there, or name another with {option}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ClusterError(f"cannot write to '{folder}': {error.strerror}; name a folder with --folder") from None
    servers: list[Server] = []
    try:
        mlflow = start_mlflow(folder, mlflow_port, store)
        servers.append(mlflow)
        servers.append(start_ray(folder, dashboard_port, mlflow.url, cpus))
        write_state(folder, servers)
        for server, path in zip(servers, ("/health", "/api/version"), strict=True):
            wait_for(server, functools.partial(answers, server.url + path), folder)
        # The job server answers before the node is there that would run the jobs.
        wait_for(servers[1], lambda: RAY_STARTED in (folder / "ray.log").read_bytes(), folder)
    except BaseException:
        stop(servers)
        write_state(folder, [])
        raise
    return servers


def start_mlflow(folder: Path, port: int, store: Path) -> Server:
    """The tracking server, over the same database and artifacts that runs without a server use."""
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{store / 'mlflow.db'}"]
    command += ["--artifacts-destination", str(store / "mlartifacts")]
    # Its job queue is for judges of language models; without it the server starts faster.
    environment = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", **os.environ}
    return launch("mlflow", command, folder, f"http://127.0.0.1:{port}", environment)


def start_ray(folder: Path, dashboard_port: int, tracking_uri: str, cpus: int | None) -> Server:
    """The Ray head. Jobs inherit its environment, and with it the MLflow server and this Python."""
    ray = str(Path(sys.executable).parent / "ray")
    environment = {
        **os.environ,
        "RAY_AUTH_MODE": "token",
        "MLFLOW_TRACKING_URI": tracking_uri,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
    }
    environment.pop("RAY_ADDRESS", None)
    if not environment.get("RAY_AUTH_TOKEN"):
        subprocess.run([ray, "get-auth-token", "--generate"], env=environment, check=True, capture_output=True)
    command = [ray, "start", "--head", "--block", "--disable-usage-stats", "--node-ip-address=127.0.0.1"]
    command += [f"--port={free_port()}", f"--ray-client-server-port={free_port()}"]
    command += ["--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard_port}"]
    command += [f"--dashboard-agent-listen-port={free_port()}", "--min-worker-port=0", "--max-worker-port=0"]
    # A folder of its own, and a short one: sockets lie in it, whose paths may have 107 characters.
    scratch = tempfile.mkdtemp(prefix="degrain-ray-")
    command += [f"--temp-dir={scratch}"]
    if cpus is not None:
        command.append(f"--num-cpus={cpus}")
    return launch("ray", command, folder, f"http://127.0.0.1:{dashboard_port}", environment, scratch)


def launch(
    name: str, command: list[str], folder: Path, url: str, environment: dict[str, str], scratch: str | None = None
) -> Server:
    """Start a process that outlives this one, its output in a log file."""
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
    """Whether a server answers there, be it with a refusal."""
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
    raise ClusterError(f"the {server.name} server did not start; its log is '{folder / (server.name + '.log')}'")


def stop(servers: list[Server]) -> None:
    """End the servers' processes and their children: politely, then by force."""
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
    """End what `up` started, and remove what a server left that ended by itself; gives those ended now and before."""
    servers = read_state(folder)
    running = [server for server in servers if server.process()]
    stop(servers)
    write_state(folder, [])
    return running, [server for server in servers if server not in running]


def read_state(folder: Path) -> list[Server]:
    """The servers that the last `up` started."""
    file = folder / STATE_FILE
    return [Server(**entry) for entry in json.loads(file.read_text())] if file.exists() else []


def write_state(folder: Path, servers: list[Server]) -> None:
    """Remember the servers; forget all if there are none."""
    file = folder / STATE_FILE
    if servers:
        file.write_text(json.dumps([asdict(s) for s in servers], indent=1))
    else:
        file.unlink(missing_ok=True)


def port(text: str) -> int:
    """An option that is a TCP port."""
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"'{text}' is not a port; name a number from 1 to 65535")
    return int(text)


def main() -> int:
    """Start or end the cluster and say what to type next."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    made.add_argument("action", choices=["up", "down"])
    made.add_argument("--folder", type=Path, default=FOLDER, help="logs, and what was started")
    made.add_argument("--dashboard-port", type=port, default=8265, help="port of Ray's dashboard and job server")
    made.add_argument("--mlflow-port", type=port, default=5000, help="port of the MLflow server")
    options = made.parse_args()
    if options.action == "down":
        ended, gone = down(options.folder)
        for server in gone:
            print(f"{server.name} had ended by itself; its log is '{options.folder / (server.name + '.log')}'")
        print(f"ended {', '.join(s.name for s in ended)}" if ended else "nothing to end")
        return 0
    try:
        servers = up(options.folder, dashboard_port=options.dashboard_port, mlflow_port=options.mlflow_port, store=ROOT)
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    address = "" if options.dashboard_port == 8265 else f" --address {servers[1].url}"
    print(f"MLflow:     {servers[0].url}")
    print(f"Ray:        {servers[1].url}  (the browser asks for the token: ray get-auth-token)")
    print("submit:     . .venv/bin/activate; export RAY_AUTH_MODE=token")
    print(f"            ray job submit{address} -- python pipelines/tune.py")
    elsewhere = f"{sys.executable} {Path(__file__)} down --folder {options.folder}"
    print(f"end both:   {'make down' if options.folder == FOLDER else elsewhere}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
