"""No scene is in two splits, whatever its photos are called, and none leaves test unasked."""

import contextlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from unit.ingest_support import serial_ingest, write_pair, write_pairs
from unit.support import with_noise, write_png

from degrain.corpora.config import CorpusOptions
from degrain.errors import JobFailedError, UserError
from degrain.patchsets.ingest import run
from degrain.patchsets.listing import list_corpora
from degrain.patchsets.patch_set import PatchSet
from degrain.storage.location import Storage

TEMPLATES = CorpusOptions(noisy_name="noisy/{scene}_{name}", clean_name="clean/{scene}_{name}")


def splits(patch_set: PatchSet) -> dict[str, str]:
    return {row.scene: row.split for row in patch_set.catalog}


def scene_of(patch_set: PatchSet, split: str) -> str:
    """The name of a scene of a split, without its corpus."""
    return min(s for s, where in splits(patch_set).items() if where == split).split("/")[1]


def test_the_same_pixels_in_another_file_are_a_duplicate(tmp_path: Path) -> None:
    corpus = write_pairs(tmp_path / "photos")
    for kind in ("noisy", "clean"):
        with Image.open(corpus / kind / "s0_0.png") as photo:
            photo.save(corpus / kind / "copy_0.png", compress_level=1)
    done = serial_ingest(corpus, tmp_path / "out")
    (refused,) = [row for row in done.patch_set.catalog if row.refused]
    assert "it has the pixels of" in str(refused.refused)
    found = splits(done.patch_set)
    assert found["pairs/copy"] == found["pairs/s0"]


