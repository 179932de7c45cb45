"""Patches: every pixel is in one, each comes from where it says, and a shard exists whole or not at all."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import imagecodecs
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from unit.support import catalog_row, natural_photo, random_photo, with_noise, write_png

from degrain.data import ingest, patches
from degrain.data.checks import CheckRules
from degrain.data.corpora import Pair
from degrain.data.ingest import IngestConfig, Previous, cut_chunk, find_repeats
from degrain.data.patches import (
    Group,
    Manifest,
    PatchGeometry,
    PatchSet,
    Shard,
    binary_column,
    column_patches,
    covered_pixels,
    cut,
    digest,
    groups_of,
    pair_tables,
    patched_pixels,
    publish,
    set_version,
    split_chunks,
)
from degrain.errors import UserError
from degrain.imaging.codecs import encode_png
from degrain.imaging.pixels import Photo
from degrain.storage import Location, Storage

STORAGE = Storage()
GEOMETRY = PatchGeometry(patch_size=16, stride=16)
RULES = CheckRules(alignment="ignore")
"""Alignment has tests of its own."""


def cut_all(photo: Photo, geometry: PatchGeometry = GEOMETRY) -> Photo:
    return cut(photo, geometry.starts(photo.shape[0]), geometry)


@pytest.mark.parametrize(
    ("size", "stride", "message"),
    [
        (15, 15, "--patch-size must be at least 16 pixels, got 15"),
        (32, 0, r"--stride must be between 1 and the patch size \(32\), .* got 0"),
        (32, 33, r"--stride must be between 1 and the patch size \(32\), .* got 33"),
    ],
)
def test_a_geometry_that_leaves_pixels_out_is_refused(size: int, stride: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PatchGeometry(patch_size=size, stride=stride)


geometries = st.integers(16, 24).flatmap(
    lambda size: st.integers(1, size).map(lambda stride: PatchGeometry(patch_size=size, stride=stride))
)


@settings(max_examples=200, deadline=None)
@given(geometry=geometries, side=st.integers(1, 120))
def test_patches_cover_a_side_and_the_last_is_flush(geometry: PatchGeometry, side: int) -> None:
    starts = geometry.starts(side)
    if side < geometry.patch_size:
        assert starts == []
        return
    assert starts[0] == 0
    assert starts[-1] == side - geometry.patch_size
    assert starts == sorted(set(starts))
    assert {p for s in starts for p in range(s, s + geometry.patch_size)} == set(range(side))
    assert all(s % geometry.stride == 0 for s in starts[:-1])
    assert len(starts) == 1 + -(-(side - geometry.patch_size) // geometry.stride)


@settings(max_examples=40, deadline=None)
@given(geometry=geometries, height=st.integers(24, 60), width=st.integers(24, 60), seed=st.integers(0, 99))
def test_patches_come_from_where_their_row_says(geometry: PatchGeometry, height: int, width: int, seed: int) -> None:
    noisy, clean = random_photo(height, width, seed), random_photo(height, width, seed + 1000)
    table = pa.concat_tables(pair_tables("c/a", noisy, clean, geometry, 8))
    side = geometry.patch_size
    seen = np.zeros((height, width), dtype=bool)
    columns = {"noisy": noisy, "clean": clean}
    patches = {name: column_patches(table[name], side, 8) for name in columns}
    for i, (y, x) in enumerate(zip(table["y"].to_pylist(), table["x"].to_pylist(), strict=True)):
        seen[y : y + side, x : x + side] = True
        for name, photo in columns.items():
            assert np.array_equal(patches[name][i], photo[y : y + side, x : x + side])
    assert seen.all()
    assert covered_pixels(height, width, geometry) == height * width
    assert set(table["pair"].to_pylist()) == {"c/a"}
    assert len(table) == len(geometry.starts(height)) * len(geometry.starts(width))


def test_a_cut_is_contiguous_bytes() -> None:
    patches = cut_all(natural_photo(40, 33))
    assert patches.shape == (3 * 3, 16, 16, 3)
    assert patches.dtype == np.uint8
    assert patches.flags.c_contiguous


def test_a_photo_smaller_than_a_patch_covers_nothing() -> None:
    assert covered_pixels(15, 100, GEOMETRY) == 0


def patches_of(count: int, side: int = 16) -> NDArray[np.uint8]:
    return np.random.default_rng(count).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def test_columns_round_trip() -> None:
    patches = patches_of(5)
    column = binary_column(patches)
    assert column[2].as_py() == patches[2].tobytes()
    assert np.array_equal(column_patches(column, 16, 8), patches)
    assert np.array_equal(column_patches(pa.chunked_array([column]), 16, 8), patches)


@pytest.mark.parametrize(("start", "stop"), [(0, 3), (2, 5), (4, 5)])
def test_sliced_columns_round_trip(start: int, stop: int) -> None:
    patches = patches_of(5)
    sliced = binary_column(patches).slice(start, stop - start)
    assert np.array_equal(column_patches(sliced, 16, 8), patches[start:stop])
    assert np.array_equal(column_patches(pa.chunked_array([sliced]), 16, 8), patches[start:stop])
    assert np.array_equal(binary_column(patches[start:stop])[0].as_py(), patches[start].tobytes())


def test_columns_of_several_chunks_are_joined_in_order() -> None:
    patches = patches_of(7)
    column = pa.chunked_array([binary_column(patches[:3]), binary_column(patches[:5]).slice(3), binary_column(patches[5:])])
    assert np.array_equal(column_patches(column, 16, 8), patches)


def test_columns_are_not_copied() -> None:
    patches = patches_of(3)
    assert np.shares_memory(column_patches(binary_column(patches).slice(1), 16, 8), patches)


def test_patches_of_a_column_are_read_only() -> None:
    stream = pa.BufferOutputStream()
    pq.write_table(pa.table({"noisy": binary_column(patches_of(3))}), stream)
    column = pq.read_table(pa.BufferReader(stream.getvalue()))["noisy"]
    assert not column_patches(column, 16, 8).flags.writeable


def shard(key: str = "k", split: str = "train", patches: int = 4, size: int = 100, bits: int = 8) -> Shard:
    return Shard(key=key, split=split, patches=patches, bits=bits, bytes=size)


MANIFEST = Manifest(
    version="v1",
    geometry=PatchGeometry(patch_size=32, stride=16),
    rules=CheckRules(alignment="refuse", max_shift=1.5, largest_megapixels=100),
    corpora=[["sidd", "sidd", "s3://b/SIDD ü"], ["pairs", "lab", "/a=b"]],
    shards=[shard("a"), shard("b", "val", 3), shard("c", patches=5, bits=16)],
    pairs=9,
    refused=1,
    covered=0.75,
    overlap=1.25,
    groups=groups_of([catalog_row(patches=9, camera="S6", iso=100), catalog_row(split="val", patches=3)]),
)


def test_the_manifest_survives_json() -> None:
    assert Manifest.from_json(MANIFEST.to_json()) == MANIFEST


def test_the_manifest_counts_patches_by_split() -> None:
    assert (MANIFEST.patches(), MANIFEST.patches("train"), MANIFEST.patches("val"), MANIFEST.patches("test")) == (
        12,
        9,
        3,
        0,
    )
    assert json.loads(MANIFEST.to_json())["patches"] == {"train": 9, "val": 3}


def test_an_unknown_manifest_format_is_refused() -> None:
    raw = {**json.loads(MANIFEST.to_json()), "format": 99}
    with pytest.raises(ValueError, match="format 99, but this version of degrain reads 1"):
        Manifest.from_json(json.dumps(raw).encode())


@settings(max_examples=100, deadline=None)
@given(sizes=st.lists(st.integers(1, 50), max_size=20), most=st.integers(1, 80))
def test_runs_of_shards_keep_order_and_bound(sizes: list[int], most: int) -> None:
    shards = [shard(str(i), size=s) for i, s in enumerate(sizes)]
    runs = list(split_chunks(shards, most))
    assert [s for run in runs for s in run] == shards
    assert all(run and (len(run) == 1 or sum(s.bytes for s in run) <= most) for run in runs)


ROW = catalog_row(id="c/a", corpus="c", scene="c/a")


def test_the_version_depends_on_content_split_and_geometry_alone() -> None:
    other = replace(ROW, id="c/b", scene="c/b", split="val")
    version = set_version([ROW, other], GEOMETRY, RULES)
    assert set_version([other, ROW], GEOMETRY, RULES) == version
    assert set_version([replace(ROW, noisy="elsewhere", clean="too"), other], GEOMETRY, RULES) == version
    assert set_version([ROW, other], GEOMETRY, CheckRules()) != version
    for changed in ("noisy_hash", "clean_hash", "split", "scene", "id", "refused"):
        assert set_version([replace(ROW, **{changed: "x"}), other], GEOMETRY, RULES) != version
    assert set_version([ROW, other], PatchGeometry(patch_size=16, stride=8), RULES) != version


def test_a_digest_ignores_the_order_of_keys() -> None:
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest([1, 2]) != digest([2, 1])


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


def test_publishing_again_repairs_and_tells_whether_it_had_to(tmp_path: Path) -> None:
    root = STORAGE.locate(tmp_path)
    assert publish(root, MANIFEST, [ROW])[1] is False
    assert publish(root, MANIFEST, [ROW])[1] is True
    for name in ("manifest.json", "catalog.parquet"):
        (tmp_path / "v1" / name).write_bytes(b"torn")
        assert publish(root, MANIFEST, [ROW])[1] is False
        assert PatchSet.open(str(root), STORAGE).catalog == [ROW]


def test_a_broken_catalog_is_named(tmp_path: Path) -> None:
    publish(STORAGE.locate(tmp_path), MANIFEST, [ROW])
    (tmp_path / "v1/catalog.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"cannot read '.+catalog.parquet': .+; remove '.+/current.json' and ingest"):
        _ = PatchSet.open(str(tmp_path), STORAGE).catalog


def test_a_split_without_patches_is_an_error(tmp_path: Path) -> None:
    patch_set, _ = publish(STORAGE.locate(tmp_path), MANIFEST, [ROW])
    assert [s.key for s in patch_set.shards("train")] == ["a", "c"]
    with pytest.raises(UserError, match="has no patches in its test split; ingest more scenes"):
        patch_set.shards("test")


def test_a_folder_without_manifest_is_no_patch_set(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(UserError, match=f"'{folder}' is not a patch set: it has no manifest.json; ingest has not"):
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
    ids=["empty", "cut", "no text", "a list", "no version", "format 99", "unknown field", "bad stride"],
)
def test_a_broken_manifest_is_named(tmp_path: Path, content: bytes) -> None:
    publish(STORAGE.locate(tmp_path), MANIFEST, [ROW])
    (tmp_path / "v1/manifest.json").write_bytes(content)
    with pytest.raises(UserError, match=f"cannot read '{tmp_path}/v1/manifest.json': .+; ingest the corpus again"):
        PatchSet.open(str(tmp_path), STORAGE)


@pytest.mark.parametrize("content", [b"", b'{"vers', b"{}"], ids=["empty", "cut", "no version"])
def test_a_broken_pointer_is_named(tmp_path: Path, content: bytes) -> None:
    publish(STORAGE.locate(tmp_path), MANIFEST, [ROW])
    (tmp_path / "current.json").write_bytes(content)
    with pytest.raises(UserError, match=r"current\.json"):
        PatchSet.open(str(tmp_path), STORAGE)


def test_a_config_without_corpora_or_with_a_share_over_one_is_refused() -> None:
    with pytest.raises(ValueError, match="name at least one corpus"):
        IngestConfig(corpora=[], out="o")
    with pytest.raises(ValueError, match="max_refused must be a share between 0 and 1, got 5"):
        IngestConfig(corpora=["sidd=x"], out="o", max_refused=5)


@pytest.fixture
def root(tmp_path: Path) -> Location:
    return STORAGE.locate(tmp_path / "set")


def pair(folder: Path, name: str, height: int = 40, width: int = 50) -> Pair:
    """A pair of PNG files of one scene."""
    clean = natural_photo(height, width)
    return Pair(
        id=f"pairs/{name}",
        corpus="pairs",
        scene="pairs/s",
        noisy=write_png(folder / f"{name} noisy 1%.png", with_noise(clean, len(name))),
        clean=write_png(folder / f"{name} clean 1%.png", clean),
    )


def names_below(root: Location) -> list[str]:
    return list(root.files()) if root.exists() else []


def test_a_chunk_becomes_a_shard_that_reads_back(tmp_path: Path, root: Location) -> None:
    pairs = [pair(tmp_path, "a"), pair(tmp_path, "bb", 33, 16)]
    found, made = cut_chunk(pairs, root, GEOMETRY, RULES)
    assert made is not None
    assert [(f.height, f.width, f.refused, f.patches) for f in found] == [(40, 50, None, 12), (33, 16, None, 3)]
    assert all(len(f.noisy_hash) == len(f.clean_hash) == 32 and f.noisy_hash != f.clean_hash for f in found)
    assert names_below(root) == [f"shards/{made['key']}.json", f"shards/{made['key']}.parquet"]
    assert made["bytes"] == root.files()[f"shards/{made['key']}.parquet"].size
    listed = Shard(split="train", **made)
    patch_set = PatchSet(root, replace(MANIFEST, geometry=GEOMETRY, shards=[listed]))
    noisy, clean = patch_set.read_shard(listed)
    assert len(noisy) == made["patches"] == 15
    expected = [cut_all(natural_photo(40, 50)), cut_all(natural_photo(33, 16))]
    assert np.array_equal(clean, np.concatenate(expected))
    expected = [cut_all(with_noise(natural_photo(h, w), n)) for h, w, n in ((40, 50, 1), (33, 16, 2))]
    assert np.array_equal(noisy, np.concatenate(expected))


def test_a_shard_names_the_pair_of_each_patch(tmp_path: Path, root: Location) -> None:
    _, made = cut_chunk([pair(tmp_path, "a"), pair(tmp_path, "bb", 33, 16)], root, GEOMETRY, RULES)
    assert made is not None
    table = pq.read_table(root.path + f"/shards/{made['key']}.parquet")
    assert table["pair"].to_pylist() == ["pairs/a"] * 12 + ["pairs/bb"] * 3
    assert table["y"].to_pylist()[-3:] == [0, 16, 17]


def test_a_shard_that_is_there_is_not_written_again(tmp_path: Path, root: Location) -> None:
    pairs = [pair(tmp_path, "a"), pair(tmp_path, "bb")]
    first = cut_chunk(pairs, root, GEOMETRY, RULES)
    before = {p: p.stat().st_mtime_ns for p in Path(root.path).rglob("*")}
    assert cut_chunk(pairs, root, GEOMETRY, RULES) == first
    assert {p: p.stat().st_mtime_ns for p in Path(root.path).rglob("*")} == before


def test_other_content_or_geometry_is_another_shard(tmp_path: Path, root: Location) -> None:
    pairs = [pair(tmp_path, "a")]
    keys = [cut_chunk(pairs, root, GEOMETRY, RULES)[1]]
    keys.append(cut_chunk(pairs, root, PatchGeometry(patch_size=16, stride=8), RULES)[1])
    keys.append(cut_chunk(pairs, root, GEOMETRY, CheckRules(max_clipped=0.9))[1])
    write_png(Path(pairs[0].noisy), with_noise(natural_photo(40, 50), 99))
    keys.append(cut_chunk(pairs, root, GEOMETRY, RULES)[1])
    assert len({k["key"] for k in keys if k}) == 4


def spoil(how: str, bad: Pair) -> str:
    """Damage a pair; gives what the refusal must say besides the file's name."""
    noisy = Path(bad.noisy)
    if how == "unequal":
        write_png(noisy, natural_photo(40, 51))
        return "unequal sizes, 51x40 and 50x40"
    if how == "truncated":
        noisy.write_bytes(noisy.read_bytes()[:-900])
        return "damaged"
    if how == "small":
        for seed, path in enumerate((bad.noisy, bad.clean)):
            write_png(Path(path), with_noise(natural_photo(40, 15), seed))
        return "is 15x40, smaller than a patch of 16; lower --patch-size"
    if how == "html":
        noisy.write_text("<html>404</html>")
        return "not a photo in a known format"
    if how == "twins":
        write_png(noisy, natural_photo(40, 50))
        return "and its clean photo are the same picture"
    if how == "vanished":
        noisy.unlink()
        return "there is no such file, or it went away after it was listed"
    assert how == "empty"
    noisy.write_bytes(b"")
    return "the file is empty"


