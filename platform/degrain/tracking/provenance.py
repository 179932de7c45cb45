"""Versions of the code, the packages and the machine behind a run."""

import getpass
import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from degrain.tracking.config import without_passwords

_RAY_JOB = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Variable that `ray job submit` sets in the process of a job."""
_SECRETS, _HIDDEN = ("notify",), "***"
"""Names of options."""


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
    words = _without_secrets([Path(sys.argv[0]).name, *sys.argv[1:]])
    tags = {
        # MLflow shows what follows the last slash, so the name has no arguments that are paths.
        "mlflow.source.name": " ".join(words[: 2 if words[0] == "degrain" else 1]),
        "mlflow.source.type": "JOB" if _RAY_JOB in os.environ else "LOCAL",
        "mlflow.user": _user(),
        "degrain.command": without_passwords(shlex.join(words)),
    }
    commit = git_commit()
    return tags if commit is None else {**tags, "mlflow.source.git.commit": commit}


def _without_secrets(words: Sequence[str]) -> list[str]:
    """A command line without the values of options that are secrets: whoever knows the URL of a
    webhook can post to it.
    """
    shown: list[str] = []
    for word in words:
        name, equals, _ = word.partition("=")
        if shown and _is_secret(shown[-1]):
            shown.append(_HIDDEN)
        else:
            shown.append(f"{name}={_HIDDEN}" if equals and _is_secret(name) else word)
    return shown


def _is_secret(word: str) -> bool:
    return word.startswith("-") and word.lstrip("-") in _SECRETS


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        # A container may run with an id that has no name.
        return str(os.getuid())
