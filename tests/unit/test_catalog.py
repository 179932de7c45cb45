"""The catalog, and the splits that no scene may cross."""

import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from degrain.data.catalog import SPLITS, CatalogRow, assign_splits, read_catalog, scene_fraction, write_catalog
from degrain.data.corpora import Pair
from degrain.errors import UserError

ROW = CatalogRow(
    id="pairs/noisy/ü 1%.png",
    corpus="pairs",
    scene="pairs/ü 1%",
    split="train",
    noisy="/a/noisy.png",
    clean="/a/clean.png",
    noisy_hash="00ff",
    clean_hash="",
    height=480,
    width=640,
    bit_depth=8,
    camera="S6",
    iso=3200,
    shutter="00060",
    brightness="L",
    refused=None,
    patches=15,
)
REFUSED = replace(
    ROW,
    id="pairs/noisy/a.png",
    height=None,
    width=None,
    bit_depth=None,
    camera=None,
    iso=None,
    shutter=None,
    brightness=None,
    refused="it is damaged",
    patches=0,
)


def test_round_trip_with_and_without_what_may_be_unknown() -> None:
    assert read_catalog(write_catalog([ROW, REFUSED])) == [REFUSED, ROW]


def test_equal_catalogs_are_equal_files() -> None:
    assert write_catalog([ROW, REFUSED]) == write_catalog([REFUSED, ROW])


def test_an_empty_catalog_is_read_back() -> None:
    assert read_catalog(write_catalog([])) == []


def pair(scene: str, split: str | None = None, number: int = 0) -> Pair:
    return Pair(
        id=f"c/{scene}/{number}",
        corpus="c",
        scene=f"c/{scene}",
        noisy=f"{scene}/{number}.png",
        clean=f"{scene}/c.png",
        split=split,
    )


def pairs_of(scenes: set[str]) -> list[Pair]:
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


def scenes_hashed_to(*wanted: tuple[float, float]) -> set[str]:
    """One scene for each range of the hash, found by trying names."""
    found: set[str] = set()
    for low, high in wanted:
        numbers = (f"s{i}" for i in range(10_000))
        found.add(next(s for s in numbers if s not in found and low <= scene_fraction(f"c/{s}") < high))
    return found


TEST, VAL, TRAIN = (0.0, 0.1), (0.1, 0.2), (0.2, 1.0)


@pytest.mark.parametrize(
    "ranges",
    [
        (TEST, VAL, TRAIN),
        (TRAIN, TRAIN, TRAIN),
        (TEST, TEST, TRAIN),
        (VAL, VAL, TRAIN),
        (TEST, TEST, TEST),
        (TEST, VAL, VAL),
    ],
    ids=["one each", "all train", "two test", "two val", "all test", "none train"],
)
def test_three_scenes_are_enough_however_they_hash(ranges: tuple[tuple[float, float], ...]) -> None:
    splits = assign_splits(pairs_of(scenes_hashed_to(*ranges)))
    assert sorted(splits.values()) == sorted(SPLITS)


def test_pairs_of_a_scene_stay_together_and_their_order_does_not_matter() -> None:
    pairs = [pair(f"s{i % 5}", number=i) for i in range(20)]
    splits = assign_splits(pairs)
    assert len(splits) == 5
    assert assign_splits(pairs[::-1]) == splits


def test_most_scenes_train() -> None:
    splits = assign_splits([pair(f"scene {i}") for i in range(2000)])
    for split, share in (("train", 0.8), ("val", 0.1), ("test", 0.1)):
        assert len(in_split(splits, split)) / 2000 == pytest.approx(share, abs=0.02)


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
    splits = assign_splits(pairs_of({"a", "b", "x", "y"}), val_scenes=[f"{prefix}a"], test_scenes=[f"{prefix}b"])
    assert (in_split(splits, "val"), in_split(splits, "test")) == ({"a"}, {"b"})


def test_named_scenes_win_over_what_was_before() -> None:
    previous = {"c/a": "val", "c/b": "test", "c/x": "train", "c/y": "train"}
    splits = assign_splits(pairs_of({"a", "b", "x", "y"}), previous=previous, val_scenes=["x"], test_scenes=["y"])
    assert splits == {"c/a": "train", "c/b": "train", "c/x": "val", "c/y": "test"}


def test_named_scenes_win_over_the_prescribed_and_are_alone_in_their_split() -> None:
    prescribed = {"a": "val", "b": "test", "x": "train", "y": "train"}
    splits = assign_splits([pair(s, split) for s, split in prescribed.items()], val_scenes=["x"])
    assert in_split(splits, "val") == {"x"}
    assert in_split(splits, "test") == {"b"}


@settings(max_examples=100, deadline=None)
@given(before=st.sets(names, min_size=20, max_size=30), added=st.sets(names, max_size=10))
def test_scenes_stay_in_their_split_when_others_are_added(before: set[str], added: set[str]) -> None:
    previous = assign_splits(pairs_of(before))
    splits = assign_splits(pairs_of(before | added), previous=previous)
    assert {scene: splits[scene] for scene in previous} == previous


def test_scenes_that_were_moved_to_fill_a_split_stay_there() -> None:
    few = scenes_hashed_to(TRAIN, TRAIN, TRAIN)
    previous = assign_splits(pairs_of(few))
    splits = assign_splits(pairs_of(few | scenes_hashed_to(TEST, VAL)), previous=previous)
    assert {scene: splits[scene] for scene in previous} == previous


@pytest.mark.parametrize("count", [1, 2])
def test_fewer_than_three_scenes_are_too_few(count: int) -> None:
    scenes = [f"s{i}" for i in range(count)]
    with pytest.raises(UserError, match=rf"the corpus has {count} scenes \({', '.join(scenes)}\); at least 3 are needed"):
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
