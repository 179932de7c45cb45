"""Patch sets: opened by root or version, and damaged files are named."""

from dataclasses import replace
from pathlib import Path

import pytest
from unit.patchset_support import MANIFEST, ROW, STORAGE

from degrain.errors import UserError
from degrain.patchsets.ingest.publish import publish
from degrain.patchsets.patch_set import PatchSet


def test_a_published_set_is_found_by_its_root_and_by_its_version(tmp_path: Path) -> None:
    root = STORAGE.locate(tmp_path / "my sets 1%")
    refused = replace(ROW, id="c/r", refused="it is damaged")
    publish(root, MANIFEST, [ROW, refused])
    for uri in (str(root), str(root / "v1"), f"{root}/"):
        found = PatchSet.open(uri, STORAGE)
        assert found.manifest == MANIFEST
        assert found.uri == str(root / "v1")
        assert found.root.uri == root.uri
        assert found.catalog == [ROW, refused]
        assert found.photos("train") == [ROW]
        assert found.photos("val") == []


def test_a_broken_catalog_is_named(tmp_path: Path) -> None:
    publish(STORAGE.locate(tmp_path), MANIFEST, [ROW])
    (tmp_path / "v1/catalog.parquet").write_bytes(b"PAR1")
    with pytest.raises(
        UserError, match=r"cannot read '.+catalog.parquet': .+; remove '.+/current.json' and ingest"
    ):
        _ = PatchSet.open(str(tmp_path), STORAGE).catalog


def test_a_split_without_patches_is_an_error(tmp_path: Path) -> None:
    patch_set, _ = publish(STORAGE.locate(tmp_path), MANIFEST, [ROW])
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


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"format": 1, "vers',
        b"\xff\xfe",
        b"[]",
        b'{"format": 1}',
        MANIFEST.to_json().replace(b'"format": 1', b'"format": 99'),
        MANIFEST.to_json().replace(b'"stride"', b'"strides"'),
        MANIFEST.to_json().replace(b'"stride": 16', b'"stride": 64'),
    ],
    ids=[
        "empty",
        "cut",
        "no text",
        "a list",
        "no version",
        "format 99",
        "unknown field",
        "bad stride",
    ],
)
def test_a_broken_manifest_is_named(tmp_path: Path, content: bytes) -> None:
    publish(STORAGE.locate(tmp_path), MANIFEST, [ROW])
    (tmp_path / "v1/manifest.json").write_bytes(content)
    with pytest.raises(
        UserError, match=f"cannot read '{tmp_path}/v1/manifest.json': .+; ingest the corpus again"
    ):
        PatchSet.open(str(tmp_path), STORAGE)


@pytest.mark.parametrize("content", [b"", b'{"vers', b"{}"], ids=["empty", "cut", "no version"])
def test_a_broken_pointer_is_named(tmp_path: Path, content: bytes) -> None:
    publish(STORAGE.locate(tmp_path), MANIFEST, [ROW])
    (tmp_path / "current.json").write_bytes(content)
    with pytest.raises(UserError, match=r"current\.json"):
        PatchSet.open(str(tmp_path), STORAGE)
