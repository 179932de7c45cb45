"""An MLflow server of this machine, on SQLite or on PostgreSQL, for the length of a block."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

START_SECONDS = 180


def free_port() -> int:
    """A free TCP port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def postgresql_programs() -> Path | None:
    """The folder of PostgreSQL's programs, of the newest version; None if it is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return found[-1].parent if found else None


@contextlib.contextmanager
def postgresql(programs: Path) -> Iterator[str]:
    """Run a PostgreSQL server with an empty database; yields its URI."""
    port = free_port()
    # PostgreSQL refuses to run as root.
    user = "nobody" if os.geteuid() == 0 else None
    with tempfile.TemporaryDirectory(prefix="postgresql") as folder:
        if user is not None:
            shutil.chown(folder, user)

        def run(program: str, *options: str) -> None:
            subprocess.run(
                [str(programs / program), *options],
                check=True,
                cwd=folder,
                user=user,
                stdout=subprocess.DEVNULL,
            )

        data = f"{folder}/data"
        run("initdb", "--pgdata", data, "--username=mlflow", "--auth=trust", "--encoding=UTF8")
        control = ("--pgdata", data, "--wait")
        options = f"-h 127.0.0.1 -p {port} -k {folder}"
        run("pg_ctl", *control, "--log", f"{folder}/log", "--options", options, "start")
        try:
            yield f"postgresql+psycopg2://mlflow@127.0.0.1:{port}/postgres"
        finally:
            run("pg_ctl", *control, "--mode=fast", "stop")


@contextlib.contextmanager
def mlflow_server(folder: Path, store: str, *, workers: int = 1) -> Iterator[str]:
    """Run `mlflow server` on the database `store`, with its log in the folder; yields its URL."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--workers", str(workers), "--backend-store-uri", store]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    environment = {
        **os.environ,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    with (folder / "mlflow.log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, cwd=folder, env=environment, start_new_session=True
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while True:
            assert process.poll() is None, (folder / "mlflow.log").read_text()[-2000:]
            assert time.monotonic() < deadline, "the MLflow server does not answer"
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{url}/health", timeout=2).close()
                break
            time.sleep(0.3)
        yield url
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 15)
        process.wait(timeout=60)
