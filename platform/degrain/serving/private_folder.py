"""Temporary folders that outlive no process: Ray ends the service's processes without a goodbye."""

import contextlib
import fcntl
import shutil
import tempfile
from pathlib import Path

_LOCK = "lock"


class PrivateFolder:
    """A temporary folder of this process, readable by its user alone.

    `close` deletes it; if the process is killed, the next one that makes such a folder does. The
    system gives up a lock with its process, so that a folder in use is never taken for a left one.
    """

    def __init__(self, prefix: str) -> None:
        _delete_left(prefix)
        self._folder = Path(tempfile.mkdtemp(prefix=prefix))
        self._lock = (self._folder / _LOCK).open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self.path = self._folder / "content"
        self.path.mkdir()

    def close(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._lock.close()


def _delete_left(prefix: str) -> None:
    """Delete the folders of processes that have ended."""
    for folder in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        # One of another user, or one that is being made or deleted, is left alone.
        with contextlib.suppress(OSError), (folder / _LOCK).open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder)