@pytest.mark.parametrize("how", ["unequal", "truncated", "small", "html", "twins", "vanished", "empty"])
def test_a_bad_pair_is_refused_by_name_and_the_others_survive(tmp_path: Path, root: Location, how: str) -> None:
    pairs = [pair(tmp_path, name) for name in ("a", "bad", "c")]
    reason = spoil(how, pairs[1])
    found, made = cut_chunk(pairs, root, GEOMETRY, RULES)
    assert made is not None
    assert [f.patches for f in found] == [12, 0, 12]
    assert (found[0].refused, found[2].refused) == (None, None)
    assert found[1].refused is not None
    assert pairs[1].noisy in found[1].refused
    assert reason in found[1].refused
    assert (found[1].noisy_hash == "") == (how == "vanished")
    assert made["patches"] == 24


def test_the_clean_photo_is_named_where_it_is_the_bad_one(tmp_path: Path, root: Location) -> None:
    bad = pair(tmp_path, "a")
    Path(bad.clean).write_bytes(encode_png(natural_photo(40, 50))[:200])
    found, made = cut_chunk([bad], root, GEOMETRY, RULES)
    assert made is None
    assert found[0].refused is not None
    assert found[0].refused.startswith(f"{bad.clean}: it is damaged")


def test_a_chunk_of_bad_pairs_is_remembered_without_a_shard(tmp_path: Path, root: Location) -> None:
    bad = pair(tmp_path, "a")
    spoil("html", bad)
    first = cut_chunk([bad], root, GEOMETRY, RULES)
    assert first[1] is None
    assert cut_chunk([bad], root, GEOMETRY, RULES) == first


