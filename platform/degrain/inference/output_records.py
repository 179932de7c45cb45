"""What each file of an output folder was made from: which outputs a run may skip, which it redoes.

Each output folder has a file `.degrain.jsonl` with a line for each output, the last one counts:

    {"name": "a.jpg", "output": "81230@17...", "photo": "90112@17...", "recipe": "5c1f..."}

`output` and `photo` are size and time of the file that was written and of the photo that was read;
`recipe` is a digest of the model and of the options that decide the pixels. A file whose size and
time are not those of its line was not written by a run, or was changed since.
"""

import hashlib
import json
import os
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from degrain.inference.photo_list import FoundPhoto, PhotoTask
from degrain.storage.atomic import partial_files
from degrain.storage.json_file import json_line
from degrain.storage.listing import FileStamp
from degrain.storage.location import Location

RECORDS = ".degrain.jsonl"
"""Name of the file in each output folder."""
_SECONDS_BETWEEN_UPLOADS = 10
"""Objects in a bucket cannot be appended to, so the file is replaced, at most this often."""

Standing: TypeAlias = Literal["missing", "current", "outdated", "foreign"]
"""Of an output: not there; as this run would make it; made from an older photo, by another model or
with other options; or not as a run left it.
"""


def recipe_digest(recipe: Mapping[str, object]) -> str:
    """A digest of what decides the pixels of an output beside its photo."""
    text = json.dumps(recipe, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Plan:
    """What a run does, and how many outputs exist."""

    tasks: list[PhotoTask]
    skipped: int = 0
    """Outputs that would come out the same."""
    outdated: int = 0
    """Outputs that are made again: their photo, the model or the options have changed."""
    foreign: int = 0
    """Files that no run wrote, or that were changed since; they are kept."""


@dataclass(frozen=True)
class _Line:
    """What one output was made from."""

    output: str
    photo: str
    recipe: str


class OutputRecords:
    """The records of the folders that a run writes to. Threads may add to it.

    `recipe` is the digest of this run. Call `close` at the end.
    """

    def __init__(self, recipe: str) -> None:
        self._recipe = recipe
        self._lines: dict[str, dict[str, _Line]] = {}
        """Folder to name to record; a folder is here once it was read."""
        self._waiting: set[str] = set()
        """Folders in buckets with records that are not uploaded yet."""
        self._uploaded = time.monotonic()
        self._lock = threading.Lock()

    def plan(self, tasks: Sequence[PhotoTask], *, overwrite: bool) -> Plan:
        """Choose the tasks to do: those whose output is missing or outdated, or all.

        Removes what a killed run left half-written.
        """
        standings: dict[str, Standing] = {}
        by_folder: dict[str, list[PhotoTask]] = defaultdict(list)
        for task in tasks:
            by_folder[_place(task.target)[0].uri].append(task)
        for uri, inside in by_folder.items():
            folder = Location(uri, inside[0].target.storage)
            files, expected = folder.files_inside(), {_place(t.target)[1]: t for t in inside}
            for name in partial_files(files, expected):
                (folder / name).remove()
            for name, task in expected.items():
                standings[task.target.uri] = self._standing(task, files.get(name))
        counts = Counter(standings.values())
        if overwrite:
            return Plan(list(tasks), outdated=counts.total() - counts["missing"])
        to_do = [t for t in tasks if standings[t.target.uri] in ("missing", "outdated")]
        return Plan(to_do, counts["current"], counts["outdated"], counts["foreign"])

    def _standing(self, task: PhotoTask, output: FileStamp | None) -> Standing:
        if output is None:
            return "missing"
        folder, name = _place(task.target)
        line = self._read(folder).get(name)
        if line is None or line.output != output.stamp:
            return "foreign"
        made_of = line.photo, line.recipe
        return "current" if made_of == (task.stamp, self._recipe) else "outdated"

    def add(self, tasks: Sequence[PhotoTask]) -> None:
        """Record outputs that were just written."""
        written = tasks[0].target.storage.stamps([t.target.uri for t in tasks]) if tasks else {}
        with self._lock:
            for task in tasks:
                folder, name = _place(task.target)
                line = _Line(written[task.target.uri].stamp, task.stamp, self._recipe)
                self._read(folder)[name] = line
                if folder.remote:
                    self._waiting.add(folder.uri)
                else:
                    _append(f"{folder.path}/{RECORDS}", _encoded(name, line))
            if time.monotonic() - self._uploaded > _SECONDS_BETWEEN_UPLOADS:
                self._upload(tasks[0].target)

    def close(self, out: Location) -> None:
        """Upload what waits."""
        with self._lock:
            self._upload(out)

    def _upload(self, out: Location) -> None:
        for uri in sorted(self._waiting):
            lines = (_encoded(name, line) for name, line in self._lines[uri].items())
            (Location(uri, out.storage) / RECORDS).write_bytes(b"".join(lines))
        self._waiting.clear()
        self._uploaded = time.monotonic()

    def _read(self, folder: Location) -> dict[str, _Line]:
        if folder.uri not in self._lines:
            self._lines[folder.uri] = _lines_of(folder)
        return self._lines[folder.uri]


def earlier_outputs(photos: Sequence[FoundPhoto]) -> list[FoundPhoto]:
    """Photos that a run wrote, in folders below the one that was named."""
    found: list[FoundPhoto] = []
    lines: dict[str, dict[str, _Line]] = {}
    for photo in photos:
        folder, name = _place(photo.location)
        if "/" not in photo.name:
            continue
        if folder.uri not in lines:
            lines[folder.uri] = _lines_of(folder)
        line = lines[folder.uri].get(name)
        if line is not None and line.output == photo.stamp.stamp:
            found.append(photo)
    return found


def _lines_of(folder: Location) -> dict[str, _Line]:
    file = folder / RECORDS
    return dict(_decoded(file.read_bytes() if file.exists() else b""))


def _place(target: Location) -> tuple[Location, str]:
    folder, _, name = target.uri.rpartition("/")
    return Location(folder, target.storage), name


def _append(path: str, line: bytes) -> None:
    """Append a line; one before it that a kill or a full disk cut is ended first."""
    with open(path, "ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read() != b"\n":
                line = b"\n" + line
        file.write(line)


def _encoded(name: str, line: _Line) -> bytes:
    return json_line({"name": name, **vars(line)}).encode() + b"\n"


def _decoded(content: bytes) -> list[tuple[str, _Line]]:
    """The records; a line that a kill or a full disk cut is left out."""
    found: list[tuple[str, _Line]] = []
    for text in content.splitlines():
        try:
            fields = json.loads(text)
            found.append((fields.pop("name"), _Line(**fields)))
        except (ValueError, TypeError, AttributeError, KeyError):
            continue
    return found
