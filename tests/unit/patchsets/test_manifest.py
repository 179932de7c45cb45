"""The manifest: it survives JSON, and its version is a hash of content, splits and geometry."""

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.patchset_support import GEOMETRY, MANIFEST, ROW, RULES, shard
from unit.support import pair_record

from degrain.patchsets import manifest
from degrain.patchsets.check_rules import CheckRules
from degrain.patchsets.geometry import PatchGeometry
from degrain.patchsets.manifest import (
    Group,
    Manifest,
    digest,
    groups_of,
    set_version,
    split_chunks,
)
from degrain.storage.sealed import seal, unseal


def test_the_manifest_survives_json() -> None:
    assert Manifest.from_json(MANIFEST.to_json()) == MANIFEST


def test_the_manifest_counts_patches_by_split() -> None:
    assert (
        MANIFEST.patches(),
        MANIFEST.patches("train"),
        MANIFEST.patches("val"),
        MANIFEST.patches("test"),
    ) == (
        12,
        9,
        3,
        0,
    )
    assert json.loads(MANIFEST.to_json())["patches"] == {"train": 9, "val": 3}


def test_an_unknown_manifest_format_is_refused() -> None:
    raw = {**unseal(MANIFEST.to_json()), "format": 99}
    with pytest.raises(ValueError, match="format 99, but this version of degrain reads 3"):
        Manifest.from_json(seal(raw))


@settings(max_examples=100, deadline=None)
@given(sizes=st.lists(st.integers(1, 50), max_size=20), most=st.integers(1, 80))
def test_runs_of_shards_keep_order_and_bound(sizes: list[int], most: int) -> None:
    shards = [shard(str(i), size=s) for i, s in enumerate(sizes)]
    runs = list(split_chunks(shards, most))
    assert [s for run in runs for s in run] == shards
    assert all(run and (len(run) == 1 or sum(s.bytes for s in run) <= most) for run in runs)


OTHER = replace(ROW, id="c/b", scene="c/b", split="val")
SHARDS = [shard("k1"), shard("k2", "val")]
VERSION = set_version([ROW, OTHER], SHARDS, GEOMETRY, RULES)


def test_the_version_depends_on_all_that_a_training_reads() -> None:
    assert set_version([ROW, OTHER], SHARDS, GEOMETRY, CheckRules()) != VERSION
    other = PatchGeometry(patch_size=16, stride=8)
    assert set_version([ROW, OTHER], SHARDS, other, RULES) != VERSION
    for name in ("noisy_hash", "clean_hash", "split", "scene", "id", "refused", "camera"):
        changed = replace(ROW, **{name: "x"})
        assert set_version([changed, OTHER], SHARDS, GEOMETRY, RULES) != VERSION
    for name in ("iso", "move_x", "patches"):
        changed = replace(ROW, **{name: 7})
        assert set_version([changed, OTHER], SHARDS, GEOMETRY, RULES) != VERSION
    unpaired = replace(ROW, noisy=ROW.clean)
    assert set_version([unpaired, OTHER], SHARDS, GEOMETRY, RULES) != VERSION


def test_the_version_depends_on_the_shards_and_their_order() -> None:
    for shards in (
        SHARDS[::-1],
        SHARDS[:1],
        [shard("k1"), shard("k3", "val")],
        [shard("k1", "val"), shard("k2", "val")],
    ):
        assert set_version([ROW, OTHER], shards, GEOMETRY, RULES) != VERSION


def test_the_version_depends_on_the_cutter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "CUTTER_VERSION", 99)
    assert set_version([ROW, OTHER], SHARDS, GEOMETRY, RULES) != VERSION


def test_the_version_does_not_depend_on_places_times_and_rounding() -> None:
    for row in (
        replace(ROW, noisy="elsewhere", clean="too"),
        replace(ROW, stamp="1@9 1@9"),
        replace(ROW, shift_y=1e-9, exposure=1.0000001),
    ):
        assert set_version([row, OTHER], SHARDS, GEOMETRY, RULES) == VERSION
    bad = [replace(ROW, refused=f"/{where}/a.png: it is damaged") for where in "ab"]
    first, second = (set_version([row, OTHER], SHARDS, GEOMETRY, RULES) for row in bad)
    assert first == second != VERSION


def test_a_digest_ignores_the_order_of_keys() -> None:
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest([1, 2]) != digest([2, 1])


def test_corpora_of_a_split_weigh_the_same_and_so_do_the_groups_of_a_corpus() -> None:
    rows = [
        pair_record(corpus="a", camera="S6", iso=100, patches=30),
        pair_record(corpus="a", camera="S6", iso=100, patches=10),
        pair_record(corpus="a", camera=None, iso=None, patches=8),
        pair_record(corpus="b", camera="S6", iso=100, patches=12),
        pair_record(split="val", corpus="b", camera="S6", iso=100, patches=5),
        pair_record(split="val", corpus="z", patches=0, refused="it is damaged"),
    ]
    groups = groups_of(rows)
    assert groups_of(rows[::-1]) == groups
    train = [group for group in groups if group.split == "train"]
    assert sorted((g.corpus, g.camera or "", g.pairs, g.patches) for g in train) == [
        ("a", "", 1, 8),
        ("a", "S6", 2, 40),
        ("b", "S6", 1, 12),
    ]
    weights = {(g.corpus, g.camera): g.weight * g.patches for g in train}
    expected = {("a", None): 15, ("a", "S6"): 15, ("b", "S6"): 30}
    assert weights == pytest.approx(expected)
    assert sum(g.weight * g.patches for g in train) == pytest.approx(60)
    assert [g for g in groups if g.split == "val"] == [
        Group(split="val", corpus="b", camera="S6", iso=100, pairs=1, patches=5, weight=1.0)
    ]
