"""A PostgreSQL server with an empty database, for the length of a block."""

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from processes import free_port

SECONDS = 300
"""For each command."""


def programs() -> Path | None:
    """The folder of initdb and pg_ctl: on the PATH, else that of Debian's newest version."""
    if found := shutil.which("initdb"):
        return Path(found).parent
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return debian[-1].parent if debian else None


@contextlib.contextmanager
def postgresql(password: str | None = None) -> Iterator[int]:
    """Run a server with the user `mlflow` and the database `postgres`; yields its port."""
    folder_of_programs = programs()
    assert folder_of_programs is not None, "PostgreSQL is not installed"
    port = free_port()
    # PostgreSQL refuses to run as root, and pytest's folders are closed to other users.
    user = "nobody" if os.geteuid() == 0 else None
    with tempfile.TemporaryDirectory(prefix="postgresql") as folder:
        secret = Path(folder, "password")
        secret.write_text(password or "")
        if user is not None:
            shutil.chown(folder, user)
            shutil.chown(secret, user)

        def run(program: str, *options: str) -> None:
            subprocess.run(
                [str(folder_of_programs / program), "--pgdata", f"{folder}/data", *options],
                check=True,
                cwd=folder,
                user=user,
                stdout=subprocess.DEVNULL,
                timeout=SECONDS,
            )

        login = ["--auth=scram-sha-256", f"--pwfile={secret}"] if password else ["--auth=trust"]
        run("initdb", "--username=mlflow", *login, "--encoding=UTF8")
        options = f"-h 127.0.0.1 -p {port} -k {folder}"
        run("pg_ctl", "--wait", "--log", f"{folder}/log", "--options", options, "start")
        try:
            yield port
        finally:
            run("pg_ctl", "--wait", "--mode=immediate", "stop")


def uri(port: int) -> str:
    """The URI of the database, for a server without a password."""
    return f"postgresql+psycopg2://mlflow@127.0.0.1:{port}/postgres"
