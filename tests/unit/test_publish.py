"""Publishing: files that are damaged or outdated are replaced."""

import json
from pathlib import Path

from unit.ingest_support import serial_ingest, write_pairs
from unit.patchset_support import MANIFEST, ROW, STORAGE

from degrain.patchsets.ingest.publish import publish
from degrain.patchsets.patch_set import PatchSet


def test_publishing_again_repairs_files_and_reports_whether_the_set_existed(tmp_path: Path) -> None:
    root = STORAGE.locate(tmp_path)
    assert publish(root, MANIFEST, [ROW])[1] is False
    assert publish(root, MANIFEST, [ROW])[1] is True
    for name in ("manifest.json", "catalog.parquet"):
        (tmp_path / "v1" / name).write_bytes(b"torn")
        assert publish(root, MANIFEST, [ROW])[1] is False
        assert PatchSet.open(str(root), STORAGE).catalog == [ROW]


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
