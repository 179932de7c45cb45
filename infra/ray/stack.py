"""The local stack: a Ray head, an MLflow server and an S3 server, with Prometheus and Grafana.

`up` starts what does not run yet and records the processes; `down` ends only these (`ray stop`
would end every cluster on the machine). Ray's token authentication is enabled, so that other users
of the machine cannot submit jobs.
"""

import functools
import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from credentials import Credentials
from processes import HOST, ROOT, Server, StackError, choose_port, is_used, stop, wait_for
from servers import (
    RAY_LOGS,
    RAY_STARTED,
    Programs,
    make_bucket,
    s3_environment,
    scratch_folder,
    start_grafana,
    start_mlflow,
    start_prometheus,
    start_ray,
    start_s3,
)

FOLDER = ROOT / "runs" / "stack"
STATE_FILE = "servers.json"
USUAL_PORTS = {"mlflow": 5000, "s3": 8333, "ray": 8265, "prometheus": 9090, "grafana": 3000}
"""By server, in the order in which they are started and shown."""
State = Literal["healthy", "ended", "does not answer"]


@dataclass(frozen=True)
class Stack:
    """The servers that run, and which of them the last `up` started."""

    servers: list[Server]
    started: list[str]


def up(
    folder: Path,
    *,
    store: Path,
    programs: Programs,
    ports: Mapping[str, int | None] | None = None,
    cpus: int | None = None,
) -> Stack:
    """Start the servers that do not run and wait until they answer.

    `ports` are those that the user named. A server that has ended is started again on its port.
    Raises StackError, after ending what was started, if one does not answer.
    """
    known = {server.name: server for server in read_state(folder)}
    running = {name: server for name, server in known.items() if server.process()}
    missing = [name for name in _wanted(programs) if name not in running]
    if not missing:
        return Stack(_ordered(running.values()), [])
    # A server that was killed may have left processes.
    stop(server for name, server in known.items() if name not in running)
    urls = {name: server.url for name, server in running.items()}
    for name in missing:
        urls[name] = f"http://{HOST}:{_port(name, known.get(name), ports or {})}"
    credentials = Credentials.load()
    _make(folder)
    starts = _starts(folder, store, programs, credentials, urls, known.get("ray"), cpus)
    started: list[Server] = []
    try:
        for name in missing:
            started.append(starts[name]())
            write_state(folder, [*running.values(), *started])
        for server in started:
            wait_for(server, functools.partial(_is_ready, server, credentials))
    except BaseException:
        stop(started)
        write_state(folder, running.values())
        raise
    return Stack(_ordered([*running.values(), *started]), missing)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StackError(
            f"cannot write to '{folder}': {error.strerror}; name a folder with --folder"
        ) from None


def _wanted(programs: Programs) -> list[str]:
    optional = {
        "s3": programs.weed,
        "prometheus": programs.prometheus,
        "grafana": programs.grafana,
    }
    return [name for name in USUAL_PORTS if name not in optional or optional[name] is not None]


def _port(name: str, before: Server | None, ports: Mapping[str, int | None]) -> int:
    option = "--dashboard-port" if name == "ray" else f"--{name}-port"
    if before is None:
        return choose_port(ports.get(name), USUAL_PORTS[name], option)
    if is_used(before.port):
        raise StackError(
            f"port {before.port} of the {name} server, which had ended, is in use; run 'make down' "
            "first"
        )
    return before.port


