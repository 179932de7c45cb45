"""Versions of the code, the packages and the machine behind a run."""

import importlib.metadata
import platform
import subprocess
from pathlib import Path


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
