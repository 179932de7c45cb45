"""Versions of the code, the packages and the machine behind a run."""

import getpass
import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path

from degrain.tracking.config import without_passwords

_RAY_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Variable that `ray job submit` sets in the process of a job."""


def versions() -> dict[str, str]:
    """Versions by name: git commit, Python, main packages, operating system."""
    packages = ("degrain", "torch", "ray", "mlflow", "numpy", "pyarrow")
    return {
        "commit": git_commit() or "",
        "python": platform.python_version(),
        "machine": platform.platform(),
        **{name: importlib.metadata.version(name) for name in packages},
    }


def git_commit() -> str | None:
    """Git commit of the code, with `-dirty` for uncommitted changes; None outside a checkout."""
    folder = Path(__file__).parent
    try:
        described = subprocess.run(
            ["git", "-C", str(folder), "describe", "--always", "--abbrev=40", "--dirty"],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip() or None


def source_tags() -> dict[str, str]:
    """The tags of MLflow that name the command, its user and the git commit of the code."""
    words = [Path(sys.argv[0]).name, *sys.argv[1:]]
    tags = {
        # MLflow shows what follows the last slash, so the name has no arguments that are paths.
        "mlflow.source.name": " ".join(words[: 2 if words[0] == "degrain" else 1]),
        "mlflow.source.type": "JOB" if _RAY_JOB in os.environ else "LOCAL",
        "mlflow.user": _user(),
        "degrain.command": without_passwords(shlex.join(words)),
    }
    commit = git_commit()
    return tags if commit is None else {**tags, "mlflow.source.git.commit": commit}


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # A container may run with an id that has no name.
        return str(os.getuid())