def _starts(
    folder: Path,
    store: Path,
    programs: Programs,
    credentials: Credentials,
    urls: Mapping[str, str],
    ray_before: Server | None,
    cpus: int | None,
) -> dict[str, Callable[[], Server]]:
    """How each server is started."""
    port = {name: int(url.rpartition(":")[2]) for name, url in urls.items()}
    variables = {"MLFLOW_TRACKING_URI": urls["mlflow"]}
    if "s3" in urls:
        variables |= s3_environment(urls["s3"], credentials)
    for name in ("prometheus", "grafana"):
        if name in urls:
            variables[f"RAY_{name.upper()}_HOST"] = urls[name]
    scratch = _ray_scratch(ray_before)
    weed, prometheus, grafana = programs.weed, programs.prometheus, programs.grafana
    return {
        "mlflow": lambda: start_mlflow(folder, port["mlflow"], store),
        "s3": lambda: start_s3(str(weed), folder, port["s3"], credentials),
        "ray": lambda: start_ray(folder, port["ray"], scratch, variables, cpus),
        "prometheus": lambda: start_prometheus(
            str(prometheus), folder, port["prometheus"], scratch
        ),
        "grafana": lambda: start_grafana(
            str(grafana), folder, port["grafana"], scratch, urls.get("prometheus"), credentials
        ),
    }


def _ray_scratch(before: Server | None) -> Path:
    """The temporary folder of Ray; the former one, because a running Prometheus reads from it."""
    if before is None or before.scratch is None:
        return scratch_folder("ray")
    scratch = Path(before.scratch)
    scratch.mkdir(mode=0o700, exist_ok=True)
    return scratch


def _is_ready(server: Server, credentials: Credentials) -> bool:
    if not server.answers():
        return False
    if server.name == "s3":
        return make_bucket(server.url, credentials)
    # The job server answers before the node that runs the jobs has started.
    return server.name != "ray" or RAY_STARTED in Path(server.log).read_bytes()


def status(folder: Path) -> list[tuple[Server, State]]:
    """The state of each server that `up` started."""

    def state(server: Server) -> State:
        if server.process() is None:
            return "ended"
        return "healthy" if server.answers() else "does not answer"

    return [(server, state(server)) for server in read_state(folder)]


def running_jobs(url: str) -> list[str]:
    """The jobs that run on a Ray, a line each. `RAY_AUTH_MODE` has to be set as for submitting."""
    # Its import takes a second, and nothing else here needs it.
    from ray.job_submission import JobStatus, JobSubmissionClient

    lines: list[str] = []
    for job in JobSubmissionClient(url).list_jobs():
        if job.status in (JobStatus.RUNNING, JobStatus.PENDING):
            minutes = (time.time() - (job.start_time or 0) / 1000) / 60
            lines.append(f"{job.submission_id or job.job_id}: {job.entrypoint}, {minutes:.0f} min")
    return lines


def environment(folder: Path) -> dict[str, str]:
    """The variables by which a shell uses the stack; empty if it does not run."""
    urls = {server.name: server.url for server in read_state(folder) if server.process()}
    found: dict[str, str] = {}
    if "ray" in urls:
        found |= {"RAY_AUTH_MODE": "token", "RAY_API_SERVER_ADDRESS": urls["ray"]}
    if "mlflow" in urls:
        found["MLFLOW_TRACKING_URI"] = urls["mlflow"]
    if "s3" in urls:
        found |= s3_environment(urls["s3"], Credentials.load())
    return found


def down(folder: Path) -> tuple[list[Server], list[Server]]:
    """End the servers that `up` started, and remove their temporary folders.

    Returns the servers that were running and those that had already ended.
    """
    servers = read_state(folder)
    running = [server for server in servers if server.process()]
    stop(servers)
    write_state(folder, [])
    (folder / RAY_LOGS).unlink(missing_ok=True)
    return running, [server for server in servers if server not in running]


def read_state(folder: Path) -> list[Server]:
    """Read the servers that `up` started."""
    file = folder / STATE_FILE
    return [Server(**entry) for entry in json.loads(file.read_text())] if file.exists() else []


def write_state(folder: Path, servers: Iterable[Server]) -> None:
    """Write the state file, or remove it if there are no servers."""
    file = folder / STATE_FILE
    if ordered := _ordered(servers):
        file.write_text(json.dumps([asdict(server) for server in ordered], indent=1))
    else:
        file.unlink(missing_ok=True)


def _ordered(servers: Iterable[Server]) -> list[Server]:
    return sorted(servers, key=lambda server: list(USUAL_PORTS).index(server.name))
