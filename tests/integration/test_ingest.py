"""Ingest on Ray Data: real files in, a patch set out."""

import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import ray
from integration.support import SCENES, TEMPLATES, run_here, write_pairs
from unit.inference.test_broken_photos import DECODED, REFUSED

from degrain.corpora.record import PairRecord
from degrain.imaging.codecs import decode, encode_png
from degrain.imaging.looks import pixel_digest
from degrain.imaging.pixels import eight_bits
from degrain.loading.resident import make_resident
from degrain.patchsets.ingest import parallel
from degrain.patchsets.patch_set import PatchSet
from degrain.storage.location import Storage

pytestmark = pytest.mark.ray


@pytest.fixture(autouse=True)
def on_shared_cluster(ray_cluster: None) -> None:
    """Commands join the cluster that the tests share."""


def arguments(corpus: Path, out: Path, *more: object) -> list[object]:
    return ["--corpus", f"pairs={corpus}", "--out", out, "--patch-size", 32, *TEMPLATES, *more]


def test_patches_are_what_the_photos_hold(tmp_path: Path) -> None:
    corpus = write_pairs(tmp_path / "photos", SCENES, shots=2)
    done = run_here("ingest", arguments(corpus, tmp_path / "out"), tmp_path)
    assert done.status == 0, done.err
    assert {"uri", "version", "pairs", "refused", "patches", "seconds"} <= set(done.summary)
    assert (done.summary["pairs"], done.summary["refused"], done.summary["patches"]) == (10, 0, 40)
    patch_set = PatchSet.open(str(tmp_path / "out"), Storage())
    by_split = {
        split: {row.scene for row in patch_set.photos(split)} for split in ("train", "val", "test")
    }
    assert all(by_split.values())
    assert sum(len(scenes) for scenes in by_split.values()) == len(SCENES)
    for split in by_split:
        photos = patch_set.photos(split)
        expected = sorted(
            decode(Path(row.noisy).read_bytes())[y : y + 32, x : x + 32].tobytes()
            for row in photos
            for y in (0, 32)
            for x in (0, 32)
        )
        got = [
            noisy.tobytes()
            for shard in patch_set.shards(split)
            for noisy in patch_set.read_shard(shard)[0]
        ]
        assert sorted(got) == expected


def test_ingesting_again_finds_the_set_and_new_photos_cut_only_themselves(tmp_path: Path) -> None:
    corpus = write_pairs(tmp_path / "photos", SCENES)
    first = run_here("ingest", arguments(corpus, tmp_path / "out"), tmp_path)
    written = {
        p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*") if p.name != "current.json"
    }
    again = run_here("ingest", arguments(corpus, tmp_path / "out"), tmp_path)
    assert again.summary["reused"] is True
    assert again.summary["version"] == first.summary["version"]
    splits = {r.scene: r.split for r in PatchSet.open(str(tmp_path / "out"), Storage()).catalog}

    write_pairs(tmp_path / "photos", [*SCENES, "fjord", "grove"])
    more = run_here("ingest", arguments(corpus, tmp_path / "out"), tmp_path)
    assert more.summary["version"] != first.summary["version"]
    assert {p: p.stat().st_mtime_ns for p in written if p.exists()} | written == written
    shards = [p for p in (tmp_path / "out" / "shards").glob("*.parquet") if p not in written]
    assert len(shards) == 2
    after = {r.scene: r.split for r in PatchSet.open(str(tmp_path / "out"), Storage()).catalog}
    assert splits.items() <= after.items()
    old = PatchSet.open(first.summary["uri"], Storage())
    assert old.manifest.version == first.summary["version"]


