"""Patch sets as inputs of MLflow runs."""

import json
from dataclasses import replace
from pathlib import Path

from unit.patchset_support import ROW, STORAGE, publish_rows

from degrain.tracking.datasets import pair_inputs, patch_set_inputs


def test_each_split_is_a_dataset_with_its_pairs_and_scenes(tmp_path: Path) -> None:
    rows = [
        ROW,
        replace(ROW, id="c/b"),
        replace(ROW, id="c/x", scene="c/x", refused="it is damaged"),
        replace(ROW, id="c/v", scene="c/v", split="val"),
    ]
    patch_set, _ = publish_rows(STORAGE.locate(tmp_path / "photos"), rows)
    train, val = patch_set_inputs(patch_set, ("train", "val"))
    assert (train.dataset.name, train.dataset.digest) == ("photos train", "v1")
    assert json.loads(train.dataset.source) == {"uri": patch_set.uri}
    assert json.loads(train.dataset.profile) == {
        "pairs": 2,
        "scenes": 1,
        "patches": 9,
        "patch_size": 32,
    }
    assert json.loads(val.dataset.profile)["pairs"] == 1
    contexts = [(tag.key, tag.value) for used in (train, val) for tag in used.tags]
    assert contexts == [
        ("mlflow.data.context", "training"),
        ("mlflow.data.context", "evaluation"),
    ]
    columns = json.loads(train.dataset.schema)["mlflow_colspec"]
    assert [column["name"] for column in columns] == ["noisy", "clean", "pair", "y", "x"]


def test_pairs_of_corpora_are_a_dataset_whose_digest_is_that_of_their_contents() -> None:
    rows = [replace(ROW, id=f"c/{n}", noisy_hash=f"n{n}", clean_hash=f"c{n}") for n in range(2)]
    (used,) = pair_inputs(rows, ["sidd=s3://bucket/SIDD", "pairs:lab=/photos"])
    assert (used.dataset.name, used.dataset.source_type) == ("sidd, lab", "s3")
    assert json.loads(used.dataset.source) == {"uris": ["s3://bucket/SIDD", "/photos"]}
    assert json.loads(used.dataset.profile) == {"pairs": 2, "scenes": 1}
    assert [(tag.key, tag.value) for tag in used.tags] == [("mlflow.data.context", "evaluation")]
    moved = [replace(row, id=f"d/{row.id}", noisy="/elsewhere") for row in reversed(rows)]
    (same,) = pair_inputs(moved, ["sidd=/copy"])
    assert same.dataset.digest == used.dataset.digest
    (other,) = pair_inputs([replace(rows[0], noisy_hash="x"), rows[1]], ["sidd=/copy"])
    assert other.dataset.digest != used.dataset.digest
