"""Splits: no scene crosses them, none is moved, and each has some of every camera."""

import re
from collections import Counter, defaultdict
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.support import pair_record

from degrain.corpora.record import PairRecord
from degrain.errors import UserError
from degrain.patchsets.ingest.duplicates import find_duplicates
from degrain.patchsets.splits import SPLITS, assign_splits, scene_rank


def pair(
    scene: str,
    split: str = "",
    number: int = 0,
    corpus: str = "c",
    camera: str | None = None,
) -> PairRecord:
    return PairRecord(
        id=f"{corpus}/{scene}/{number}",
        corpus=corpus,
        scene=f"{corpus}/{scene}",
        camera=camera,
        noisy=f"{scene}/{number}.png",
        clean=f"{scene}/c.png",
        split=split,
    )


def pairs_of(scenes: set[str]) -> list[PairRecord]:
    return [pair(scene) for scene in sorted(scenes)]


def in_split(splits: dict[str, str], split: str) -> set[str]:
    return {scene.removeprefix("c/") for scene, where in splits.items() if where == split}


names = st.text("abcdefghij0123456789_- é", min_size=1, max_size=8)
scene_sets = st.sets(names, min_size=3, max_size=30)


@settings(max_examples=300, deadline=None)
@given(scenes=scene_sets)
def test_from_three_scenes_on_every_split_has_some(scenes: set[str]) -> None:
    splits = assign_splits(pairs_of(scenes))
    assert set(splits) == {f"c/{s}" for s in scenes}
    assert set(splits.values()) == set(SPLITS)


@settings(max_examples=200, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 6), min_size=1, max_size=6).filter(lambda sizes: sum(sizes) >= 3)
)
def test_several_small_corpora_have_enough_together(sizes: list[int]) -> None:
    pairs = [
        pair(f"s{i}", corpus=f"corpus{number}")
        for number, size in enumerate(sizes)
        for i in range(size)
    ]
    assert set(assign_splits(pairs).values()) == set(SPLITS)


@pytest.mark.parametrize(
    ("scenes", "held"), [(3, 1), (8, 1), (9, 3), (22, 3), (30, 3), (34, 3), (36, 4)]
)
def test_from_nine_scenes_on_three_are_held_out(scenes: int, held: int) -> None:
    counts = Counter(assign_splits([pair(f"s{i}") for i in range(scenes)]).values())
    assert counts == {"train": scenes - 2 * held, "val": held, "test": held}
    for corpora in (2, 3):
        pairs = [pair(f"s{i}", corpus=f"c{i % corpora}") for i in range(scenes)]
        counts = Counter(assign_splits(pairs).values())
        assert min(counts["val"], counts["test"]) >= min(held, 3)
        assert counts["train"] >= scenes // 3


def test_shares_may_be_others() -> None:
    pairs = [pair(f"s{i}") for i in range(40)]
    splits = assign_splits(pairs, shares={"val": 0.05, "test": 0.25})
    assert Counter(splits.values()) == {"train": 27, "val": 3, "test": 10}


def test_each_corpus_of_three_scenes_is_held_out_from() -> None:
    pairs = [
        pair(f"s{i}", corpus=corpus)
        for corpus, size in (("a", 12), ("b", 10), ("c", 2), ("d", 3))
        for i in range(size)
    ]
    splits = assign_splits(pairs)
    held = {
        split: sorted(s.split("/")[0] for s, where in splits.items() if where == split)
        for split in ("val", "test")
    }
    assert held == {"val": ["a", "b", "d"], "test": ["a", "b", "d"]}


def test_every_camera_is_held_out() -> None:
    pairs = [pair(f"{camera}{i}", camera=camera) for camera in "abcde" for i in range(10)]
    splits = assign_splits(pairs)
    for split in ("val", "test"):
        assert sorted(scene[0] for scene in in_split(splits, split)) == list("abcde")


