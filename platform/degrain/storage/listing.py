"""Lists the files below a folder with size and time, by which changes are detected."""

import contextlib
import logging
import os
import stat
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pyarrow.fs as pafs

_log = logging.getLogger(__name__)

BROKEN_LINK = "broken links"
NO_FILE = "pipes or devices"
"""Why a name in a folder is neither a file nor a folder."""
_PARALLEL_LISTINGS = 16
"""Folders of a bucket that are listed at a time."""


@dataclass(frozen=True, slots=True)
class FileStamp:
    """Size and time of a file; content with an equal stamp is assumed to be unchanged."""

    size: int
    """Bytes."""
    changed: int
    """Time of last change, nanoseconds since 1970."""

    @classmethod
    def of(cls, info: pafs.FileInfo) -> "FileStamp":
        """Convert pyarrow's information on a file."""
        return cls(info.size, info.mtime_ns)

    @classmethod
    def of_status(cls, status: os.stat_result) -> "FileStamp":
        """Convert what the operating system tells of a file."""
        return cls(status.st_size, status.st_mtime_ns)

    @property
    def stamp(self) -> str:
        """Size and time as text, for comparisons."""
        return f"{self.size}@{self.changed}"


def is_hidden(name: str) -> bool:
    """Whether a file or a folder in its relative path begins with a dot.

    Such names are sidecars of macOS (`._IMG.jpg`), thumbnails and trash; shells leave them out too.
    """
    return name.startswith(".") or "/." in name


def local_files_inside(
    folder: Path, others: dict[str, str] | None = None
) -> Iterator[tuple[str, FileStamp]]:
    """Yield the files directly inside a folder by name; none if it does not exist.

    `others` gets the names that are neither files nor folders, with BROKEN_LINK or NO_FILE.
    """
    others = {} if others is None else others
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            status = _status(entry, entry.name, others)
            if status is not None and stat.S_ISREG(status.st_mode):
                yield entry.name, FileStamp.of_status(status)


def local_files(
    folder: Path, others: dict[str, str] | None = None
) -> Iterator[tuple[str, FileStamp]]:
    """Yield files below a folder by relative name, see `local_folders`."""
    for files in local_folders(folder, others):
        yield from files.items()


def _status(entry: os.DirEntry[str], name: str, others: dict[str, str]) -> os.stat_result | None:
    """The status of a file or folder, whose links are followed; of others, which may be pipes,
    nothing is opened: they are named in `others`.
    """
    try:
        status = entry.stat()
    except OSError:
        # A file may also have been removed meanwhile.
        if entry.is_symlink():
            others[name] = BROKEN_LINK
        return None
    if stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode):
        return status
    others[name] = NO_FILE
    return None


def local_folders(
    folder: Path, others: dict[str, str] | None = None
) -> Iterator[dict[str, FileStamp]]:
    """Yield the files of each folder below a folder by relative name, sorted; folders whose names
    differ in case only come together.

    Links to folders are followed after all others, unless they lead to a folder that was listed.
    A folder below that cannot be read is left out, with a warning; `others` gets what else is left
    out, as in `local_files_inside`. Raises OSError if `folder` cannot be read.
    """
    walk = _Walk(folder, {} if others is None else others)
    yield from walk.below([""])
    while walk.links:
        link = min(walk.links)
        walk.links.remove(link)
        with contextlib.suppress(OSError):
            if walk.is_new(os.stat(folder / link)):  # noqa: PTH116 - as in `_Walk`
                yield from walk.below([link])


class _Walk:
    """Folders below a folder, each once."""

    def __init__(self, folder: Path, others: dict[str, str]) -> None:
        self._folder, self._others = folder, others
        self._listed: set[tuple[int, int]] = set()
        self.links: set[str] = set()
        """Links to folders, which are not followed yet."""
        self.is_new(os.stat(folder))  # noqa: PTH116 - one way for all

    def is_new(self, status: os.stat_result) -> bool:
        """Whether a folder was not listed before; it counts as listed then."""
        place = status.st_dev, status.st_ino
        if place in self._listed:
            return False
        self._listed.add(place)
        return True

    def below(self, group: list[str]) -> Iterator[dict[str, FileStamp]]:
        """Files of folders, and of those below, but for links."""
        found: dict[str, FileStamp] = {}
        below: dict[str, list[str]] = defaultdict(list)
        for prefix in group:
            for entry in self._entries(prefix):
                name = prefix + entry.name
                if (status := _status(entry, name, self._others)) is None:
                    continue
                if stat.S_ISREG(status.st_mode):
                    found[name] = FileStamp.of_status(status)
                elif entry.is_symlink():
                    self.links.add(f"{name}/")
                elif self.is_new(status):
                    below[entry.name.casefold()].append(f"{name}/")
        if found:
            yield dict(sorted(found.items()))
        for name in sorted(below):
            yield from self.below(below[name])

    def _entries(self, prefix: str) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(self._folder / prefix) as entries:
                return list(entries)
        except PermissionError as error:
            if not prefix:
                raise
            _log.warning("%s is left out: %s", self._folder / prefix, error.strerror)
            return []


def bucket_folders(files: pafs.FileSystem, root: str) -> Iterator[dict[str, FileStamp]]:
    """Yield the files of a bucket's folders in the same way, by names relative to `root`."""

    def listed(folders: list[str]) -> list[pafs.FileInfo]:
        return [info for f in folders for info in files.get_file_info(pafs.FileSelector(f))]

    level = [[root]]
    with ThreadPoolExecutor(_PARALLEL_LISTINGS) as pool:
        while level:
            below: dict[str, list[str]] = defaultdict(list)
            for start in range(0, len(level), _PARALLEL_LISTINGS):
                for infos in pool.map(listed, level[start : start + _PARALLEL_LISTINGS]):
                    found: dict[str, FileStamp] = {}
                    for info in infos:
                        if info.type == pafs.FileType.File:
                            found[info.path[len(root) :].lstrip("/")] = FileStamp.of(info)
                        else:
                            below[info.path.casefold()].append(info.path)
                    if found:
                        yield dict(sorted(found.items()))
            level = [below[name] for name in sorted(below)]


def is_utf8(name: str) -> bool:
    """Whether a file name of the operating system is valid UTF-8, as Parquet and JSON need it."""
    return name.isprintable() or not any("\ud800" <= c <= "\udfff" for c in name)


def printable(name: str) -> str:
    """Format a file name, with bytes that are not UTF-8 as escapes."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
