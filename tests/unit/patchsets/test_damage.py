"""Damage to any file of a patch set: found when the file is read, named, and repaired by the next
ingest to the same bytes.
"""

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from unit.ingest_support import STORAGE, serial_ingest, write_pair, write_pairs

from degrain.errors import UserError
from degrain.patchsets import reading
from degrain.patchsets.ingest.memory import SplitMemory
from degrain.patchsets.patch_set import PatchSet

PLACES = 3
"""Of each file, where it is changed and cut."""


@pytest.fixture(params=["at once", "in steps"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Photos and a patch set of them, in which most scenes have one shard or two."""
    photos = write_pairs(tmp_path / "photos")
    if request.param == "in steps":
        serial_ingest(photos, tmp_path / "out")
    for number in range(4):
        write_pair(photos, f"s{number}", "later")
    serial_ingest(photos, tmp_path / "out")
    return tmp_path


def read_all(out: Path) -> str:
    """Read all of the newest set, as a process that has not read it before; returns its version."""
    reading._checked.clear()
    patch_set = PatchSet.open(str(out), STORAGE)
    assert len(patch_set.catalog) == 10
    for shard in patch_set.manifest.shards:
        assert len(patch_set.read_shard(shard)[0]) == shard.patches
    return patch_set.manifest.version


def contents(out: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(out)): file.read_bytes()
        for file in sorted(out.rglob("*"))
        if file.is_file() and file.name != "ingest.lock"
    }


def damages(content: bytes, seed: str) -> Iterator[bytes]:
    """The content with one bit changed, and cut, each at several places."""
    draw = random.Random(seed)
    for place in draw.sample(range(len(content)), PLACES):
        changed = bytearray(content)
        changed[place] ^= 1 << draw.randrange(8)
        yield bytes(changed)
        yield content[:place]


FILES = {
    "current.json": lambda out: out / "current.json",
    "manifest.json": lambda out: newest(out) / "manifest.json",
    "catalog": lambda out: next(newest(out).glob("catalog-*.parquet")),
    "shard": lambda out: max((out / "shards").glob("*.parquet")),
}


def newest(out: Path) -> Path:
    return out / PatchSet.open(str(out), STORAGE).manifest.version


@pytest.mark.parametrize("kind", FILES)
def test_damage_is_found_named_and_repaired_by_the_next_ingest(folder: Path, kind: str) -> None:
    out = folder / "out"
    before, version, file = contents(out), read_all(out), FILES[kind](out)
    for damaged in damages(file.read_bytes(), kind):
        file.write_bytes(damaged)
        with pytest.raises(UserError, match=f"cannot read '{file}': it is damaged.*; ingest the"):
            read_all(out)
        done = serial_ingest(folder / "photos", out)
        assert (done.patch_set.manifest.version, read_all(out)) == (version, version)
        assert contents(out) == before
        # Nothing is left to be repaired.
        assert serial_ingest(folder / "photos", out).cut == 0


@pytest.mark.parametrize("kind", ["shard", "measurements"])
def test_damage_that_changes_no_time_is_repaired_by_reading_all_again(
    folder: Path, kind: str
) -> None:
    out = folder / "out"
    before, version = contents(out), read_all(out)
    file = max((out / "shards").glob("*.json")) if kind == "measurements" else FILES[kind](out)
    times = file.stat()
    for damaged in damages(file.read_bytes(), kind):
        file.write_bytes(damaged)
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
        done = serial_ingest(folder / "photos", out, reread=True)
        assert not done.reused
        assert done.patch_set.manifest.version == read_all(out) == version
        assert contents(out) == before
    again = serial_ingest(folder / "photos", out, reread=True)
    assert (again.reused, again.cut) == (True, 10)


@pytest.mark.parametrize("kind", ["manifest.json", "catalog", "shard"])
def test_a_lost_file_is_written_again(folder: Path, kind: str) -> None:
    out = folder / "out"
    before, version, file = contents(out), read_all(out), FILES[kind](out)
    file.unlink()
    serial_ingest(folder / "photos", out)
    assert read_all(out) == version
    assert contents(out) == before


def test_damage_to_the_remembered_splits_is_found_or_changes_none(tmp_path: Path) -> None:
    out = tmp_path / "out"
    serial_ingest(write_pairs(tmp_path / "photos"), out)
    file, root = out / "splits.parquet", STORAGE.locate(out)
    content, known = file.read_bytes(), SplitMemory.read(root)
    errors: list[str] = []
    for place in range(0, len(content), 7):
        changed = bytearray(content)
        changed[place] ^= 1
        for damaged in (bytes(changed), content[:place]):
            file.write_bytes(damaged)
            try:
                assert SplitMemory.read(root) == known
            except UserError as error:
                errors.append(str(error))
    assert len(errors) > len(content) / 7
    assert all(f"'{file}' is damaged" in error for error in errors)
