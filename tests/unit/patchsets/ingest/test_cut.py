"""Cutting: pairs of one scene become a shard that exists completely or not at all."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from unit.patchset_support import GEOMETRY, MANIFEST, RULES, STORAGE, cut_all
from unit.support import natural_photo, with_noise, write_png

from degrain.corpora.record import PairRecord
from degrain.imaging.codecs import encode_png
from degrain.imaging.pixels import Photo
from degrain.imaging.stored_photo import UnreadablePhotoError
from degrain.patchsets import manifest
from degrain.patchsets.check_rules import CheckRules
from degrain.patchsets.geometry import PatchGeometry
from degrain.patchsets.ingest import cut
from degrain.patchsets.ingest.cut import cut_chunk
from degrain.patchsets.manifest import Shard
from degrain.patchsets.pair_files import check_pair
from degrain.patchsets.patch_set import PatchSet
from degrain.patchsets.shards import pair_tables
from degrain.storage.location import Location
from degrain.storage.sealed import FileDigest


@pytest.fixture
def root(tmp_path: Path) -> Location:
    return STORAGE.locate(tmp_path / "set")


def pair(folder: Path, name: str, height: int = 40, width: int = 50) -> PairRecord:
    """A pair of PNG files of one scene."""
    clean = natural_photo(height, width)
    return PairRecord(
        id=f"pairs/{name}",
        corpus="pairs",
        scene="pairs/s",
        split="train",
        noisy=write_png(folder / f"{name} noisy 1%.png", with_noise(clean, len(name))),
        clean=write_png(folder / f"{name} clean 1%.png", clean),
    )


def cut_pairs(
    pairs: Sequence[PairRecord],
    root: Location,
    geometry: PatchGeometry = GEOMETRY,
    rules: CheckRules = RULES,
) -> tuple[Sequence[PairRecord], Shard | None]:
    result = cut_chunk(pairs, root, geometry, rules)
    return result.records, result.shard


def names_below(root: Location) -> list[str]:
    return list(root.files()) if root.exists() else []


def test_a_shard_holds_the_patches_of_its_chunk(tmp_path: Path, root: Location) -> None:
    pairs = [pair(tmp_path, "a"), pair(tmp_path, "bb", 33, 16)]
    found, made = cut_pairs(pairs, root)
    assert made is not None
    assert [(f.height, f.width, f.refused, f.patches) for f in found] == [
        (40, 50, None, 12),
        (33, 16, None, 3),
    ]
    assert all(
        len(f.noisy_hash) == len(f.clean_hash) == 32 and f.noisy_hash != f.clean_hash for f in found
    )
    assert {Path(name).suffix for name in names_below(root)} == {".json", ".parquet"}
    assert FileDigest.of(Path(root.path, f"shards/{made.key}.parquet").read_bytes()) == made.file
    patch_set = PatchSet(root, replace(MANIFEST, geometry=GEOMETRY, shards=[made]))
    noisy, clean = patch_set.read_shard(made)
    assert len(noisy) == made.patches == 15
    expected = [cut_all(natural_photo(40, 50)), cut_all(natural_photo(33, 16))]
    assert np.array_equal(clean, np.concatenate(expected))
    expected = [
        cut_all(with_noise(natural_photo(h, w), n)) for h, w, n in ((40, 50, 1), (33, 16, 2))
    ]
    assert np.array_equal(noisy, np.concatenate(expected))


def test_a_shard_stores_the_pair_and_position_of_each_patch(tmp_path: Path, root: Location) -> None:
    _, made = cut_pairs([pair(tmp_path, "a"), pair(tmp_path, "bb", 33, 16)], root)
    assert made is not None
    table = pq.read_table(root.path + f"/shards/{made.key}.parquet")
    assert table["pair"].to_pylist() == ["pairs/a"] * 12 + ["pairs/bb"] * 3
    assert table["y"].to_pylist()[-3:] == [0, 16, 17]


def test_an_existing_shard_is_not_written_again(tmp_path: Path, root: Location) -> None:
    pairs = [pair(tmp_path, "a"), pair(tmp_path, "bb")]
    first = cut_pairs(pairs, root)
    before = {p: p.stat().st_mtime_ns for p in Path(root.path).rglob("*")}
    assert cut_pairs(pairs, root) == first
    assert {p: p.stat().st_mtime_ns for p in Path(root.path).rglob("*")} == before


def test_other_content_geometry_rules_or_cutter_is_cut_again(
    tmp_path: Path, root: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = [pair(tmp_path, "a")]
    other = PatchGeometry(patch_size=16, stride=8)
    rules = CheckRules(alignment="ignore", max_clipped=0.9)

    def cut_is_new(geometry: PatchGeometry = GEOMETRY, rules: CheckRules = RULES) -> str:
        results = [cut_chunk(pairs, root, geometry, rules) for _ in range(2)]
        assert [result.written for result in results] == [True, False]
        assert results[0].shard is not None
        return results[0].shard.key

    first = cut_is_new()
    assert cut_is_new(other) != first
    # Equal content is one file.
    assert cut_is_new(rules=rules) == first
    monkeypatch.setattr(manifest, "CUTTER_VERSION", 99)
    assert cut_is_new() == first
    other_codecs = {**manifest.cutter(), "imagecodecs": "1"}
    monkeypatch.setattr(manifest, "_versions", lambda: other_codecs)
    assert cut_is_new() == first
    write_png(Path(pairs[0].noisy), with_noise(natural_photo(40, 50), 99))
    assert cut_is_new() != first


def damage(how: str, bad: PairRecord) -> str:
    """Damage a pair; returns the reason that the refusal must contain beside the file's name."""
    noisy = Path(bad.noisy)
    if how == "unequal":
        write_png(noisy, natural_photo(40, 51))
        return "unequal sizes, 51x40 and 50x40"
    if how == "truncated":
        noisy.write_bytes(noisy.read_bytes()[:-900])
        return "damaged"
    if how == "small":
        write_png(noisy, with_noise(natural_photo(40, 15)))
        write_png(Path(bad.clean), natural_photo(40, 15))
        return "is 15x40, smaller than a patch of 16; lower `patch_size`"
    if how == "html":
        noisy.write_text("<html>404</html>")
        return "not a photo in a known format"
    if how == "same picture":
        write_png(noisy, natural_photo(40, 50))
        return "and its clean photo are the same picture"
    if how == "missing":
        noisy.unlink()
        return "there is no such file, or it disappeared after the listing"
    assert how == "empty"
    noisy.write_bytes(b"")
    return "the file is empty"


