"""The previous set: pairs with unchanged files keep their shard, unread."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from unit.patchset_support import GEOMETRY, MANIFEST, RULES, STORAGE, shard
from unit.support import pair_record

from degrain.corpora.record import PairRecord
from degrain.errors import UserError
from degrain.patchsets.check_rules import CheckRules
from degrain.patchsets.geometry import PatchGeometry
from degrain.patchsets.ingest.config import IngestConfig
from degrain.patchsets.ingest.previous import Previous
from degrain.patchsets.ingest.publish import publish
from degrain.storage.location import Location


@pytest.fixture
def root(tmp_path: Path) -> Location:
    return STORAGE.locate(tmp_path / "set")


KEY = "shard1"
CONFIG = IngestConfig(corpus=["pairs=/x"], out="o", geometry=GEOMETRY, rules=RULES)


def known_pair(name: str, stamp: str = "1@1 2@2") -> PairRecord:
    return PairRecord(
        id=f"c/{name}",
        corpus="c",
        scene="c/s",
        split="val",
        noisy=f"/{name}.png",
        clean="/c.png",
        stamp=stamp,
    )


@pytest.fixture
def previous(root: Location) -> Previous:
    """Two pairs in one shard and one that was refused."""
    (root / "shards" / f"{KEY}.parquet").write_bytes(b"x" * 100)
    rows = [
        pair_record(id=f"c/{n}", scene="c/s", stamp="1@1 2@2", shard=KEY, noisy_hash=n)
        for n in "ab"
    ]
    rows.append(
        pair_record(id="c/bad", scene="c/s", stamp="1@1 2@2", refused="it is damaged", patches=0)
    )
    manifest = replace(MANIFEST, geometry=GEOMETRY, rules=RULES, shards=[shard(KEY, patches=2)])
    publish(root, manifest, rows)
    return Previous.read(root)


PAIRS = [known_pair("a"), known_pair("b"), known_pair("bad")]


def pending(
    previous: Previous, pairs: list[PairRecord], config: IngestConfig, root: Location
) -> list[str]:
    return [p.id for p in previous.reuse(pairs, config, root)[1]]


def test_unchanged_pairs_keep_their_shard_unread(previous: Previous, root: Location) -> None:
    kept, left = previous.reuse(PAIRS, CONFIG, root)
    assert left == []
    assert {o.shard.key if o.shard else None: [row.id for row in o.records] for o in kept} == {
        KEY: ["c/a", "c/b"],
        None: ["c/bad"],
    }
    rows = {row.id: row for o in kept for row in o.records}
    assert rows["c/a"] == replace(
        previous.records["c/a"], corpus="c", split="val", noisy="/a.png", clean="/c.png"
    )
    assert rows["c/bad"].refused == "it is damaged"
    assert Counter(o.shard.split for o in kept if o.shard) == {"val": 1}


def test_a_shard_with_missing_or_changed_pairs_is_cut_again(
    previous: Previous, root: Location
) -> None:
    assert pending(previous, [PAIRS[0], PAIRS[2]], CONFIG, root) == ["c/a"]
    assert pending(previous, [*PAIRS, known_pair("new")], CONFIG, root) == ["c/new"]
    for stamp in ("1@9 2@2", ""):
        assert pending(previous, [PAIRS[0], known_pair("b", stamp), PAIRS[2]], CONFIG, root) == [
            "c/a",
            "c/b",
        ]
        assert pending(previous, [*PAIRS[:2], known_pair("bad", stamp)], CONFIG, root) == ["c/bad"]
    for other in (replace(PAIRS[1], scene="c/s2"), replace(PAIRS[1], noise="gaussian:5")):
        assert [p.id for p in previous.reuse([PAIRS[0], other], CONFIG, root)[1]] == [
            "c/a",
            "c/b",
        ]


def test_a_damaged_shard_is_cut_again(previous: Previous, root: Location) -> None:
    (root / "shards" / f"{KEY}.parquet").write_bytes(b"x" * 99)
    assert pending(previous, PAIRS, CONFIG, root) == ["c/a", "c/b"]
    Path((root / "shards" / f"{KEY}.parquet").path).unlink()
    assert pending(previous, PAIRS, CONFIG, root) == ["c/a", "c/b"]


def test_other_rules_or_geometry_read_everything_again(previous: Previous, root: Location) -> None:
    for config in (
        replace(CONFIG, rules=CheckRules()),
        replace(CONFIG, geometry=PatchGeometry(patch_size=16, stride=8)),
    ):
        assert previous.reuse(PAIRS, config, root) == ([], PAIRS)


def test_a_previous_set_without_manifest_still_has_its_records(
    previous: Previous, root: Location, tmp_path: Path
) -> None:
    assert Previous.read(STORAGE.locate(tmp_path / "none")) == Previous()
    (root / "v1" / "manifest.json").write_bytes(b"torn")
    broken = Previous.read(root)
    assert broken == Previous(previous.catalog, None)
    assert broken.reuse(PAIRS, CONFIG, root) == ([], PAIRS)
    (root / "v1" / "catalog.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"cannot read '.+catalog\.parquet'"):
        Previous.read(root)
