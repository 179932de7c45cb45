"""Packed records: what a list gives, in blocks of a few."""

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from unit.patchset_support import GEOMETRY, MANIFEST, RULES, STORAGE, publish_rows, shard

from degrain.corpora.record import PairRecord
from degrain.patchsets import packed
from degrain.patchsets.ingest import parallel
from degrain.patchsets.ingest.config import IngestConfig
from degrain.patchsets.ingest.parallel import make_chunks
from degrain.patchsets.ingest.previous import Previous
from degrain.patchsets.packed import PackedRecords, columns, select, sorted_by_id, transform
from degrain.patchsets.splits import assign_splits

CONFIG = IngestConfig(corpus=["pairs=/x"], out="o", geometry=GEOMETRY, rules=RULES)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "BLOCK_RECORDS", 4)
    monkeypatch.setattr(packed, "RUN_BLOCKS", 3)


def record(number: int) -> PairRecord:
    return PairRecord(
        id=f"c/{number:03}",
        corpus="c",
        scene=f"c/s{number % 7}",
        noisy=f"/ä{number}.png",
        clean=f"/{number % 5}.png",
        camera=("GP", "S6", None)[number % 3],
        iso=100 * number if number % 2 else None,
        encoded_bytes=number,
        stamp=f"{number}@1 2@2",
    )


OTHERS = [{"stamp": ""}, {"noise": "g:1"}, {"noisy": "/o.png"}, {"clean": "/o.png"}]
"""Changes of a pair that must be read again."""
RECORDS = [record(number) for number in range(50)]


@pytest.mark.parametrize("seed", range(3))
def test_records_are_sorted_in_runs(seed: int) -> None:
    shuffled = random.Random(seed).sample(RECORDS, len(RECORDS))
    found = sorted_by_id(shuffled)
    assert isinstance(found, PackedRecords)
    assert list(found) == RECORDS
    assert list(sorted_by_id(RECORDS)) == RECORDS
    assert sorted_by_id(shuffled[:3]) == sorted(shuffled[:3], key=lambda r: r.id)


def test_packed_records_give_what_a_list_gives() -> None:
    found = sorted_by_id(RECORDS)
    assert found == RECORDS
    assert len(found) == 50
    assert (found[0], found[17], found[-1]) == (RECORDS[0], RECORDS[17], RECORDS[-1])
    assert found[3:9] == RECORDS[3:9]
    with pytest.raises(IndexError):
        found[50]
    for each in (found, RECORDS):
        assert list(columns(each, "id", "iso")) == [(r.id, r.iso) for r in RECORDS]
        mask = np.array([r.iso is None for r in RECORDS])
        assert list(select(each, mask)) == [r for r in RECORDS if r.iso is None]
        changed = transform(
            each, lambda t: t.set_column(t.schema.get_field_index("stamp"), "stamp", t["id"])
        )
        assert list(changed) == [replace(r, stamp=r.id) for r in RECORDS]
    assert assign_splits(found) == assign_splits(RECORDS)


@pytest.mark.parametrize("seed", range(4))
def test_the_same_pairs_are_read_as_by_a_search_in_a_dictionary(seed: int, tmp_path: Path) -> None:
    draw = random.Random(seed)
    root = STORAGE.locate(tmp_path / "set")
    before = [
        replace(
            r,
            **(
                draw.choice([{"refused": "bad"}, {"refused": "copy", "duplicate_of": "c/000"}])
                if draw.random() < 0.2
                else {"shard": f"k{number // 4}", "patches": 2, "noisy_hash": f"n{number}"}
            ),
        )
        for number, r in enumerate(RECORDS)
        if draw.random() < 0.9
    ]
    shards = [shard(f"k{number}", patches=2) for number in range(13)]
    for each in shards:
        size = 99 if draw.random() < 0.1 else 100
        (root / "shards" / f"{each.key}.parquet").write_bytes(b"x" * size)
    manifest = replace(MANIFEST, geometry=GEOMETRY, rules=RULES, shards=shards)
    publish_rows(root, before, manifest)
    pairs = [
        replace(r, split="train", **draw.choice([{}] * 30 + OTHERS))
        for r in [*RECORDS, *(replace(record(n), id=f"c/{n:03}new") for n in range(9))]
        if draw.random() < 0.95
    ]
    previous = Previous.read(root)
    assert isinstance(previous.catalog, PackedRecords)
    reuse = previous.find_reuse(sorted_by_id(pairs), CONFIG, root)
    sizes = {name: stamp.size for name, stamp in (root / "shards").files().items()}
    good = {s.key for s in shards if sizes[f"{s.key}.parquet"] == s.bytes}
    expected_kept, expected_pending = by_dictionary(sorted_by_id(pairs), before, good)
    assert [p.id for p in reuse.pending] == expected_pending
    assert {
        shard.shard.key if shard.shard else None: list(shard.records) for shard in reuse.shards()
    } == expected_kept
    assert 0 < len(expected_pending) < len(pairs)
    assert len(expected_kept) > 1


def by_dictionary(
    pairs: Sequence[PairRecord], before: Sequence[PairRecord], shards: set[str]
) -> tuple[dict[str | None, list[PairRecord]], list[str]]:
    """The rule of reuse, with all records in memory."""
    records = {r.id: r for r in before}

    def same(pair: PairRecord) -> bool:
        old = records.get(pair.id)
        return (
            old is not None
            and pair.has_files_of(old)
            and (old.scene, old.noise) == (pair.scene, pair.noise)
        )

    unchanged = {p.id for p in pairs if same(p)}
    members: dict[str, set[str]] = defaultdict(set)
    for r in before:
        if r.shard is not None:
            members[r.shard].add(r.id)
    stays = {key for key, ids in members.items() if key in shards and ids <= unchanged}
    kept: dict[str | None, list[PairRecord]] = defaultdict(list)
    pending: list[str] = []
    for pair in pairs:
        old = records.get(pair.id)
        if (
            old is None
            or pair.id not in unchanged
            or (old.shard not in stays and old.duplicate_of is None)
        ):
            pending.append(pair.id)
        else:
            kept[old.shard].append(pair.with_measurements_of(old))
    return dict(kept), pending


def test_chunks_have_one_scene_and_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "_SHARD_BYTES", 60)
    for records in (RECORDS, sorted_by_id(RECORDS)):
        chunks = make_chunks(records)
        assert [c[0].scene for c in chunks] == sorted(c[0].scene for c in chunks)
        assert sorted((r for c in chunks for r in c), key=lambda r: r.id) == RECORDS
        for chunk in chunks:
            assert len({r.scene for r in chunk}) == 1
            assert len(chunk) == 1 or sum(r.encoded_bytes for r in chunk) <= 60
    assert make_chunks([]) == []
    assert [[r.id[2:] for r in c] for c in chunks[:3]] == [
        ["000", "007", "014", "021"],
        ["028"],
        ["035"],
    ]


def test_chunks_have_a_limited_number_of_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "_SHARD_PAIRS", 3)
    chunks = make_chunks(RECORDS)
    assert sorted((r for c in chunks for r in c), key=lambda r: r.id) == RECORDS
    # Fifty pairs of seven scenes.
    assert sorted(map(len, chunks)) == [1] * 6 + [2] + [3] * 14
    together = np.array([r.iso is None for r in RECORDS], np.int32) - 1
    apart = make_chunks(RECORDS, together)
    assert all(len({r.iso is None for r in chunk}) == 1 for chunk in apart)
    assert all(len({r.scene for r in chunk}) == 1 and len(chunk) <= 3 for chunk in apart)