def copies(corpus: Path, scene: str) -> None:
    """Other pairs of a scene under other names: darker, and at half the size."""
    with Image.open(corpus / f"clean/{scene}_0.png") as photo:
        clean = np.asarray(photo)
    for number, other in enumerate((clean // 2, clean[::2, ::2])):
        write_png(corpus / f"clean/{scene}copy{number}_0.png", other)
        write_png(corpus / f"noisy/{scene}copy{number}_0.png", with_noise(other, 100 + number))


def test_scenes_that_show_the_same_share_a_split(tmp_path: Path) -> None:
    corpus = write_pairs(tmp_path / "photos", scenes=12)
    for number in range(12):
        copies(corpus, f"s{number}")
    done = serial_ingest(corpus, tmp_path / "out")
    assert done.alike == 24
    found = splits(done.patch_set)
    assert set(found.values()) == {"train", "val", "test"}
    for number in range(12):
        names = (f"s{number}", f"s{number}copy0", f"s{number}copy1")
        assert len({found[f"pairs/{name}"] for name in names}) == 1


def test_labels_do_not_divide_the_scenes_of_a_published_corpus(tmp_path: Path) -> None:
    for label in ("small", "medium"):
        for number in range(8):
            folder = tmp_path / label / f"Data/{number:04}_{number:03}_GP_00100_00060_5500_N"
            write_pair(tmp_path / "any", f"s{number}", label)
            for kind, name in (("noisy", "NOISY"), ("clean", "GT")):
                folder.mkdir(parents=True, exist_ok=True)
                source = tmp_path / f"any/{kind}/s{number}_{label}.png"
                (folder / f"{name}_SRGB_010.PNG").write_bytes(source.read_bytes())
    done = serial_ingest(
        [f"sidd:{label}={tmp_path / label}" for label in ("small", "medium")], tmp_path / "out"
    )
    rows = done.patch_set.catalog
    assert len({row.id for row in rows}) == 16
    assert len({row.scene for row in rows}) == 8
    assert all(
        len({r.split for r in rows if r.scene == scene}) == 1 for scene in splits(done.patch_set)
    )


def splits_that_only_memory_has(corpus: Path, out: Path) -> dict[str, str]:
    """Splits of an ingest that named its scenes; one that names none would choose others."""
    fresh = splits(serial_ingest(corpus, out.with_name("fresh")).patch_set)
    val, test = [scene.split("/")[1] for scene, split in fresh.items() if split == "train"][:2]
    named = serial_ingest(corpus, out, val_scenes=(val,), test_scenes=(test,))
    return splits(named.patch_set)


@pytest.mark.parametrize("change", ["renamed", "labelled", "forgotten", "away"])
def test_a_held_out_scene_stays_held_out(tmp_path: Path, change: str) -> None:
    corpus, out = write_pairs(tmp_path / "photos", scenes=9), tmp_path / "out"
    before = splits_that_only_memory_has(corpus, out)
    number = {scene: scene.split("/")[1] for scene in before}
    if change == "renamed":
        for name in number.values():
            for kind in ("noisy", "clean"):
                (corpus / kind / f"{name}_0.png").rename(corpus / kind / f"{name[::-1]}_0.png")
        number = {scene: name[::-1] for scene, name in number.items()}
    elif change == "forgotten":
        (out / "current.json").unlink()
    elif change == "away":
        # Other names, and other pictures.
        for scene in range(9):
            write_pair(tmp_path / "other", f"o{scene}")
        done = serial_ingest(tmp_path / "other", out)
        assert not set(splits(done.patch_set)) & set(before)
    label = "mine" if change == "labelled" else "pairs"
    text = f"pairs:mine={corpus}" if change == "labelled" else corpus
    done = serial_ingest(text, out)
    after = splits(done.patch_set)
    assert after == {f"{label}/{number[scene]}": split for scene, split in before.items()}
    assert done.moves == []


def test_a_scene_whose_photos_are_replaced_stays_in_its_split_by_name(tmp_path: Path) -> None:
    corpus, out = write_pairs(tmp_path / "photos", scenes=9), tmp_path / "out"
    before = splits_that_only_memory_has(corpus, out)
    for scene in before:
        write_pair(corpus, scene.split("/")[1], seed=1)
    assert splits(serial_ingest(corpus, out).patch_set) == before


def test_a_scene_that_was_away_and_comes_back_with_other_photos_has_its_split(
    tmp_path: Path,
) -> None:
    corpus, out = write_pairs(tmp_path / "photos", scenes=9), tmp_path / "out"
    before = splits_that_only_memory_has(corpus, out)
    gone = [scene.split("/")[1] for scene, split in before.items() if split != "train"]
    write_pairs(corpus, scenes=20)
    for name in gone:
        for kind in ("noisy", "clean"):
            (corpus / kind / f"{name}_0.png").unlink()
    away = splits(serial_ingest(corpus, out).patch_set)
    assert not {f"pairs/{name}" for name in gone} & set(away)
    for name in gone:
        write_pair(corpus, name, seed=1)
    back = splits(serial_ingest(corpus, out).patch_set)
    assert {scene: back[scene] for scene in before} == before


def test_leaving_the_test_split_needs_an_option(tmp_path: Path) -> None:
    corpus, out = write_pairs(tmp_path / "photos", scenes=8), tmp_path / "out"
    first = serial_ingest(corpus, out).patch_set
    test, other = scene_of(first, "test"), scene_of(first, "train")
    with pytest.raises(UserError, match=rf"1 scenes would leave the test split \(pairs/{test}\)"):
        serial_ingest(corpus, out, test_scenes=(other,))
    assert splits(serial_ingest(corpus, out).patch_set) == splits(first)
    done = serial_ingest(corpus, out, test_scenes=(other,), release_test=True)
    assert sorted(done.moves) == sorted(
        [f"pairs/{test}: test to train", f"pairs/{other}: train to test"]
    )
    # What was moved is remembered.
    assert splits(serial_ingest(corpus, out).patch_set) == splits(done.patch_set)


def test_a_new_scene_that_shows_a_test_scene_is_held_out(tmp_path: Path) -> None:
    corpus, out = write_pairs(tmp_path / "photos", scenes=9), tmp_path / "out"
    test = scene_of(serial_ingest(corpus, out).patch_set, "test")
    copies(corpus, test)
    after = splits(serial_ingest(corpus, out).patch_set)
    assert [after[f"pairs/{test}copy{n}"] for n in (0, 1)] == ["test", "test"]


def test_scenes_that_show_the_same_are_not_named_for_two_splits(tmp_path: Path) -> None:
    corpus = write_pairs(tmp_path / "photos", scenes=9)
    copies(corpus, "s0")
    with pytest.raises(UserError, match="scene 's0copy1' is named for test, but it shows what"):
        serial_ingest(corpus, tmp_path / "out", val_scenes=("s0",), test_scenes=("s0copy1",))


def test_damaged_memory_is_named(tmp_path: Path) -> None:
    corpus, out = write_pairs(tmp_path / "photos"), tmp_path / "out"
    serial_ingest(corpus, out)
    memory = out / "splits.parquet"
    content = bytearray(memory.read_bytes())
    content[len(content) // 3] ^= 1
    memory.write_bytes(content)
    with pytest.raises(UserError, match=r"splits\.parquet' is damaged"):
        serial_ingest(corpus, out)


def test_contradictory_splits_of_a_scene_are_wrong_input(tmp_path: Path) -> None:
    corpus = write_pairs(tmp_path / "photos", shots=2)
    rows = [
        f"noisy/s{n}_{shot}.png,clean/s{n}_{shot}.png,s{n},{split}"
        for n, splits_of in enumerate([("train", "test"), ("val", "val"), ("test", "test")])
        for shot, split in enumerate(splits_of)
    ]
    table = corpus / "pairs.csv"
    table.write_text("\n".join(["noisy,clean,scene,split", *rows]))
    with pytest.raises(UserError, match="scene 'pairs/s0' has the splits train and test; give all"):
        serial_ingest(f"pairs={table}", tmp_path / "out")


def test_a_pair_wins_over_the_same_photo_without_a_clean_one(tmp_path: Path) -> None:
    corpus, noisy = write_pairs(tmp_path / "photos"), tmp_path / "alone"
    noisy.mkdir()
    (noisy / "again.png").write_bytes((corpus / "noisy/s0_0.png").read_bytes())
    done = serial_ingest([f"noisy:a={noisy}", f"pairs={corpus}"], tmp_path / "out")
    (refused,) = [row for row in done.patch_set.catalog if row.refused]
    assert refused.unpaired


def test_duplicates_are_no_bad_photos(tmp_path: Path) -> None:
    corpus = write_pairs(tmp_path / "photos")
    for number in range(4):
        for kind in ("noisy", "clean"):
            photo = (corpus / kind / f"s{number}_0.png").read_bytes()
            (corpus / kind / f"s{number}_copy.png").write_bytes(photo)
    done = serial_ingest(corpus, tmp_path / "out", max_refused=0)
    assert done.patch_set.manifest.refused == 4


def test_one_ingest_at_a_time(tmp_path: Path) -> None:
    corpus, out = write_pairs(tmp_path / "photos"), tmp_path / "out"

    def second() -> None:
        serial_ingest(corpus, out)

    with pytest.raises(JobFailedError, match="another ingest is running"):
        serial_ingest(corpus, out, before_publishing=second)
    assert not (out / "current.json").exists()
    serial_ingest(corpus, out)


def test_noise_like_a_set_s_is_that_of_its_train_pairs(tmp_path: Path) -> None:
    photos = write_pairs(tmp_path / "photos", scenes=8)
    # The first pairs by name, so that a fit of all pairs would be one of theirs.
    for name in ("s0", "s1"):
        clean = np.asarray(Image.open(photos / f"clean/{name}_0.png"))
        write_png(photos / f"noisy/{name}_0.png", with_noise(clean, deviation=40))
    serial_ingest(
        photos, tmp_path / "out", val_scenes=("s0",), test_scenes=("s1",), max_refused=0.9
    )
    like = CorpusOptions(noise=f"like:{tmp_path / 'out'}")
    made, _ = list_corpora([f"clean={photos / 'clean'}"], like, Storage())
    (noise,) = {pair.noise for pair in made}
    gain, read, _ = (float(part) for part in str(noise).removeprefix("fitted:").split(","))
    assert gain * 0.2 + read < (20 / 255) ** 2


def test_an_ingest_that_lost_its_lease_publishes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Lost:
        def check(self) -> None:
            raise JobFailedError("the lease was lost")

    corpus, out = write_pairs(tmp_path / "photos"), tmp_path / "out"
    monkeypatch.setattr(run, "exclusive", lambda *_: contextlib.nullcontext(Lost()))
    with pytest.raises(JobFailedError, match="the lease was lost"):
        serial_ingest(corpus, out)
    assert [path.name for path in out.iterdir()] == ["shards"]


def test_scenes_without_a_usable_photo_are_not_chosen_to_score_by(tmp_path: Path) -> None:
    photos = write_pairs(tmp_path / "photos", 8)
    before = serial_ingest(photos, tmp_path / "before").patch_set
    for row in (*before.photos("val"), *before.photos("test")):
        Path(row.noisy).write_bytes(b"damaged")
    after = serial_ingest(photos, tmp_path / "after").patch_set
    assert after.photos("val")
    assert after.photos("test")
    # Where they are remembered they stay, and the error says so.
    with pytest.raises(UserError, match="split were refused"):
        serial_ingest(photos, tmp_path / "before")


def test_a_scene_of_duplicates_alone_has_the_split_of_what_it_repeats(tmp_path: Path) -> None:
    photos = write_pairs(tmp_path / "photos", 8)
    for number in range(8):
        for kind in ("noisy", "clean"):
            file = photos / kind / f"s{number}_0.png"
            (photos / kind / f"t{number}_0.png").write_bytes(file.read_bytes())
    catalog = serial_ingest(photos, tmp_path / "out").patch_set.catalog
    of = {row.scene: row.split for row in catalog}
    assert [of[f"pairs/t{n}"] for n in range(8)] == [of[f"pairs/s{n}"] for n in range(8)]