def test_ingesting_again_repairs_what_was_damaged_or_has_moved(tmp_path: Path) -> None:
    corpus, out = write_pairs(tmp_path / "photos", SCENES), tmp_path / "out"
    first = run_here("ingest", arguments(corpus, out), tmp_path)
    lost, torn, spoilt = sorted((out / "shards").glob("*.parquet"))[:3]
    whole = {p: p.read_bytes() for p in (lost, torn, spoilt)}
    lost.unlink()
    torn.write_bytes(whole[torn][:-100])
    spoilt.write_bytes(whole[spoilt][:-100] + bytes(100))
    Path(first.summary["uri"], "manifest.json").write_text("{")
    again = run_here("ingest", arguments(corpus, out), tmp_path)
    assert again.status == 0, again.err
    assert (again.summary["version"], again.summary["reused"]) == (first.summary["version"], False)
    assert {p: p.read_bytes() for p in whole} == whole

    corpus.rename(tmp_path / "elsewhere")
    moved = run_here("ingest", arguments(tmp_path / "elsewhere", out), tmp_path)
    assert moved.summary["version"] == first.summary["version"]
    assert all(Path(row.noisy).exists() for row in PatchSet.open(str(out), Storage()).catalog)


def test_a_bad_pair_is_refused_with_its_reason_and_the_job_goes_on(tmp_path: Path) -> None:
    corpus = write_pairs(tmp_path / "photos", SCENES, shots=2)
    broken = corpus / "noisy" / "bench_1.png"
    broken.write_bytes(broken.read_bytes()[:-200])
    (corpus / "noisy" / "alone_0.png").write_bytes((corpus / "noisy" / "cliff_0.png").read_bytes())
    done = run_here("ingest", arguments(corpus, tmp_path / "out", "--max-refused", 0.1), tmp_path)
    assert done.status == 0, done.err
    assert done.summary["refused"] == 1
    assert "refused: " in done.out
    assert "bench_1.png" in done.out
    assert "damaged" in done.out
    assert "not paired: 1 photos" in done.out
    refused = [r for r in PatchSet.open(str(tmp_path / "out"), Storage()).catalog if r.refused]
    assert [r.id for r in refused] == ["pairs/noisy/bench_1.png"]


