"""Publishing: files that are damaged or outdated are replaced."""

from pathlib import Path

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
