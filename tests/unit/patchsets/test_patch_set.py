"""Patch sets: opened by root or version, and damaged files are named."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from unit.patchset_support import MANIFEST, ROW, STORAGE, publish_rows

from degrain.errors import UserError
from degrain.patchsets.patch_set import PatchSet, check_moved
from degrain.storage.sealed import seal, unseal


def test_a_published_set_is_found_by_its_root_and_by_its_version(tmp_path: Path) -> None:
    root = STORAGE.locate(tmp_path / "my sets 1%")
    refused = replace(ROW, id="c/r", refused="it is damaged")
    made, _ = publish_rows(root, [ROW, refused])
    for uri in (str(root), str(root / "v1"), f"{root}/"):
        found = PatchSet.open(uri, STORAGE)
        assert found.manifest == made.manifest
        assert found.uri == str(root / "v1")
        assert found.root.uri == root.uri
        assert found.catalog == [ROW, refused]
        assert found.photos("train") == [ROW]
        assert found.photos("val") == []


def test_a_resumed_job_takes_its_patch_set_from_another_place(tmp_path: Path) -> None:
    publish_rows(STORAGE.locate(tmp_path / "moved"), [ROW])
    for data in (tmp_path / "moved", tmp_path / "moved" / "v1"):
        check_moved(str(data), "/gone/patches/v1", STORAGE)
    with pytest.raises(
        UserError, match="data names version v1 of a patch set, but what is resumed has seen"
    ):
        check_moved(str(tmp_path / "moved"), "/gone/patches/v0", STORAGE)


def test_a_broken_catalog_is_named(tmp_path: Path) -> None:
    publish_rows(STORAGE.locate(tmp_path), [ROW])
    (file,) = (tmp_path / "v1").glob("catalog-*.parquet")
    content = file.read_bytes()
    for damaged in (b"PAR1", content[:-1], content[:99] + b"?" + content[100:], None):
        file.unlink() if damaged is None else file.write_bytes(damaged)
        with pytest.raises(
            UserError, match=f"cannot read '{file}': .+; ingest the corpus again with `reread`"
        ):
            _ = PatchSet.open(str(tmp_path), STORAGE).catalog


def test_a_split_without_patches_is_an_error(tmp_path: Path) -> None:
    patch_set, _ = publish_rows(STORAGE.locate(tmp_path), [ROW])
    assert [s.key for s in patch_set.shards("train")] == ["a", "c"]
    with pytest.raises(UserError, match="has no patches in its test split; ingest more scenes"):
        patch_set.shards("test")


def test_a_folder_without_manifest_is_no_patch_set(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(
            UserError,
            match=f"'{folder}' is not a patch set: it has no manifest.json; ingest has not",
        ):
            PatchSet.open(str(folder), STORAGE)


RAW = unseal(MANIFEST.to_json())


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "it is damaged"),
        (MANIFEST.to_json()[:-1], "it is damaged"),
        (MANIFEST.to_json().replace(b"9", b"8", 1), "it is damaged"),
        (json.dumps(RAW).encode(), "it is damaged, or of another version of degrain"),
        (seal({"format": 1}), "format 1, but this version of degrain reads 3"),
        (seal({**RAW, "geometry": {"strides": 8}}), "strides"),
        (seal({**RAW, "geometry": {"patch_size": 32, "stride": 64}}), "stride must be"),
    ],
    ids=["empty", "cut", "changed", "no digest", "format 1", "unknown field", "bad stride"],
)
def test_a_broken_manifest_is_named(tmp_path: Path, content: bytes, problem: str) -> None:
    publish_rows(STORAGE.locate(tmp_path), [ROW])
    (tmp_path / "v1/manifest.json").write_bytes(content)
    with pytest.raises(
        UserError, match=f"cannot read '{tmp_path}/v1/manifest.json': .*{problem}.*; ingest the"
    ):
        PatchSet.open(str(tmp_path), STORAGE)


@pytest.mark.parametrize("content", [b"", b'{"vers', b'{"version": "v1"}', seal({"v": 1})])
def test_a_broken_pointer_is_named(tmp_path: Path, content: bytes) -> None:
    publish_rows(STORAGE.locate(tmp_path), [ROW])
    (tmp_path / "current.json").write_bytes(content)
    with pytest.raises(UserError, match=f"cannot read '{tmp_path}/current.json': .+; ingest the"):
        PatchSet.open(str(tmp_path), STORAGE)