def test_processes_that_decode_are_replaced_after_a_few_tasks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decoders leak: Python 3.11 aborts after some ten thousand damaged PNGs in one process."""
    monkeypatch.setattr(parallel, "_TASK_PAIRS", 1)
    corpus = write_pairs(tmp_path / "photos", [f"scene{number:02}" for number in range(24)])
    before = cutting_processes()
    done = run_here("ingest", arguments(corpus, tmp_path / "out"), tmp_path)
    assert done.summary["pairs"] == 24, done.err
    deadline = time.monotonic() + 600
    # Ray collects the events of its processes once a second.
    while (tasks := cutting_processes() - before).total() < 24:
        assert time.monotonic() < deadline
        time.sleep(0.5)
    assert max(tasks.values()) <= parallel._TASKS_PER_PROCESS


def cutting_processes() -> Counter[str]:
    """How many tasks of ingests each process of the cluster has run."""
    return Counter(event["tid"] for event in ray.timeline() if "_cut_table" in event["cat"])


def test_a_resident_split_is_mapped_not_copied(tmp_path: Path) -> None:
    corpus = write_pairs(tmp_path / "photos", SCENES)
    run_here("ingest", arguments(corpus, tmp_path / "out"), tmp_path)
    patch_set = PatchSet.open(str(tmp_path / "out"), Storage())
    resident = make_resident(patch_set, "train")
    first, second = resident.patches(), resident.patches()
    noisy, clean = first[0]
    assert not noisy.flags.writeable
    assert np.shares_memory(noisy, second[0][0])
    assert len(first) == patch_set.manifest.patches("train")
    stored = [
        pair
        for shard in patch_set.shards("train")
        for pair in zip(*patch_set.read_shard(shard), strict=True)
    ]
    assert all(
        np.array_equal(first[i][0], a) and np.array_equal(first[i][1], b)
        for i, (a, b) in enumerate(stored)
    )

    @ray.remote
    def elsewhere() -> bool:
        return not resident.patches()[0][0].flags.writeable

    assert ray.get(elsewhere.remote())
    assert clean.shape == (32, 32, 3)


def test_real_sidd_pairs(shared_data: Path, tmp_path: Path) -> None:
    corpus = f"sidd={shared_data / 'SIDD_Small_sRGB_Only_256'}"
    done = run_here("ingest", ["--corpus", corpus, "--out", tmp_path / "out"], tmp_path)
    assert done.status == 0, done.err
    assert (done.summary["pairs"], done.summary["refused"], done.summary["patches"]) == (
        131,
        0,
        524,
    )
    rows = PatchSet.open(str(tmp_path / "out"), Storage()).catalog
    assert {r.camera for r in rows} == {"GP", "IP", "S6", "N6", "G4"}
    assert {r.scene for r in rows} == {f"sidd/{n:03}" for n in range(1, 8)}


def test_of_a_hundred_broken_photos_none_ends_the_job_and_none_is_lost(tmp_path: Path) -> None:
    """Every kind of file that the unit tests of decoding know, as the noisy photo of a pair, under
    odd names.
    """
    corpus = tmp_path / "photos"
    for kind in ("noisy", "clean"):
        (corpus / kind).mkdir(parents=True)
    kinds = {**{k: v[0] for k, v in REFUSED.items()}, **{k: v[0] for k, v in DECODED.items()}}
    names = {kind: f"{kind.replace('/', '-')} ü 100%_{n}" for n, kind in enumerate(sorted(kinds))}
    for kind, name in names.items():
        suffix = "PNG" if len(name) % 2 else "png"
        (corpus / "noisy" / f"{name}.{suffix}").write_bytes(kinds[kind])
        photo = eight_bits(DECODED[kind][1]) if kind in DECODED else np.zeros((40, 56, 3), np.uint8)
        # A corner makes every content unique.
        clean = photo.copy()
        clean[:2, :2] = sorted(kinds).index(kind)
        (corpus / "clean" / f"{name}.png").write_bytes(encode_png(clean))
    (corpus / "noisy" / "alone.png").write_bytes(encode_png(clean))
    (corpus / "loop").symlink_to(corpus)
    (corpus / "noisy" / "nowhere.png").symlink_to(corpus / "missing")
    argv = ["--corpus", f"pairs={corpus}", "--out", tmp_path / "out", "--patch-size", 16]
    argv += ["--max-refused", 1, "--max-exposure", 1000, "--max-clipped", 1]
    argv += ["--noisy-name", r"regex:noisy/(?P<name>.+)\.\w+"]
    # Named, so that no split consists of broken photos alone.
    whole = [names[k] for k in ("16-bit grey with opaque alpha", "jpeg with garbage after the end")]
    for split, name in zip(("val", "test"), whole, strict=True):
        argv += [f"--{split}-scenes", f"pairs/clean/{name}.png"]
    done = run_here("ingest", [*argv, "--clean-name", r"regex:clean/(?P<name>.+)\.\w+"], tmp_path)
    assert done.status == 0, done.err
    assert (done.summary["pairs"], done.summary["unplaced"]) == (len(kinds), 1)
    rows = {
        row.scene.removeprefix("pairs/clean/").removesuffix(".png"): row
        for row in patch_set_rows(tmp_path / "out")
    }
    for kind, name in names.items():
        row = rows[name]
        small = kind in DECODED and min(DECODED[kind][1].shape[:2]) < 16
        if kind in REFUSED:
            assert row.refused, kind
        elif small:
            assert "smaller than a patch" in str(row.refused)
        else:
            assert row.refused is None or "it has the pixels of" in row.refused, (
                kind,
                row.refused,
            )
            assert row.patches == (0 if row.refused else 3 * 4)
    different = {
        pixel_digest(decode(content))
        for content, photo in DECODED.values()
        if min(photo.shape[:2]) >= 16
    }
    assert sum(row.refused is None for row in rows.values()) == len(different)
    assert len(kinds) >= 40


def patch_set_rows(out: Path) -> list[PairRecord]:
    return PatchSet.open(str(out), Storage()).catalog
