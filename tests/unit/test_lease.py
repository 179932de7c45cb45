"""The lock on a local folder: exclusive, and released with its process."""

import os
import re
from pathlib import Path

import pytest
from lease_holder import lease_holder

from degrain.errors import JobFailedError
from degrain.storage.lease import exclusive
from degrain.storage.location import Storage

STORAGE = Storage()


def test_lock_excludes_others_and_ends_with_its_process(tmp_path: Path) -> None:
    lock = STORAGE.locate(tmp_path / "deep" / "my job.lock")
    with lease_holder(lock) as holder:
        name = re.escape(str(lock))
        said = rf"another retraining is running \(process {holder.pid} on .+, lock '{name}'\)"
        with pytest.raises(JobFailedError, match=said), exclusive(lock, "retraining"):
            raise AssertionError("two hold the lock")
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