@settings(max_examples=50, deadline=None)
@given(cameras=st.lists(st.sampled_from("abcd"), min_size=30, max_size=120))
def test_the_share_of_each_camera_is_near_a_tenth(cameras: list[str]) -> None:
    pairs = [pair(f"s{i}", camera=camera) for i, camera in enumerate(cameras)]
    splits = assign_splits(pairs)
    for split in ("val", "test"):
        assert len(in_split(splits, split)) == max(3, round(len(cameras) / 10))
        held = Counter(p.camera for p in pairs if splits[p.scene] == split)
        assert all(
            abs(held[camera] - number / 10) <= 1 for camera, number in Counter(cameras).items()
        )


@settings(max_examples=40, deadline=None)
@given(scenes=scene_sets, seed=st.integers(0, 99))
def test_splits_are_those_of_looking_at_every_scene_each_time(scenes: set[str], seed: int) -> None:
    """The queue in `splits` is a short cut for the nearest of all scenes."""
    random = np.random.default_rng(seed)
    pairs = [
        pair(s, number=n, camera="abc"[random.integers(3)])
        for s in sorted(scenes)
        for n in range(random.integers(1, 5))
    ]
    cameras = {f"c/{s}": Counter(p.camera for p in pairs if p.scene == f"c/{s}") for s in scenes}
    total = Counter(p.camera for p in pairs)
    test: list[str] = []

    def distance(chosen: list[str]) -> float:
        return sum(abs(sum(cameras[s][c] for s in chosen) - total[c] / 10) for c in total)

    while len(test) < max(1 if len(scenes) < 9 else 3, round(len(scenes) / 10)):
        left = sorted((s for s in cameras if s not in test), key=scene_rank)
        test.append(min(left, key=lambda s: round(distance([*test, s]), 6)))
    assert in_split(assign_splits(pairs), "test") == {s.removeprefix("c/") for s in test}


def test_pairs_of_a_scene_stay_together_and_their_order_does_not_matter() -> None:
    pairs = [pair(f"s{i % 5}", number=i) for i in range(20)]
    splits = assign_splits(pairs)
    assert len(splits) == 5
    assert assign_splits(pairs[::-1]) == splits


def test_most_scenes_train() -> None:
    splits = assign_splits([pair(f"scene {i}") for i in range(2000)])
    for split, share in (("train", 0.8), ("val", 0.1), ("test", 0.1)):
        assert len(in_split(splits, split)) == share * 2000


def test_prescribed_splits_are_kept() -> None:
    prescribed = {"a": "val", "b": "test", "c": "train", "d": "train"}
    splits = assign_splits([pair(s, split) for s, split in prescribed.items()])
    assert splits == {f"c/{s}": split for s, split in prescribed.items()}


@settings(max_examples=100, deadline=None)
@given(scenes=st.sets(names, min_size=5, max_size=30), data=st.data())
def test_named_scenes_are_their_split_exactly(scenes: set[str], data: st.DataObject) -> None:
    ordered = data.draw(st.permutations(sorted(scenes)))
    val, test = set(ordered[:2]), {ordered[2]}
    splits = assign_splits(pairs_of(scenes), val_scenes=sorted(val), test_scenes=sorted(test))
    assert in_split(splits, "val") == val
    assert in_split(splits, "test") == test
    assert in_split(splits, "train") == scenes - val - test


@pytest.mark.parametrize("prefix", ["", "c/"])
def test_scenes_are_named_with_or_without_their_corpus(prefix: str) -> None:
    splits = assign_splits(
        pairs_of({"a", "b", "x", "y"}), val_scenes=[f"{prefix}a"], test_scenes=[f"{prefix}b"]
    )
    assert (in_split(splits, "val"), in_split(splits, "test")) == ({"a"}, {"b"})


def test_named_scenes_win_over_what_was_before() -> None:
    previous = {"c/a": "val", "c/b": "test", "c/x": "train", "c/y": "train"}
    splits = assign_splits(
        pairs_of({"a", "b", "x", "y"}), previous=previous, val_scenes=["x"], test_scenes=["y"]
    )
    assert splits == {"c/a": "train", "c/b": "train", "c/x": "val", "c/y": "test"}


