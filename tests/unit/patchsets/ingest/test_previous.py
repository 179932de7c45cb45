"""The previous set: pairs with unchanged files keep their shard, unread."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from unit.patchset_support import GEOMETRY, MANIFEST, RULES, STORAGE, publish_rows, shard

from degrain.corpora.record import PairRecord
from degrain.patchsets import manifest
from degrain.patchsets.check_rules import CheckRules
from degrain.patchsets.geometry import PatchGeometry
from degrain.patchsets.ingest.config import IngestConfig
from degrain.patchsets.ingest.parallel import make_chunks
from degrain.patchsets.ingest.previous import Previous
from degrain.patchsets.manifest import cutter
from degrain.storage.location import Location


@pytest.fixture
def root(tmp_path: Path) -> Location:
    return STORAGE.locate(tmp_path / "set")


KEY = "shard1"
CONFIG = IngestConfig(corpus=["pairs=/x"], out="o", geometry=GEOMETRY, rules=RULES)


def known_pair(name: str, split: str = "val", **known: Any) -> PairRecord:  # noqa: ANN401
    usual: dict[str, Any] = {
        "id": f"c/{name}",
        "corpus": "c",
        "scene": "c/s",
        "noisy": f"/{name}.png",
        "clean": "/c.png",
        "stamp": "1@1 2@2",
        "encoded_bytes": 7,
    }
    return PairRecord(split=split, **{**usual, **known})


@pytest.fixture
def previous(root: Location) -> Previous:
    """Two pairs in one shard, one that was refused, and a duplicate."""
    (root / "shards" / f"{KEY}.parquet").write_bytes(b"x" * 100)
    rows = [
        known_pair(n, split="train", shard=KEY, noisy_hash=n, height=16, width=16, patches=1)
        for n in "ab"
    ]
    rows.append(known_pair("bad", split="train", refused="it is damaged"))
    rows.append(known_pair("copy", split="train", refused="a copy", duplicate_of="c/a"))
    known = replace(MANIFEST, geometry=GEOMETRY, rules=RULES, shards=[shard(KEY, patches=2)])
    publish_rows(root, rows, known)
    return Previous.read(root)


PAIRS = [known_pair(name) for name in ("a", "b", "bad", "copy")]
A, B, BAD, COPY = PAIRS


def pending(
    previous: Previous, pairs: list[PairRecord], root: Location, config: IngestConfig = CONFIG
) -> list[str]:
    return [p.id.removeprefix("c/") for p in previous.find_reuse(pairs, config, root).pending]


def test_unchanged_pairs_keep_their_shard_unread(previous: Previous, root: Location) -> None:
    reuse = previous.find_reuse(PAIRS, CONFIG, root)
    kept = reuse.shards()
    assert {o.shard.key if o.shard else None: [row.id for row in o.records] for o in kept} == {
        KEY: ["c/a", "c/b"],
        None: ["c/copy"],
    }
    rows = {row.id: row for o in kept for row in o.records}
    assert rows["c/a"] == replace(previous.records["c/a"], split="val", encoded_bytes=7)
    assert rows["c/copy"].refused == "a copy"
    assert [o.shard.split for o in kept if o.shard] == ["val"]


def test_refused_pairs_are_read_again(previous: Previous, root: Location) -> None:
    assert pending(previous, PAIRS, root) == ["bad"]


def test_a_shard_with_missing_or_changed_pairs_is_cut_again(
    previous: Previous, root: Location
) -> None:
    assert pending(previous, [A, BAD], root) == ["a", "bad"]
    assert pending(previous, [*PAIRS, known_pair("new")], root) == ["bad", "new"]
    for other in (
        replace(B, stamp="1@9 2@2"),
        replace(B, stamp=""),
        replace(B, scene="c/s2"),
        replace(B, noise="gaussian:5"),
        # Own pairs get the exposure of the noisy photo, those of a published corpus do not.
        replace(B, own=True),
        # Another file under the pair's name, of equal size and time.
        replace(B, noisy="/other/b.png"),
        replace(B, clean="/other/c.png"),
    ):
        assert pending(previous, [A, other], root) == ["a", "b"]
    assert pending(previous, [A, B, replace(COPY, noisy="/other/copy.png")], root) == ["copy"]


def test_a_shard_that_is_missing_or_was_changed_is_read_again(
    previous: Previous, root: Location
) -> None:
    file = Path((root / "shards" / f"{KEY}.parquet").path)
    for content in (b"x" * 99, b"y" * 100, None):
        file.unlink() if content is None else file.write_bytes(content)
        assert pending(previous, PAIRS, root) == ["a", "b", "bad"]


def test_a_shard_that_is_older_than_the_set_is_not_read(previous: Previous, root: Location) -> None:
    os.utime((root / "shards" / f"{KEY}.parquet").path, ns=(previous.since, previous.since))
    assert pending(previous, PAIRS, root) == ["bad"]


def test_another_cutter_other_rules_and_geometry_read_everything_again(
    previous: Previous, root: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = ["a", "b", "bad", "copy"]
    assert pending(previous, PAIRS, root, replace(CONFIG, rules=CheckRules())) == every
    other = replace(CONFIG, geometry=PatchGeometry(patch_size=16, stride=8))
    assert pending(previous, PAIRS, root, other) == every
    assert pending(previous, PAIRS, root, replace(CONFIG, reread=True)) == every
    with monkeypatch.context() as patched:
        patched.setattr(manifest, "CUTTER_VERSION", 99)
        assert pending(previous, PAIRS, root) == every
    other_codecs = {**cutter(), "imagecodecs": "1"}
    monkeypatch.setattr(manifest, "_versions", lambda: other_codecs)
    assert pending(previous, PAIRS, root) == every


def test_what_is_read_again_is_cut_into_the_former_shards(
    previous: Previous, root: Location
) -> None:
    for config in (replace(CONFIG, reread=True), CONFIG):
        Path((root / "shards" / f"{KEY}.parquet").path).write_bytes(b"changed")
        reuse = previous.find_reuse([*PAIRS, known_pair("new")], config, root)
        numbers = dict(zip((p.id for p in reuse.pending), reuse.together.tolist(), strict=True))
        assert numbers["c/a"] == numbers["c/b"] == 0
        assert {numbers["c/bad"], numbers["c/new"]} == {-1}
        chunks = make_chunks(reuse.pending, reuse.together)
        assert ["c/a", "c/b"] in [[pair.id for pair in chunk] for chunk in chunks]
    left = previous.find_reuse([A, BAD], CONFIG, root)
    assert left.together.tolist() == [-1, -1]


def test_without_a_set_there_is_nothing_to_reuse(tmp_path: Path, root: Location) -> None:
    none = Previous.read(STORAGE.locate(tmp_path / "none"))
    assert none == Previous()
    assert pending(none, PAIRS, root) == ["a", "b", "bad", "copy"]


def test_a_set_without_manifest_still_has_its_records(previous: Previous, root: Location) -> None:
    (root / "v1" / "manifest.json").write_bytes(b"torn")
    broken = Previous.read(root)
    assert broken == replace(previous, manifest=None, since=0)
    reuse = broken.find_reuse(PAIRS, CONFIG, root)
    assert list(reuse.pending) == PAIRS
    assert reuse.together.tolist() == [0, 0, -1, -1]


def test_a_set_without_catalog_still_has_its_shards(previous: Previous, root: Location) -> None:
    catalog_of(root).write_bytes(b"PAR1")
    broken = Previous.read(root)
    assert (broken.manifest, broken.catalog) == (previous.manifest, [])  # no shard is one
    assert pending(broken, PAIRS, root) == ["a", "b", "bad", "copy"]
    (root / "v1" / "manifest.json").write_bytes(b"torn")
    assert Previous.read(root) == Previous()


def test_without_a_pointer_the_newest_set_is_found_and_nothing_of_it_is_trusted(
    previous: Previous, root: Location
) -> None:
    assert previous.manifest is not None
    publish_rows(root, [known_pair("a", split="train")], replace(previous.manifest, version="v2"))
    os.utime((root / "v1" / "manifest.json").path, ns=(1, 1))
    newest = Previous.read(root)
    (root / "current.json").write_bytes(b"torn")
    assert Previous.read(root) == replace(newest, since=0)
    for version in ("v1", "v2"):
        (root / version / "manifest.json").write_bytes(b"torn")
    assert Previous.read(root) == Previous()


def catalog_of(root: Location) -> Path:
    (file,) = Path((root / "v1").path).glob("catalog-*")
    return file
