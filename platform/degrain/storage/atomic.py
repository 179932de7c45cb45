"""Atomic writes: a reader sees all of a file or none, whenever its writer is killed."""

import contextlib
import errno
import fcntl
import os
import re
import tempfile
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import IO, TYPE_CHECKING

from degrain.storage.upload import upload

if TYPE_CHECKING:
    from degrain.storage.location import Location

PARTIAL = ".part"
"""Suffix of files that are being written."""
_PARTIAL_NAME = re.compile(rf"(.+)\.[0-9a-f]{{8}}{re.escape(PARTIAL)}")
_STEM_BYTES = 100
"""A partial file's name has so much of its target's: file systems limit names to 255 bytes, some of
them, which encrypt names, to 143.
"""
_MEMORY_BYTES = 16 * 2**20
"""An object for a bucket that is larger waits for its upload in a temporary file."""
_NOT_FLUSHED = (errno.EINVAL, errno.ENOTSUP, errno.EBADF)
"""Errors of file systems that cannot flush a folder, such as those of Windows servers."""


class AtomicWrite:
    """Context manager of a file that is written out of sight and published by name.

    Without `publish` nothing appears. In a folder its name ends in `.part` until it is published,
    and it is flushed to the disk before its name changes. For a bucket it is a temporary file of
    this machine, which `publish` uploads. An OSError without a file name gets that of the target.
    """

    def __init__(self, folder: "Location", name: str = "new") -> None:
        self._folder = folder
        self._name = name
        self._file: IO[bytes]
        self._partial: Path | None = None

    def __enter__(self) -> "AtomicWrite":
        if self._folder.remote:
            self._file = tempfile.SpooledTemporaryFile(_MEMORY_BYTES)
            return self
        folder = Path(self._folder.path)
        folder.mkdir(parents=True, exist_ok=True)
        while not self._lock(folder / partial_name(self._name)):
            pass
        return self

    def _lock(self, partial: Path) -> bool:
        """Create a file and mark it as being written; False if it was removed before that."""
        self._partial, self._file = partial, partial.open("xb")
        # Where a file system has no locks, partial files are never removed by others.
        with contextlib.suppress(OSError):
            fcntl.flock(self._file, fcntl.LOCK_EX)
        if not partial.exists():
            self._file.close()
            return False
        return True

    def write(self, content: bytes) -> int:
        """Append bytes."""
        return self._file.write(content)

    def publish(self, name: str) -> None:
        """Replace the file `name` of the folder by what was written."""
        if self._partial is None:
            self._file.seek(0)
            upload(self._folder / name, self._file)
            return
        self._file.flush()
        os.fsync(self._file.fileno())
        self._partial.replace(self._partial.with_name(name))
        _flush_folder(self._partial.parent)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: object
    ) -> None:
        if self._partial is not None:
            # It still exists if it was not published.
            self._partial.unlink(missing_ok=True)
        self._file.close()
        if isinstance(error, OSError) and error.errno is not None and error.filename is None:
            target = str(self._folder / self._name)
            raise OSError(error.errno, os.strerror(error.errno), target) from error


def partial_name(target: str) -> str:
    """A new name for a file that is written in place of the file `target`."""
    return f"{_stem(target)}.{uuid.uuid4().hex[:8]}{PARTIAL}"


def partial_files(names: Iterable[str], targets: Iterable[str]) -> list[str]:
    """The names among those of a folder that are `partial_name`s of targets."""
    stems = set(map(_stem, targets))
    found = map(_PARTIAL_NAME.fullmatch, names)
    return [match[0] for match in found if match and match[1] in stems]


def _stem(target: str) -> str:
    """The beginning of a name; a character is not cut through."""
    encoded = os.fsencode(target)
    if len(encoded) <= _STEM_BYTES:
        return target
    return encoded[:_STEM_BYTES].decode(errors="ignore")


def remove_abandoned(folder: Path) -> None:
    """Remove the partial files directly inside a folder whose writers were killed."""
    for path in folder.glob(f"*{PARTIAL}"):
        # A file that is being written is locked; one that another user wrote cannot be opened.
        with contextlib.suppress(OSError):
            if _PARTIAL_NAME.fullmatch(path.name):
                with path.open("r+b") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    path.unlink()


def _flush_folder(folder: Path) -> None:
    """Flush the names of a folder to the disk, so that a power failure keeps the new one."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    except OSError as error:
        if error.errno not in _NOT_FLUSHED:
            raise
    finally:
        os.close(opened)