@pytest.mark.parametrize(
    "how", ["unequal", "truncated", "small", "html", "same picture", "missing", "empty"]
)
def test_a_bad_pair_is_refused_with_its_reason_and_the_others_are_cut(
    tmp_path: Path, root: Location, how: str
) -> None:
    pairs = [pair(tmp_path, name) for name in ("a", "bad", "c")]
    reason = damage(how, pairs[1])
    found, made = cut_pairs(pairs, root)
    assert made is not None
    assert [f.patches for f in found] == [12, 0, 12]
    assert (found[0].refused, found[2].refused) == (None, None)
    assert found[1].refused is not None
    assert pairs[1].noisy in found[1].refused
    assert reason in found[1].refused
    assert (found[1].noisy_hash == "") == (how == "missing")
    assert made.patches == 24


def test_the_reason_names_the_clean_photo_if_it_is_damaged(tmp_path: Path, root: Location) -> None:
    bad = pair(tmp_path, "a")
    Path(bad.clean).write_bytes(encode_png(natural_photo(40, 50))[:200])
    found, made = cut_pairs([bad], root)
    assert made is None
    assert found[0].refused is not None
    assert found[0].refused.startswith(f"{bad.clean}: it is damaged")


def test_a_chunk_of_bad_pairs_leaves_no_file(tmp_path: Path, root: Location) -> None:
    bad = pair(tmp_path, "a")
    damage("html", bad)
    first = cut_pairs([bad], root)
    assert first[1] is None
    assert cut_pairs([bad], root) == first
    assert names_below(root) == []


def test_a_photo_that_reappears_is_cut(tmp_path: Path, root: Location) -> None:
    good = pair(tmp_path, "a")
    content = Path(good.noisy).read_bytes()
    damage("missing", good)
    assert cut_pairs([good], root)[1] is None
    Path(good.noisy).write_bytes(content)
    assert cut_pairs([good], root)[1] is not None