def test_named_scenes_win_over_the_prescribed_and_are_alone_in_their_split() -> None:
    prescribed = {"a": "val", "b": "test", "x": "train", "y": "train"}
    splits = assign_splits([pair(s, split) for s, split in prescribed.items()], val_scenes=["x"])
    assert in_split(splits, "val") == {"x"}
    assert in_split(splits, "test") == {"b"}


@settings(max_examples=200, deadline=None)
@given(before=scene_sets, added=st.sets(names, max_size=20), data=st.data())
def test_adding_scenes_moves_none(before: set[str], added: set[str], data: st.DataObject) -> None:
    previous = assign_splits(pairs_of(before))
    gone = data.draw(st.sets(st.sampled_from(sorted(added)))) if added else set()
    splits = assign_splits(pairs_of(before | added), previous=previous)
    assert {scene: splits[scene] for scene in previous} == previous
    again = assign_splits(pairs_of(before | added - gone), previous=splits)
    assert again == {scene: splits[scene] for scene in again}


def test_new_scenes_fill_the_share_of_a_larger_corpus() -> None:
    few = [pair(f"s{i}") for i in range(10)]
    previous = assign_splits(few)
    splits = assign_splits([*few, *(pair(f"t{i}") for i in range(40))], previous=previous)
    assert Counter(splits.values()) == {"train": 40, "val": 5, "test": 5}


def test_scenes_that_trained_are_not_held_out_when_there_are_nine() -> None:
    few = [pair(f"s{i}") for i in range(8)]
    previous = assign_splits(few)
    assert Counter(previous.values()) == {"train": 6, "val": 1, "test": 1}
    splits = assign_splits([*few, *(pair(f"t{i}") for i in range(4))], previous=previous)
    assert Counter(splits.values()) == {"train": 6, "val": 3, "test": 3}


@pytest.mark.parametrize(("count", "held"), [(1, 0), (2, 0), (3, 1), (30, 3)])
def test_scenes_of_a_new_camera_get_a_share_of_val_and_test(count: int, held: int) -> None:
    known = [pair(f"s{i}", camera="A") for i in range(400)]
    previous = assign_splits(known)
    # More held-out scenes than the larger corpus needs.
    previous |= {f"c/s{i}": "test" if i % 2 else "val" for i in range(160)}
    new = [pair(f"t{i}", camera="B") for i in range(count)]
    splits = assign_splits([*known, *new], previous=previous)
    counts = Counter(split for scene, split in splits.items() if scene.startswith("c/t"))
    assert (counts["val"], counts["test"]) == (held, held)
    assert {scene: splits[scene] for scene in previous} == previous
    # The next delivery of the camera is not that of a new one.
    more = [*known, *new, *(pair(f"u{i}", camera="B") for i in range(3))]
    again = assign_splits(more, previous=splits)
    assert {again[f"c/u{i}"] for i in range(3)} == {"train"} or count < 3


def test_an_added_corpus_moves_no_scene_of_another() -> None:
    first = [pair(f"s{i}", corpus="a") for i in range(20)]
    previous = assign_splits(first)
    splits = assign_splits(
        [*first, *(pair(f"s{i}", corpus="b") for i in range(20))], previous=previous
    )
    assert {scene: splits[scene] for scene in previous} == previous
    assert Counter(split for scene, split in splits.items() if scene.startswith("b/")) == {
        "train": 16,
        "val": 2,
        "test": 2,
    }


def test_scenes_that_went_away_are_forgotten() -> None:
    splits = assign_splits(pairs_of({"a", "b", "x"}), previous={"c/gone": "test", "c/a": "test"})
    assert "c/gone" not in splits
    assert splits["c/a"] == "test"


@pytest.mark.parametrize("count", [1, 2])
def test_fewer_than_three_scenes_are_too_few(count: int) -> None:
    scenes = [f"s{i}" for i in range(count)]
    with pytest.raises(
        UserError,
        match=rf"the corpus has {count} scenes \({', '.join(scenes)}\); at least 3 are needed",
    ):
        assign_splits([pair(s) for s in scenes])


def test_an_unknown_named_scene_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(UserError, match=re.escape("there is no scene 'd'; scenes are a, b, c")):
        assign_splits(pairs_of({"a", "b", "c"}), val_scenes=["d"])


