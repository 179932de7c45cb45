"""Temporary folders of processes that may be killed."""

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from degrain.serving.private_folder import PrivateFolder

MAKE = """
import os, signal
from degrain.serving.private_folder import PrivateFolder
folder = PrivateFolder("degrain-test-")
(folder.path / "photo").write_bytes(b"private")
print(folder.path, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)


def test_a_folder_is_private_and_deleted_when_it_is_closed(tmp_path: Path) -> None:
    folder = PrivateFolder("degrain-test-")
    assert folder.path.parent.stat().st_mode & 0o077 == 0
    (folder.path / "photo").write_bytes(b"private")
    folder.close()
    assert list(tmp_path.iterdir()) == []


def test_the_folder_of_a_killed_process_is_deleted_by_the_next_and_no_other(tmp_path: Path) -> None:
    in_use = PrivateFolder("degrain-test-")
    (tmp_path / "degrain-test-of-another-kind").mkdir()
    killed = subprocess.run(
        [sys.executable, "-c", MAKE], stdout=subprocess.PIPE, text=True, check=False
    )
    left = Path(killed.stdout.strip())
    assert (left / "photo").exists()
    with_in_use = PrivateFolder("degrain-test-")
    assert not left.parent.exists()
    assert in_use.path.exists()
    assert (tmp_path / "degrain-test-of-another-kind").exists()
    for folder in (in_use, with_in_use):
        folder.close()