def test_a_crash_leaves_no_file_and_the_next_run_succeeds(
    tmp_path: Path, root: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = [pair(tmp_path, "a"), pair(tmp_path, "bb")]

    def crash_at_the_second(pair_id: str, *rest: object) -> Iterator[pa.Table]:
        if pair_id == "pairs/bb":
            raise MemoryError
        return pair_tables(pair_id, *rest)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(cut, "pair_tables", crash_at_the_second)
        with pytest.raises(MemoryError):
            cut_pairs(pairs, root)
    assert names_below(root) == []
    assert cut_pairs(pairs, root)[1] is not None


def test_a_shard_without_its_measurements_is_cut_again_to_the_same_bytes(
    tmp_path: Path, root: Location
) -> None:
    pairs = [pair(tmp_path, "a")]
    found, made = cut_pairs(pairs, root)
    assert made is not None
    before = {name: (root / name).read_bytes() for name in names_below(root)}
    (measured,) = Path(root.path, "shards").glob("*.json")
    content = measured.read_bytes()
    for damaged in (None, b"", content[:-9], content.replace(b"null", b"NULL", 1)):
        measured.unlink() if damaged is None else measured.write_bytes(damaged)
        again = cut_pairs(pairs, root)
        assert again == (found, made)
        assert {name: (root / name).read_bytes() for name in names_below(root)} == before


def test_a_damaged_shard_is_cut_again_to_the_same_bytes(tmp_path: Path, root: Location) -> None:
    pairs = [pair(tmp_path, "a")]
    found, made = cut_pairs(pairs, root)
    assert made is not None
    file = Path(root.path, f"shards/{made.key}.parquet")
    content = file.read_bytes()
    for damaged in (content[:500] + bytes(500) + content[1000:], content[:-1], b"", None):
        file.unlink() if damaged is None else file.write_bytes(damaged)
        assert cut_chunk(pairs, root, GEOMETRY, RULES).written
        assert file.read_bytes() == content
    assert cut_pairs(pairs, root) == (found, made)


def test_a_refusal_is_not_remembered(
    tmp_path: Path, root: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = [pair(tmp_path, name) for name in ("a", "b")]

    def cannot_decode(pair: PairRecord, *rest: Any) -> Any:  # noqa: ANN401
        if pair.id == "pairs/b":
            raise UnreadablePhotoError("this version of degrain does not read it")
        return check_pair(pair, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(cut, "check_pair", cannot_decode)
        found, first = cut_pairs(pairs, root)
    assert [row.refused is None for row in found] == [True, False]
    before = {name: (root / name).read_bytes() for name in names_below(root)}
    found, second = cut_pairs(pairs, root)
    assert [row.refused is None for row in found] == [True, True]
    assert first is not None
    assert second is not None
    assert first.key != second.key
    assert {name: (root / name).read_bytes() for name in before} == before


def write_deep(uri: str, photo: Photo) -> None:
    Path(uri).write_bytes(imagecodecs.png_encode(photo))


def test_a_chunk_with_a_16_bit_photo_becomes_a_16_bit_shard(tmp_path: Path, root: Location) -> None:
    pairs = [pair(tmp_path, "a"), pair(tmp_path, "bb")]
    deep = natural_photo(40, 50).astype(np.uint16) * 257 + np.uint16(3)
    write_deep(pairs[1].clean, deep)
    found, made = cut_pairs(pairs, root)
    assert made is not None
    assert ([f.bit_depth for f in found], made.bits) == ([8, 16], 16)
    noisy, clean = PatchSet(root, replace(MANIFEST, geometry=GEOMETRY, shards=[made])).read_shard(
        made
    )
    assert (noisy.dtype, clean.dtype) == (np.uint16, np.uint16)
    assert np.array_equal(clean[:12], cut_all(natural_photo(40, 50)).astype(np.uint16) * 257)
    assert np.array_equal(clean[12:], cut_all(deep))
    assert np.array_equal(
        noisy[12:], cut_all(with_noise(natural_photo(40, 50), 2)).astype(np.uint16) * 257
    )


def test_a_synthetic_pair_is_identified_by_its_photo_noise_and_id(
    tmp_path: Path, root: Location
) -> None:
    real = pair(tmp_path, "a")
    pairs = [
        replace(real, id=f"clean/{n}", noisy=real.clean, noise=n)
        for n in ("gaussian:10", "gaussian:20")
    ]
    found, shard = cut_pairs(pairs, root)
    assert shard is not None
    assert [f.refused for f in found] == [None, None]
    assert len({f.noisy_hash for f in found}) == 2
    assert found[0].clean_hash == found[1].clean_hash
    (alone,), _ = cut_pairs(pairs[:1], root)
    assert replace(alone, shard=found[0].shard) == found[0]