def test_many_scenes_are_not_all_listed() -> None:
    with pytest.raises(UserError, match=r"scenes are s00, .*s07 and 12 more$"):
        assign_splits(pairs_of({f"s{i:02}" for i in range(20)}), val_scenes=["x"])


def test_a_scene_is_named_for_one_split_only() -> None:
    with pytest.raises(UserError, match="scene 'a' is named for both val and test"):
        assign_splits(pairs_of({"a", "b", "c"}), val_scenes=["a"], test_scenes=["a"])


def test_naming_all_scenes_leaves_none_to_train_on() -> None:
    with pytest.raises(UserError, match="no scene is left for the train split"):
        assign_splits(pairs_of({"a", "b", "c"}), val_scenes=["a", "b"], test_scenes=["c"])


def test_a_scene_of_several_corpora_is_named_in_full() -> None:
    pairs = [pair(scene, corpus=corpus) for corpus in "ab" for scene in ("x", "y", "z")]
    with pytest.raises(UserError, match="scene 'x' is in several corpora; write one of a/x, b/x"):
        assign_splits(pairs, val_scenes=["x"])
    assert in_split(assign_splits(pairs, val_scenes=["b/x"]), "val") == {"b/x"}


hashes = st.sampled_from([f"hash{i}" for i in range(14)])
found_pairs = st.lists(st.tuples(st.integers(0, 6), hashes, hashes), min_size=1, max_size=40)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(found=found_pairs, data=st.data())
def test_no_scene_and_no_content_is_in_two_splits(
    found: list[tuple[int, str, str]], data: st.DataObject
) -> None:
    pairs = [pair(f"s{scene}", number=n) for n, (scene, _, _) in enumerate(found)]
    pairs += [pair(f"alone{i}") for i in range(3)]
    contents = [(noisy, clean) for _, noisy, clean in found] + [
        (f"n{i}", f"c{i}") for i in range(3)
    ]
    splits = assign_splits(pairs)
    rows = [
        pair_record(
            id=p.id, scene=p.scene, split=splits[p.scene], noisy_hash=noisy, clean_hash=clean
        )
        for p, (noisy, clean) in zip(pairs, contents, strict=True)
    ]
    before = {
        row.id: row
        for row in data.draw(st.lists(st.sampled_from(rows), unique_by=lambda row: row.id))
    }
    duplicates = find_duplicates(rows, before)
    kept = [row for row in rows if row.id not in duplicates]
    assert kept
    where: dict[str, set[str]] = defaultdict(set)
    for row in kept:
        for key in (row.scene, row.noisy_hash, row.clean_hash):
            where[key].add(row.split)
    assert all(len(found_in) == 1 for found_in in where.values())
    assert len({row.noisy_hash for row in kept}) == len(kept)
    refused = [
        replace(row, refused=duplicate.reason, duplicate_of=duplicate.of)
        if (duplicate := duplicates.get(row.id))
        else row
        for row in rows
    ]
    assert find_duplicates(refused, {row.id: row for row in refused}).keys() == duplicates.keys()


@pytest.mark.parametrize("order", [("a", "b"), ("b", "a")])
@pytest.mark.parametrize("splits", [("train", "val"), ("val", "test"), ("train", "test")])
def test_scenes_of_one_subject_are_held_out_as_the_most_held_out_is(
    order: tuple[str, str], splits: tuple[str, str]
) -> None:
    names = [f"c/{name}" for name in "abcdefgh"]
    pairs = [pair_record(id=f"{name}/1", corpus="c", scene=name, split="") for name in names]
    before = {f"c/{name}": split for name, split in zip(order, splits, strict=True)}
    subjects = {name: "c/a" if name == "c/b" else name for name in names}
    found = assign_splits(pairs, subjects=subjects, previous=before)
    assert found["c/a"] == found["c/b"] == splits[1]
    prescribed = [replace(pair, split=before.get(pair.scene, "")) for pair in pairs]
    assert assign_splits(prescribed, subjects=subjects)["c/a"] == splits[1]
