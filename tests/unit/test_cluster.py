"""Starting Ray on a busy machine."""

import os

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
