"""Which photos a run denoises, and which file each becomes.

Photos are named by files, folders, `s3://` prefixes and patterns. Below `out` a photo keeps the
path that it has below the folder, or below the part of the pattern without wildcards.
"""

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

from degrain.errors import UserError
from degrain.imaging.codecs import is_photo
from degrain.inference.config import OutputFormat
from degrain.inference.photo_file import SUFFIX_OF
from degrain.storage.listing import FileStamp, is_hidden, is_utf8, printable
from degrain.storage.location import Location, Storage

PREVIEW_SUFFIX = ".preview.png"
_WILDCARDS = re.compile(r"[*?\[]")
_UNREAD = frozenset(
    (
        *("heic", "heif", "hif", "avif", "jxl", "jp2", "j2k", "jpx", "jxr", "gif", "psd", "psb"),
        *("xcf", "exr", "hdr", "tga", "pcx", "ppm", "pgm", "pnm", "pam", "ico", "svg"),
        *("dng", "cr2", "cr3", "crw", "nef", "nrw", "arw", "srf", "sr2", "raf", "orf", "rw2"),
        *("pef", "srw", "3fr", "fff", "iiq", "mos", "mrw", "rwl", "x3f", "erf", "kdc", "dcr"),
        "raw",
    )
)
"""Suffixes of pictures and raw photos that are not read."""


@dataclass(frozen=True)
class FoundPhoto:
    """A photo and its path below the output folder, still with its own suffix."""

    location: Location
    name: str
    stamp: FileStamp


@dataclass(frozen=True)
class PhotoTask:
    """A photo and the file that it becomes."""

    source: Location
    target: Location
    stamp: str = ""
    """Size and time of the photo when it was found."""


@dataclass(frozen=True)
class Found:
    """The photos of a run, and what its folders hold beside them."""

    photos: list[FoundPhoto]
    unread: dict[str, int]
    """Number of pictures of types that are not read, by suffix in upper case, and of names that are
    neither files nor folders, by what they are."""


def find_photos(
    inputs: Sequence[str], storage: Storage, *, recursive: bool = False, out: Location | None = None
) -> Found:
    """Resolve files, folders and patterns to photos without duplicates.

    Folders are searched below too if `recursive`; results of an earlier run, in a folder `out`
    below them, are left out, and so are names that begin with a dot, unless a file is named or a
    pattern has the dot. Raises UserError for a path that does not exist, and a folder or pattern
    without photos.
    """
    if not inputs:
        raise UserError("no photos are named; name files, folders or patterns")
    photos: dict[str, FoundPhoto] = {}
    unread: dict[str, str] = {}
    for text in inputs:
        for photo in _find(text, storage, recursive=recursive, out=out, unread=unread):
            photos.setdefault(_place(photo.location), photo)
    return Found(list(photos.values()), dict(Counter(unread.values())))


def _place(location: Location) -> str:
    """Where a photo's name is: links to folders are resolved, a link to a photo is one itself."""
    if location.remote:
        return location.uri
    folder, name = os.path.split(location.path)
    return os.path.join(os.path.realpath(folder), name)  # noqa: PTH118


def _find(
    text: str, storage: Storage, *, recursive: bool, out: Location | None, unread: dict[str, str]
) -> Iterator[FoundPhoto]:
    location = storage.locate(text)
    location.check_answers()
    if location.is_folder():
        others: dict[str, str] = {}
        files = location.files(others) if recursive else location.files_inside(others)
        listed = {name: found for name, found in (files | others).items() if not is_hidden(name)}
        nothing = f"there are no photos in the folder '{text}'"
        yield from _below(location, listed, out, nothing, unread)
    elif location.exists():
        stamps = storage.stamps([location.uri])
        if not stamps:
            raise UserError(f"'{text}' is neither a file nor a folder; name a photo")
        name = PurePosixPath(location.path).name
        yield FoundPhoto(location, name, stamps[location.uri])
    elif _WILDCARDS.search(text):
        yield from _matches(text, storage, out, unread)
    else:
        raise UserError(f"there is no photo '{text}'; check the path")


def _matches(
    pattern: str, storage: Storage, out: Location | None, unread: dict[str, str]
) -> Iterator[FoundPhoto]:
    """The photos of a pattern; `*` and `?` stay within a folder, `**` goes down any number."""
    parts = storage.locate(pattern).uri.split("/")
    first = next(i for i, part in enumerate(parts) if _WILDCARDS.search(part))
    folder = storage.locate("/".join(parts[:first]) or "/")
    below = parts[first:]
    others: dict[str, str] = {}
    deep = len(below) > 1 or "**" in below
    listed = (folder.files(others) if deep else folder.files_inside(others)) | others
    matching = {n: found for n, found in listed.items() if _matches_pattern(n.split("/"), below)}
    nothing = f"no photo matches '{pattern}'; check the pattern"
    yield from _below(folder, matching, out, nothing, unread)


def _matches_pattern(name: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether a path matches a pattern, both split into the names of folders and file.

    As in a shell, wildcards do not match a dot at the beginning of a name.
    """
    if not pattern:
        return not name
    if pattern[0] == "**":
        return _matches_pattern(name, pattern[1:]) or (
            bool(name) and not is_hidden(name[0]) and _matches_pattern(name[1:], pattern)
        )
    return (
        bool(name)
        and fnmatchcase(name[0], pattern[0])
        and (pattern[0].startswith(".") or not is_hidden(name[0]))
        and _matches_pattern(name[1:], pattern[1:])
    )


def _below(
    folder: Location,
    listed: Mapping[str, FileStamp | str],
    out: Location | None,
    nothing: str,
    unread: dict[str, str],
) -> Iterator[FoundPhoto]:
    """The photos among what is listed: files with their stamps, other names with what they are."""
    above = f"{folder.identity}/"
    if out is not None and out.identity.startswith(above):
        results = f"{out.identity.removeprefix(above)}/"
        listed = {name: found for name, found in listed.items() if not name.startswith(results)}
    photos: dict[str, FileStamp] = {}
    types, no_files = Counter[str](), Counter[str]()
    for name, found in listed.items():
        if isinstance(found, str):
            unread[_place(folder / name)] = found
            no_files[found] += 1
        elif is_photo(name):
            photos[name] = found
        elif (suffix := PurePosixPath(name).suffix[1:]).lower() in _UNREAD:
            unread[_place(folder / name)] = suffix.upper()
            types[suffix.upper()] += 1
    if not photos:
        remedy = "; convert them to TIFF or PNG" if types else ""
        held = ", ".join(filter(None, (listed_types(no_files), listed_types(types))))
        raise UserError(f"{nothing}, but {held}{remedy}" if held else nothing)
    for name, stamp in photos.items():
        if not is_utf8(name):
            raise UserError(
                f"the name of '{folder / printable(name)}' is not valid UTF-8; rename it"
            )
        yield FoundPhoto(folder / name, name, stamp)


def listed_types(unread: Mapping[str, int]) -> str:
    """`12 HEIC, 3 CR2`, the most frequent first; empty for none."""
    ordered = sorted(unread.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count} {suffix}" for suffix, count in ordered)


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
        PhotoTask(
            photo.location,
            out / _target_name(photo.name, file_format, preview=preview),
            photo.stamp.stamp,
        )
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
                "denoise them into separate folders"
            )
        taken[identity] = task.source
    return tasks


def _target_name(name: str, file_format: OutputFormat | None, *, preview: bool) -> str:
    if preview:
        return f"{name}{PREVIEW_SUFFIX}"
    if file_format is None:
        return name
    return str(PurePosixPath(name).with_suffix(SUFFIX_OF[file_format]))
