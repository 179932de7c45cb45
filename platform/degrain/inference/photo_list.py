"""Which photos a run denoises, and which file each becomes.

Photos are named by files, folders, `s3://` prefixes and patterns. Below `out` a photo keeps the
path that it has below the folder, or below the part of the pattern without wildcards.
"""

import os
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from degrain.errors import UserError
from degrain.imaging.codecs import is_photo
from degrain.inference.config import OutputFormat
from degrain.inference.photo_file import SUFFIXES
from degrain.storage.atomic import PARTIAL
from degrain.storage.listing import is_utf8, printable
from degrain.storage.location import Location, Storage

PREVIEW_SUFFIX = ".preview.png"
_WILDCARDS = re.compile(r"[*?\[]")
_PARTIAL_NAME = re.compile(rf"(.+)\.[0-9a-f]{{8}}{re.escape(PARTIAL)}")


@dataclass(frozen=True)
class FoundPhoto:
    """A photo and its path below the output folder, still with its own suffix."""

    location: Location
    name: str


@dataclass(frozen=True)
class PhotoTask:
    """A photo and the file that it becomes."""

    source: Location
    target: Location


@dataclass(frozen=True)
class Plan:
    """What a run does."""

    tasks: list[PhotoTask]
    skipped: int
    """Photos whose output exists."""


def find_photos(
    inputs: Sequence[str], storage: Storage, *, recursive: bool = False, out: Location | None = None
) -> list[FoundPhoto]:
    """Resolve files, folders and patterns to photos without duplicates.

    Folders are searched below too if `recursive`; results of an earlier run, in a folder `out`
    below them, are left out. Raises UserError for a path that does not exist, and a folder or
    pattern without photos.
    """
    found: dict[str, FoundPhoto] = {}
    for text in inputs:
        for photo in _find(text, storage, recursive=recursive, out=out):
            found.setdefault(_place(photo.location), photo)
    return list(found.values())


def _place(location: Location) -> str:
    """Where a photo's name is: links to folders are resolved, a link to a photo is one itself."""
    if location.remote:
        return location.uri
    folder, name = os.path.split(location.path)
    return os.path.join(os.path.realpath(folder), name)  # noqa: PTH118


def _find(
    text: str, storage: Storage, *, recursive: bool, out: Location | None
) -> Iterator[FoundPhoto]:
    location = storage.locate(text)
    location.check_answers()
    if location.is_folder():
        names = list(location.files()) if recursive else location.names()
        yield from _below(location, names, out, f"there are no photos in the folder '{text}'")
    elif location.exists():
        if not storage.stamps([location.uri]):
            raise UserError(f"'{text}' is neither a file nor a folder; name a photo")
        yield FoundPhoto(location, PurePosixPath(location.path).name)
    elif _WILDCARDS.search(text):
        yield from _matches(text, storage, out)
    else:
        raise UserError(f"there is no photo '{text}'; check the path")


def _matches(pattern: str, storage: Storage, out: Location | None) -> Iterator[FoundPhoto]:
    """The photos of a pattern; `*` and `?` stay within a folder, `**` goes down any number."""
    parts = storage.locate(pattern).uri.split("/")
    first = next(i for i, part in enumerate(parts) if _WILDCARDS.search(part))
    folder = storage.locate("/".join(parts[:first]) or "/")
    below = parts[first:]
    names = list(folder.files()) if len(below) > 1 or "**" in below else folder.names()
    matching = [name for name in names if _matches_pattern(name.split("/"), below)]
    yield from _below(folder, matching, out, f"no photo matches '{pattern}'; check the pattern")


def _matches_pattern(name: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether a path matches a pattern, both split into the names of folders and file."""
    if not pattern:
        return not name
    if pattern[0] == "**":
        return _matches_pattern(name, pattern[1:]) or (
            bool(name) and _matches_pattern(name[1:], pattern)
        )
    return (
        bool(name) and fnmatchcase(name[0], pattern[0]) and _matches_pattern(name[1:], pattern[1:])
    )


def _below(
    folder: Location, names: Sequence[str], out: Location | None, nothing: str
) -> Iterator[FoundPhoto]:
    photos = [name for name in names if is_photo(name)]
    above = f"{folder.identity}/"
    if out is not None and out.identity.startswith(above):
        results = f"{out.identity.removeprefix(above)}/"
        photos = [name for name in photos if not name.startswith(results)]
    if not photos:
        raise UserError(nothing)
    for name in photos:
        if not is_utf8(name):
            raise UserError(
                f"the name of '{folder / printable(name)}' is not valid UTF-8; rename it"
            )
        yield FoundPhoto(folder / name, name)


def targets(
    photos: Sequence[FoundPhoto],
    out: Location,
    file_format: OutputFormat | None = None,
    *,
    preview: bool = False,
) -> list[PhotoTask]:
    """The output file of each photo.

    Raises UserError if two photos have the same output file, or an output file is an input photo.
    """
    tasks = [
        PhotoTask(photo.location, out / _target_name(photo.name, file_format, preview=preview))
        for photo in photos
    ]
    sources = {task.source.identity for task in tasks}
    taken: dict[str, Location] = {}
    for task in tasks:
        identity = task.target.identity
        if identity in sources:
            raise UserError(f"'{task.target}' would be written over; choose another folder `out`")
        if identity in taken:
            raise UserError(
                f"'{taken[identity]}' and '{task.source}' would both become '{task.target}'; "
                "denoise them in separate runs"
            )
        taken[identity] = task.source
    return tasks


def _target_name(name: str, file_format: OutputFormat | None, *, preview: bool) -> str:
    if preview:
        return f"{name}{PREVIEW_SUFFIX}"
    if file_format is None:
        return name
    return str(PurePosixPath(name).with_suffix(SUFFIXES[file_format]))


def plan(tasks: Sequence[PhotoTask], *, overwrite: bool) -> Plan:
    """Leave out the tasks whose output exists, and remove what a killed run left half-written."""
    by_folder: dict[str, list[PhotoTask]] = defaultdict(list)
    for task in tasks:
        by_folder[task.target.uri.rpartition("/")[0]].append(task)
    done: set[str] = set()
    for uri, inside in by_folder.items():
        folder = Location(uri, inside[0].target.storage)
        names = set(folder.names())
        expected = {task.target.uri.rpartition("/")[2]: task.target.uri for task in inside}
        for name in names:
            partial = _PARTIAL_NAME.fullmatch(name)
            if partial and partial[1] in expected:
                (folder / name).remove()
        done |= {expected[name] for name in names & expected.keys()}
    left = [task for task in tasks if overwrite or task.target.uri not in done]
    return Plan(left, len(tasks) - len(left))
