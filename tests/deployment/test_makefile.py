"""The Makefile: what is interrupted ends, and what runs is not forgotten."""

import os
import signal
import subprocess
import time
from pathlib import Path

import psutil
from deployment.manifests import ROOT


def environment_of(folder: Path, script: str) -> Path:
    """A virtual environment whose Python is a script."""
    (folder / "bin").mkdir(parents=True)
    python = folder / "bin" / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    for mark in (".installed", ".installed-dev", ".installed-stack"):
        (folder / mark).touch()
    return folder


def test_an_interrupt_ends_all_groups_of_tests(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    venv = environment_of(tmp_path / "venv", f"echo $$ >> {pids}; exec sleep 60")
    making = subprocess.Popen(
        ["make", "--silent", "test", f"VENV={venv}"], cwd=ROOT, start_new_session=True
    )
    while not pids.exists() or len(pids.read_text().split()) < 3:
        assert making.poll() is None
        time.sleep(0.05)
    groups = [psutil.Process(int(pid)) for pid in pids.read_text().split()]
    os.killpg(making.pid, signal.SIGINT)
    assert making.wait(20) != 0
    assert psutil.wait_procs(groups, timeout=20)[1] == []


def test_servers_are_not_forgotten_with_the_environment(tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_bytes((ROOT / "Makefile").read_bytes())
    command = ["make", "--silent", "down"]
    nothing = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (nothing.returncode, nothing.stderr) == (0, "")
    (tmp_path / "runs" / "stack").mkdir(parents=True)
    (tmp_path / "runs" / "stack" / "servers.json").write_text("[]")
    left = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert left.returncode == 2
    assert "run 'make install', then 'make down'" in left.stderr