def test_a_photo_that_came_back_is_cut(tmp_path: Path, root: Location) -> None:
    good = pair(tmp_path, "a")
    content = Path(good.noisy).read_bytes()
    spoil("vanished", good)
    assert cut_chunk([good], root, GEOMETRY, RULES)[1] is None
    Path(good.noisy).write_bytes(content)
    assert cut_chunk([good], root, GEOMETRY, RULES)[1] is not None


def test_a_crash_leaves_nothing_and_the_next_run_succeeds(
    tmp_path: Path, root: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = [pair(tmp_path, "a"), pair(tmp_path, "bb")]

    def crash_at_the_second(pair_id: str, *rest: object) -> Iterator[pa.Table]:
        if pair_id == "pairs/bb":
            raise MemoryError
        return pair_tables(pair_id, *rest)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(ingest, "pair_tables", crash_at_the_second)
        with pytest.raises(MemoryError):
            cut_chunk(pairs, root, GEOMETRY, RULES)
    assert names_below(root) == []
    assert cut_chunk(pairs, root, GEOMETRY, RULES)[1] is not None


def test_a_crash_before_the_note_is_made_good(tmp_path: Path, root: Location) -> None:
    """The shard is there but what was found is not: it is cut again, to the same bytes."""
    pairs = [pair(tmp_path, "a")]
    found, made = cut_chunk(pairs, root, GEOMETRY, RULES)
    assert made is not None
    shard_file = Path(root.path) / f"shards/{made['key']}.parquet"
    before = shard_file.read_bytes()
    shard_file.with_suffix(".json").unlink()
    again = cut_chunk(pairs, root, GEOMETRY, RULES)
    assert ([asdict(f) for f in again[0]], again[1]) == ([asdict(f) for f in found], made)
    assert shard_file.read_bytes() == before


def deep_photo(height: int, width: int, seed: int = 0) -> Photo:
    return np.random.default_rng(seed).integers(0, 65536, (height, width, 3), dtype=np.uint16)


@pytest.mark.parametrize("at_once", [1, 3000, 2**25])
def test_a_table_holds_a_few_rows_of_patches_at_a_time(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    noisy, clean = random_photo(50, 40), random_photo(50, 40, 1)
    monkeypatch.setattr(patches, "_TABLE_BYTES", at_once)
    tables = list(pair_tables("c/a", noisy, clean, GEOMETRY, 8))
    assert len(tables) == {1: 4, 3000: 4, 2**25: 1}[at_once]
    assert np.array_equal(column_patches(pa.concat_tables(tables)["noisy"], 16, 8), cut_all(noisy))


@settings(max_examples=30, deadline=None)
@given(geometry=geometries, seed=st.integers(0, 99), deep=st.tuples(st.booleans(), st.booleans()))
def test_sixteen_bits_survive_and_eight_become_sixteen(geometry: PatchGeometry, seed: int, deep: tuple[bool, bool]) -> None:
    photos = [deep_photo(30, 27, seed) if is_deep else random_photo(30, 27, seed) for is_deep in deep]
    (table,) = pair_tables("c/a", photos[0], photos[1], geometry, 16)
    for name, photo in zip(("noisy", "clean"), photos, strict=True):
        read = column_patches(table[name], geometry.patch_size, 16)
        expected = cut_all(photo, geometry)
        assert read.dtype == np.uint16
        assert np.array_equal(read, expected if photo.dtype == np.uint16 else expected.astype(np.uint16) * 257)


def write_deep(uri: str, photo: Photo) -> None:
    Path(uri).write_bytes(imagecodecs.png_encode(photo))


def test_a_chunk_with_a_deep_photo_is_a_deep_shard(tmp_path: Path, root: Location) -> None:
    pairs = [pair(tmp_path, "a"), pair(tmp_path, "bb")]
    deep = natural_photo(40, 50).astype(np.uint16) * 257 + np.uint16(3)
    write_deep(pairs[1].clean, deep)
    found, made = cut_chunk(pairs, root, GEOMETRY, RULES)
    assert made is not None
    assert ([f.bit_depth for f in found], made["bits"]) == ([8, 16], 16)
    listed = Shard(split="train", **made)
    noisy, clean = PatchSet(root, replace(MANIFEST, geometry=GEOMETRY, shards=[listed])).read_shard(listed)
    assert (noisy.dtype, clean.dtype) == (np.uint16, np.uint16)
    assert np.array_equal(clean[:12], cut_all(natural_photo(40, 50)).astype(np.uint16) * 257)
    assert np.array_equal(clean[12:], cut_all(deep))
    assert np.array_equal(noisy[12:], cut_all(with_noise(natural_photo(40, 50), 2)).astype(np.uint16) * 257)


@settings(max_examples=50, deadline=None)
@given(geometry=geometries, height=st.integers(24, 60), width=st.integers(24, 60))
def test_the_pixels_of_all_patches_are_counted(geometry: PatchGeometry, height: int, width: int) -> None:
    assert patched_pixels(height, width, geometry) == cut_all(random_photo(height, width), geometry)[..., 0].size


def test_groups_weigh_the_same_within_their_split() -> None:
    rows = [
        catalog_row(corpus="a", camera="S6", iso=100, patches=30),
        catalog_row(corpus="a", camera="S6", iso=100, patches=10),
        catalog_row(corpus="a", camera=None, iso=None, patches=8),
        catalog_row(corpus="b", camera="S6", iso=100, patches=12),
        catalog_row(split="val", corpus="b", camera="S6", iso=100, patches=5),
        catalog_row(split="val", corpus="z", patches=0, refused="it is damaged"),
    ]
    groups = groups_of(rows)
    assert groups_of(rows[::-1]) == groups
    train = [group for group in groups if group.split == "train"]
    assert sorted((g.corpus, g.camera or "", g.pairs, g.patches) for g in train) == [
        ("a", "", 1, 8),
        ("a", "S6", 2, 40),
        ("b", "S6", 1, 12),
    ]
    assert {round(g.weight * g.patches, 9) for g in train} == {20}
    assert sum(g.weight * g.patches for g in train) == pytest.approx(60)
    assert [g for g in groups if g.split == "val"] == [
        Group(split="val", corpus="b", camera="S6", iso=100, pairs=1, patches=5, weight=1.0)
    ]


def test_a_photo_that_is_there_twice_counts_once() -> None:
    first, copy = catalog_row(id="a/1", scene="a/s", noisy="/1.png"), catalog_row(id="a/2", scene="a/s")
    said = {"a/2": "/a/noisy.png: it has the content of /1.png, which is in the set"}
    assert find_repeats([copy, first], {}) == said
    # What was in the set before stays, whatever comes before it in the order of ids.
    assert set(find_repeats([first, copy], {"a/2": copy})) == {"a/1"}
    refused = replace(copy, refused=said["a/2"])
    assert find_repeats([first, refused], {"a/1": first, "a/2": refused}) == said
    assert find_repeats([refused], {"a/2": refused}) == {}
    assert find_repeats([first, replace(copy, refused="it is damaged")], {}) == {}


def test_a_photo_of_two_scenes_stays_in_the_first() -> None:
    rows = [
        catalog_row(id="a/1", scene="a/s", noisy_hash="n1", clean_hash="c"),
        catalog_row(id="a/2", scene="a/s", noisy_hash="n2", clean_hash="c"),
        catalog_row(id="b/1", scene="b/t", noisy_hash="n3", clean_hash="c"),
        catalog_row(id="b/2", scene="b/t", noisy_hash="c", clean_hash="d"),
        catalog_row(id="b/3", scene="b/t", noisy_hash="n5", clean_hash="n2"),
        catalog_row(id="b/4", scene="b/t", noisy_hash="n6", clean_hash="d"),
    ]
    repeats = find_repeats(rows, {})
    assert set(repeats) == {"b/1", "b/2", "b/3"}
    assert all("it has the content of a photo of another scene, a/s" in reason for reason in repeats.values())


KEY = "shard1"
CONFIG = IngestConfig(corpora=["pairs=/x"], out="o", geometry=GEOMETRY, rules=RULES)


def known_pair(name: str, stamp: str = "1@1 2@2") -> Pair:
    return Pair(id=f"c/{name}", corpus="c", scene="c/s", noisy=f"/{name}.png", clean="/c.png", stamp=stamp)


@pytest.fixture
def previous(root: Location) -> Previous:
    """Two pairs in one shard and one that was refused."""
    (root / "shards" / f"{KEY}.parquet").write_bytes(b"x" * 100)
    rows = [catalog_row(id=f"c/{n}", scene="c/s", stamp="1@1 2@2", shard=KEY, noisy_hash=n) for n in "ab"]
    rows.append(catalog_row(id="c/bad", scene="c/s", stamp="1@1 2@2", refused="it is damaged", patches=0))
    manifest = replace(MANIFEST, geometry=GEOMETRY, rules=RULES, shards=[shard(KEY, patches=2)])
    publish(root, manifest, rows)
    return Previous.read(root)


PAIRS = [known_pair("a"), known_pair("b"), known_pair("bad")]
SPLIT = {"c/s": "val"}


def pending(previous: Previous, pairs: list[Pair], config: IngestConfig, root: Location) -> list[str]:
    return [p.id for p in previous.settle(pairs, SPLIT, config, root)[1]]


def test_unchanged_pairs_keep_their_shard_unread(previous: Previous, root: Location) -> None:
    assert previous.splits == {"c/s": "train"}
    outcomes, left = previous.settle(PAIRS, SPLIT, CONFIG, root)
    assert left == []
    assert {o.shard.key if o.shard else None: [row.id for row in o.rows] for o in outcomes} == {
        KEY: ["c/a", "c/b"],
        None: ["c/bad"],
    }
    rows = {row.id: row for o in outcomes for row in o.rows}
    assert rows["c/a"] == replace(previous.rows["c/a"], corpus="c", split="val", noisy="/a.png", clean="/c.png")
    assert rows["c/bad"].refused == "it is damaged"
    assert Counter(o.shard.split for o in outcomes if o.shard) == {"val": 1}


def test_a_shard_whose_pairs_are_not_all_there_is_cut_again(previous: Previous, root: Location) -> None:
    assert pending(previous, [PAIRS[0], PAIRS[2]], CONFIG, root) == ["c/a"]
    assert pending(previous, [*PAIRS, known_pair("new")], CONFIG, root) == ["c/new"]
    for stamp in ("1@9 2@2", ""):
        assert pending(previous, [PAIRS[0], known_pair("b", stamp), PAIRS[2]], CONFIG, root) == ["c/a", "c/b"]
        assert pending(previous, [*PAIRS[:2], known_pair("bad", stamp)], CONFIG, root) == ["c/bad"]
    for other in (replace(PAIRS[1], scene="c/s2"), replace(PAIRS[1], noise="gaussian:5")):
        splits = {**SPLIT, "c/s2": "train"}
        assert [p.id for p in previous.settle([PAIRS[0], other], splits, CONFIG, root)[1]] == ["c/a", "c/b"]


def test_a_damaged_shard_is_cut_again(previous: Previous, root: Location) -> None:
    (root / "shards" / f"{KEY}.parquet").write_bytes(b"x" * 99)
    assert pending(previous, PAIRS, CONFIG, root) == ["c/a", "c/b"]
    Path((root / "shards" / f"{KEY}.parquet").path).unlink()
    assert pending(previous, PAIRS, CONFIG, root) == ["c/a", "c/b"]


def test_other_rules_or_geometry_read_everything_again(previous: Previous, root: Location) -> None:
    for config in (replace(CONFIG, rules=CheckRules()), replace(CONFIG, geometry=PatchGeometry(patch_size=16, stride=8))):
        assert previous.settle(PAIRS, SPLIT, config, root) == ([], PAIRS)


def test_what_can_be_read_of_a_previous_set_is(previous: Previous, root: Location, tmp_path: Path) -> None:
    assert Previous.read(STORAGE.locate(tmp_path / "none")) == Previous()
    (root / "v1" / "manifest.json").write_bytes(b"torn")
    broken = Previous.read(root)
    assert broken == Previous(previous.rows, None)
    assert broken.settle(PAIRS, SPLIT, CONFIG, root) == ([], PAIRS)
    (root / "v1" / "catalog.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"cannot read '.+catalog\.parquet'"):
        Previous.read(root)


def test_a_made_pair_has_the_content_of_its_photo_noise_and_name(tmp_path: Path, root: Location) -> None:
    real = pair(tmp_path, "a")
    made = [replace(real, id=f"clean/{n}", noisy=real.clean, noise=n) for n in ("gaussian:10", "gaussian:20")]
    found, told = cut_chunk(made, root, GEOMETRY, RULES)
    assert told is not None
    assert [f.refused for f in found] == [None, None]
    assert len({f.noisy_hash for f in found}) == 2
    assert found[0].clean_hash == found[1].clean_hash
    assert cut_chunk(made[:1], root, GEOMETRY, RULES)[0] == found[:1]
