"""A process that holds a lock, for tests of what others may do meanwhile."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from degrain.storage.lease import LEASE_SECONDS
from degrain.storage.location import Location

_PACKAGES = [str(Path(__file__).parents[1] / folder) for folder in ("platform", "models")]
_PROGRAM = """
import sys
from degrain.errors import JobFailedError
from degrain.storage.lease import exclusive
from degrain.storage.location import Storage
try:
    lock = Storage.from_environment().locate(sys.argv[1])
    with exclusive(lock, "retraining", lease_seconds=float(sys.argv[2])) as lease:
        print("held", flush=True)
        sys.stdin.readline()
        lease.check()
        print("published", flush=True)
except JobFailedError as error:
    print(f"error: {error}", flush=True)
"""


@contextmanager
def lease_holder(
    lock: Location, lease_seconds: float = LEASE_SECONDS
) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock "retraining", checks it after a line of input, and prints
    `published` or the error. It is killed at the end of the block.
    """
    with subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, str(lock), str(lease_seconds)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(_PACKAGES)},
    ) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            yield holder
        finally:
            holder.kill()
