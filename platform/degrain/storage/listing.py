"""Lists the files below a folder with size and time, by which changes are detected."""

import contextlib
import os
import stat
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pyarrow.fs as pafs

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


def local_files_inside(folder: Path) -> Iterator[tuple[str, FileStamp]]:
    """Yield the files directly inside a folder by name; none if it does not exist."""
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            # A link to itself raises an error.
            with contextlib.suppress(OSError):
                if entry.is_file():
                    yield entry.name, FileStamp.of_status(entry.stat())


def local_files(folder: Path) -> Iterator[tuple[str, FileStamp]]:
    """Yield files below a folder by relative name, without following links to folders.

    Pyarrow would follow a link to a parent folder for ever.
    """

    def fail(error: OSError) -> None:
        raise error

    for where, _folders, names in os.walk(folder, onerror=fail):
        below = os.path.relpath(where, folder)
        for name in names:
            # Broken links and files that were removed meanwhile are skipped.
            with contextlib.suppress(OSError):
                # pathlib is slow here.
                status = os.stat(os.path.join(where, name))  # noqa: PTH116, PTH118
                if stat.S_ISREG(status.st_mode):
                    yield (
                        name if below == "." else f"{below}/{name}",
                        FileStamp.of_status(status),
                    )


def local_folders(folder: Path) -> Iterator[dict[str, FileStamp]]:
    """Yield the same by folder; folders whose names differ in case only come together."""

    def walk(group: list[str]) -> Iterator[dict[str, FileStamp]]:
        found: dict[str, FileStamp] = {}
        below: dict[str, list[str]] = defaultdict(list)
        for prefix in group:
            with os.scandir(folder / prefix) as entries:
                for entry in entries:
                    name = prefix + entry.name
                    if entry.is_dir(follow_symlinks=False):
                        below[entry.name.casefold()].append(f"{name}/")
                        continue
                    with contextlib.suppress(OSError):
                        status = entry.stat()
                        if stat.S_ISREG(status.st_mode):
                            found[name] = FileStamp.of_status(status)
        if found:
            yield dict(sorted(found.items()))
        for name in sorted(below):
            yield from walk(below[name])

    yield from walk([""])


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
