"""Duplicates: a photo counts once, and never in two scenes."""

from dataclasses import replace

from unit.patchset_support import shard
from unit.support import pair_record

from degrain.corpora.record import PairRecord
from degrain.patchsets.ingest.cut import CutShard
from degrain.patchsets.ingest.duplicates import Duplicate, find_duplicates, resolve_duplicates


def test_a_noisy_photo_counts_once() -> None:
    first, copy = (
        pair_record(id="a/1", scene="a/s", noisy="/1.png"),
        pair_record(id="a/2", scene="a/s"),
    )
    reason = "/a/noisy.png: it has the pixels of /1.png, which is in the set"
    expected = {"a/2": Duplicate("a/1", reason)}
    assert find_duplicates([copy, first], {}) == expected
    # The pair of the previous set stays, even if another comes first by id.
    assert set(find_duplicates([first, copy], {"a/2": copy})) == {"a/1"}
    refused = replace(copy, refused=reason, duplicate_of="a/1")
    assert find_duplicates([first, refused], {"a/1": first, "a/2": refused}) == expected
    assert find_duplicates([refused], {"a/2": refused}) == {}
    assert find_duplicates([first, replace(copy, refused="it is damaged")], {}) == {}


def test_a_refusal_that_quotes_the_duplicate_reason_is_no_duplicate() -> None:
    first, copy = pair_record(id="a/1"), pair_record(id="a/2", refused="it has the pixels of x")
    assert find_duplicates([first, copy], {}) == {}


def test_a_photo_of_two_scenes_stays_in_the_first() -> None:
    rows = [
        pair_record(id="a/1", scene="a/s", noisy_pixels="n1", clean_pixels="c"),
        pair_record(id="a/2", scene="a/s", noisy_pixels="n2", clean_pixels="c"),
        pair_record(id="b/1", scene="b/t", noisy_pixels="n3", clean_pixels="c"),
        pair_record(id="b/2", scene="b/t", noisy_pixels="c", clean_pixels="d"),
        pair_record(id="b/3", scene="b/t", noisy_pixels="n5", clean_pixels="n2"),
        pair_record(id="b/4", scene="b/t", noisy_pixels="n6", clean_pixels="d"),
    ]
    duplicates = find_duplicates(rows, {})
    assert set(duplicates) == {"b/1", "b/2", "b/3"}
    assert all(
        "it has the pixels of a photo of another scene, a/s" in duplicate.reason
        for duplicate in duplicates.values()
    )
    assert {duplicate.of for duplicate in duplicates.values()} <= {"a/1", "a/2"}


def cut_record(name: str, scene: str = "a/s", **known: object) -> PairRecord:
    return pair_record(id=name, scene=scene, noisy_pixels=name, clean_pixels=f"c{name}", **known)


def test_a_shard_that_holds_a_duplicate_is_cut_again_without_it() -> None:
    first = cut_record("a/1", shard="k1")
    rest, copy = cut_record("b/1", "b/t", shard="k2"), cut_record("b/2", "b/t", shard="k2")
    copy = replace(copy, noisy_pixels=first.noisy_pixels)
    kept = CutShard([first], shard("k1"))
    resolved = resolve_duplicates([kept, CutShard([rest, copy], shard("k2"))], {})
    assert resolved.shards[0] == kept
    (refused,) = resolved.shards[1].records
    assert (resolved.shards[1].shard, refused.duplicate_of, refused.patches) == (None, "a/1", 0)
    assert [[pair.id for pair in chunk] for chunk in resolved.chunks] == [["b/1"]]
    assert resolved.chunks[0][0].shard is None


def test_pairs_that_are_no_longer_duplicates_are_cut_scene_by_scene() -> None:
    freed = [
        cut_record(f"{scene}/1", f"{scene}/s", refused="copy", duplicate_of="gone", patches=0)
        for scene in ("a", "b")
    ]
    damaged = cut_record("a/2", refused="it is damaged", patches=0)
    resolved = resolve_duplicates([CutShard([*freed, damaged], None)], {})
    assert [[pair.id for pair in chunk] for chunk in resolved.chunks] == [["a/1"], ["b/1"]]
    assert all(p.refused is None and p.duplicate_of is None for c in resolved.chunks for p in c)
    assert [record.id for shard_ in resolved.shards for record in shard_.records] == ["a/2"]
