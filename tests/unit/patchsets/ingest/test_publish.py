"""Publishing: a set that is whole is never changed, and files that are damaged are replaced."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from unit.ingest_support import serial_ingest, write_pairs
from unit.patchset_support import MANIFEST, ROW, STORAGE, publish_rows

from degrain.patchsets.patch_set import PatchSet
from degrain.storage.location import Location
from degrain.storage.sealed import FileDigest


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Content and time of the files of all versions and shards."""
    return {
        str(file.relative_to(folder)): (file.read_bytes(), file.stat().st_mtime_ns)
        for file in folder.rglob("*")
        if file.is_file() and file.name != "current.json"
    }


def test_a_set_that_is_whole_is_not_written_again(tmp_path: Path) -> None:
    root = STORAGE.locate(tmp_path)
    made, existed = publish_rows(root, [ROW])
    assert not existed
    before = contents(tmp_path)
    assert publish_rows(root, [ROW]) == (made, True)
    # How the corpora were named is no reason to write.
    again, existed = publish_rows(root, [ROW], replace(MANIFEST, corpora=[["pairs", "p", "../p"]]))
    assert (again.manifest, existed) == (made.manifest, True)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("kind", ["manifest", "catalog"])
@pytest.mark.parametrize("damage", [b"torn", b"", None])
def test_a_damaged_file_is_written_again_to_the_same_bytes(
    tmp_path: Path, kind: str, damage: bytes | None
) -> None:
    root = STORAGE.locate(tmp_path)
    publish_rows(root, [ROW])
    before = {name: content for name, (content, _) in contents(tmp_path).items()}
    (file,) = (tmp_path / "v1").glob(f"{kind}*")
    file.unlink() if damage is None else file.write_bytes(damage)
    assert publish_rows(root, [ROW])[1] is False
    assert {name: content for name, (content, _) in contents(tmp_path).items()} == before
    assert PatchSet.open(str(root), STORAGE).catalog == [ROW]


def test_a_set_whose_photos_moved_gets_a_catalog_beside_the_old_one(tmp_path: Path) -> None:
    root = STORAGE.locate(tmp_path)
    rows = [replace(ROW, noisy=f"/{place}/n.png") for place in "abc"]
    opened: list[PatchSet] = []
    for number, row in enumerate(rows):
        assert publish_rows(root, [row])[1] is False
        opened.append(PatchSet.open(str(root), STORAGE))
        assert opened[-1].catalog == [row]
        if number:
            # A job that opened the set before that still finds its catalog.
            assert replace(opened[-2]).catalog == [rows[number - 1]]
    assert len(list((tmp_path / "v1").glob("catalog-*"))) == 2


def test_a_kill_before_the_manifest_leaves_the_former_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = STORAGE.locate(tmp_path)
    publish_rows(root, [ROW])
    write = Location.write_bytes

    def killed_at_the_manifest(self: Location, content: bytes) -> None:
        if self.uri.endswith("manifest.json"):
            raise SystemExit
        write(self, content)

    monkeypatch.setattr(Location, "write_bytes", killed_at_the_manifest)
    other = replace(ROW, noisy="/moved/n.png")
    for manifest, rows in ((MANIFEST, [other]), (replace(MANIFEST, version="v2"), [other, other])):
        with pytest.raises(SystemExit):
            publish_rows(root, rows, manifest)
        found = PatchSet.open(str(root), STORAGE)
        assert (found.manifest.version, found.catalog) == ("v1", [ROW])


def test_shards_are_named_by_their_content_and_sorted(tmp_path: Path) -> None:
    made = serial_ingest(write_pairs(tmp_path / "photos"), tmp_path / "out").patch_set
    keys = [shard.key for shard in made.manifest.shards]
    assert keys == sorted(keys)
    for shard in made.manifest.shards:
        content = (tmp_path / f"out/shards/{shard.key}.parquet").read_bytes()
        assert FileDigest.of(content) == shard.file


def test_an_ingest_removes_what_killed_ones_left_and_nothing_else(tmp_path: Path) -> None:
    photos, out = write_pairs(tmp_path / "photos"), tmp_path / "out"
    serial_ingest(photos, out)
    version = json.loads((out / "current.json").read_text())["version"]
    left = [out / "current.json.0123abcd.part"]
    left += [out / name / "x.0123abcd.part" for name in ("shards", version)]
    foreign = [out / name for name in ("mine/x.0123abcd.part", "shards/film.part")]
    (out / "mine").mkdir()
    for file in (*left, *foreign):
        file.write_bytes(b"half")
    serial_ingest(photos, out)
    assert [file for file in left if file.exists()] == []
    assert [file for file in foreign if not file.exists()] == []
