"""Starting Ray on a busy machine, and in places that Ray was not made for."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import ray

from degrain import cluster
from degrain.errors import JobFailedError


def starts(monkeypatch: pytest.MonkeyPatch, *errors: str) -> int:
    """How often Ray is started if its first starts fail with these errors."""
    count = 0
    left = list(errors)

    def init(**_: object) -> None:
        nonlocal count
        count += 1
        if left:
            raise RuntimeError(left.pop(0))

    for name in [n for n in os.environ if n.startswith(("RAY_", "TUNE_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(cluster, "interrupt_on_signals", lambda: None)
    monkeypatch.setattr(cluster, "silence_libraries", lambda: None)
    cluster.start_ray()
    return count


def test_a_start_that_timed_out_is_repeated_once(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = "The current node timed out during startup. This could happen because ..."
    assert starts(monkeypatch) == 1
    assert starts(monkeypatch, slow) == 2
    with pytest.raises(JobFailedError, match="Ray did not start on this machine: The current"):
        starts(monkeypatch, slow, slow)


def test_another_error_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(JobFailedError, match="no space left"):
        starts(monkeypatch, "no space left", "")


def options_of_ray(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """The options with which `start_ray` starts Ray."""
    found: dict[str, object] = {}
    monkeypatch.setattr(cluster, "_init", lambda _, options: found.update(options))
    starts(monkeypatch)
    return found


def test_sockets_are_elsewhere_if_the_temporary_folder_has_a_long_path(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TMPDIR", "/" + "s" * 38)
    assert "_temp_dir" not in options_of_ray(monkeypatch)
    long = "/scratch/slurm/ümlaut/job-12345678/tmp-of-the-job"
    monkeypatch.setenv("TMPDIR", long)
    options = options_of_ray(monkeypatch)
    assert (options["_temp_dir"], options["object_spilling_directory"]) == ("/tmp/ray", long)


def test_a_user_without_a_home_folder_gets_a_token_for_the_cluster(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    options_of_ray(monkeypatch)
    assert "RAY_AUTH_TOKEN" not in os.environ

    monkeypatch.setenv("HOME", "/nonexistent")
    options_of_ray(monkeypatch)
    assert len(os.environ["RAY_AUTH_TOKEN"]) >= 32


def test_a_folder_that_cannot_be_written_has_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(*_: object) -> None:
        raise PermissionError(13, "Permission denied", "/tmp/ray")

    monkeypatch.setattr(cluster, "_init", init)
    with pytest.raises(JobFailedError, match="'/tmp/ray'; set TMPDIR to a folder that can be"):
        starts(monkeypatch)


@pytest.mark.soak
def test_uv_run_does_not_change_the_environment_of_workers(tmp_path: Path) -> None:
    """Ray looks for an ancestor process with the command line `uv run`."""
    code = (
        "from degrain import cluster\n"
        "cluster._init = lambda *_: None\n"
        "cluster.start_ray()\n"
        "from ray._private.worker import _maybe_modify_runtime_env\n"
        "print(_maybe_modify_runtime_env({}, False))\n"
    )
    child = f"import subprocess; subprocess.run([{sys.executable!r}, '-c', {code!r}], check=True)"
    (tmp_path / "run").write_text(child)
    environment = {name: v for name, v in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        ["uv", "run"],
        executable=os.path.realpath(sys.executable),
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "{}\n"
