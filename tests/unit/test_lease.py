"""The lock on a local folder: exclusive, and released with its process."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from degrain.errors import JobFailedError
from degrain.storage.lease import exclusive
from degrain.storage.location import Storage

STORAGE = Storage()
PACKAGES = [str(Path(__file__).parents[2] / folder) for folder in ("platform", "models")]


HOLD = """
import sys
from degrain.storage.lease import exclusive
from degrain.storage.location import Storage
with exclusive(Storage().locate(sys.argv[1]), "retraining"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_lock_excludes_others_and_ends_with_its_process(tmp_path: Path) -> None:
    lock = STORAGE.locate(tmp_path / "deep" / "my job.lock")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(PACKAGES)}
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(lock)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            name = re.escape(str(lock))
            said = rf"another retraining is running \(process {holder.pid} on .+, lock '{name}'\)"
            with pytest.raises(JobFailedError, match=said), exclusive(lock, "retraining"):
                raise AssertionError("two hold the lock")
        finally:
            holder.send_signal(signal.SIGKILL)
            holder.wait()
    with exclusive(lock, "retraining"):
        assert f"process {os.getpid()} on" in Path(lock.path).read_text()


def test_lock_is_released_after_its_block_and_after_an_error(tmp_path: Path) -> None:
    lock = STORAGE.locate(tmp_path / "job.lock")
    with pytest.raises(KeyError), exclusive(lock, "retraining"):
        raise KeyError
    with (
        exclusive(lock, "retraining"),
        pytest.raises(JobFailedError),
        exclusive(lock, "retraining"),
    ):
        raise AssertionError("two hold the lock")
    with exclusive(lock, "retraining"):
        pass
