"""Corpora: folders are listed, and every photo is paired or reported."""

import os
import re
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.corpus_names import ANY, FOLDER, polyu, renoir, sidd
from unit.support import random_photo, write_png

from degrain.corpora.base import ADAPTERS, Corpus
from degrain.corpora.config import Adapter
from degrain.corpora.listing import FolderNames
from degrain.errors import UserError
from degrain.storage.location import Storage

STORAGE = Storage()
KNOWN = "Known corpora: clean, embedded, nind, noisy, pairs, polyu, renoir, sidd"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "sid=/photos",
            f"unknown corpus 'sid'; did you mean 'sidd'? {KNOWN}",
        ),
        ("pair=/photos", "did you mean 'pairs'?"),
        (
            "zzz=/photos",
            f"unknown corpus 'zzz'. {KNOWN}",
        ),
        ("sidd", "cannot read corpus 'sidd': write NAME=URI, e.g. sidd=s3://bucket/SIDD"),
        ("sidd=", "cannot read corpus 'sidd=': write NAME=URI"),
        ("sidd=ftp://host/photos", "only local paths and s3:// are supported"),
    ],
)
def test_an_invalid_corpus_is_refused_with_the_reason(text: str, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        Corpus.parse(text, STORAGE)


def test_an_equals_sign_in_a_path_stays() -> None:
    corpus = Corpus.parse("pairs=/photos/a=b", STORAGE)
    assert (corpus.adapter, str(corpus.folder)) == ("pairs", "/photos/a=b")


@pytest.mark.parametrize(
    ("adapter", "names"),
    [
        ("sidd", sidd()),
        ("renoir", renoir()),
        ("polyu", polyu("Sony_4-5_125_3200_plant_3", suffix="png")),
        ("nind", ["NIND_x_ISO200.png", "NIND_x_ISO6400.png"]),
        ("embedded", []),
        ("pairs", ["noisy/a.png", "clean/a.png"]),
        ("clean", ["a.png"]),
        ("noisy", ["a.png"]),
    ],
)
def test_pairs_of_published_corpora_are_not_the_user_s_own(
    adapter: str, names: list[str], tmp_path: Path
) -> None:
    for name in names:
        write_png(tmp_path / name, random_photo(8, 8))
    pairs, _ = Corpus.parse(f"{adapter}={tmp_path}", STORAGE).list_pairs(ANY)
    published = adapter in ("embedded", "nind", "polyu", "renoir", "sidd")
    assert {pair.own for pair in pairs} == {not published}


def test_a_folder_is_listed_with_uris_and_sizes(tmp_path: Path) -> None:
    folder = tmp_path / "my photos 100%" / "日本"
    clean = write_png(folder / "clean/a.png", random_photo(8, 8))
    noisy = write_png(folder / "noisy/a.png", random_photo(8, 8, 1))
    stray = write_png(folder / "stray.PNG", random_photo(8, 8))
    (folder / "metadata.txt").write_text("no photo")
    pairs, unplaced = Corpus.parse(f"pairs={folder}", STORAGE).list_pairs(ANY)
    assert [(p.id, p.noisy, p.clean) for p in pairs] == [("pairs/noisy/a.png", noisy, clean)]
    assert pairs[0].encoded_bytes == Path(noisy).stat().st_size + Path(clean).stat().st_size
    assert unplaced == [f"{stray} (neither template matches)"]


def test_a_missing_folder_and_one_without_pairs_are_named(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=f"there is no folder '{tmp_path}/none'; check the path of corpus 'sidd'"
    ):
        Corpus.parse(f"sidd={tmp_path}/none", STORAGE).list_pairs(ANY)
    write_png(tmp_path / "a.png", random_photo(8, 8))
    with pytest.raises(
        UserError,
        match=rf"no pairs in '{tmp_path}' \(1 files\): its names are not those of corpus 'sidd'",
    ):
        Corpus.parse(f"sidd={tmp_path}", STORAGE).list_pairs(ANY)


def test_a_folder_without_pairs_shows_how_names_were_read(tmp_path: Path) -> None:
    for name in ("noisy/a_1.png", "clean/a.png"):
        write_png(tmp_path / name, random_photo(8, 8))
    message = (
        f"no pairs in '{tmp_path}' (2 files), e.g. {tmp_path}/noisy/a_1.png (noisy, name=a_1.png; "
        f"no clean photo has these) and {tmp_path}/clean/a.png (clean, name=a.png); check "
        "`noisy_name` and `clean_name`"
    )
    with pytest.raises(UserError, match=re.escape(message)):
        Corpus.parse(f"pairs={tmp_path}", STORAGE).list_pairs(ANY)


@pytest.mark.parametrize(
    ("adapter", "noisy", "clean"),
    [
        ("sidd", f"{FOLDER}/NOISY_SRGB_010.PNG", f"{FOLDER}/gt_SRGB_010.png"),
        ("renoir", "Mi3_Aligned/Batch_001/aNoisy.BMP", "Mi3_Aligned/Batch_001/bReference.bmp"),
        ("nind", "NIND_a_ISO800.JPG", "NIND_a_ISO100.jpg"),
        ("polyu", "Sony_4_200_3200_door_1_real.JPG", "Sony_4_200_3200_door_1_Mean.jpg"),
        ("pairs", "noisy/a.PNG", "clean/A.png"),
    ],
)
def test_names_may_differ_in_case(adapter: str, noisy: str, clean: str) -> None:
    pairs, unplaced = ADAPTERS[adapter](FolderNames([noisy, clean], ANY))
    assert [(p.noisy, p.clean) for p in pairs] == [(noisy, clean)]
    assert unplaced == []


MIXED = [
    *sidd(),
    *renoir(kinds=("Noisy", "Noisy", "Reference", "Mask")),
    *(f"NIND_x_ISO{iso}.png" for iso in ("100", "100-2", "800", "H1")),
    *polyu("Sony_4-5_125_1600_toy_1", "NikonD800_6-3_125_5000_plant__1"),
    *(f"{kind}/{name}" for kind in ("noisy", "clean") for name in ("a.png", "b.PNG")),
    "stray.png",
]


@pytest.mark.parametrize("adapter", sorted(ADAPTERS))
@settings(max_examples=20, deadline=None)
@given(names=st.permutations(MIXED))
def test_order_does_not_matter_and_every_photo_is_placed_or_reported(
    adapter: str, names: list[str]
) -> None:
    pairs, unplaced = ADAPTERS[adapter](FolderNames(names, ANY))
    assert (pairs, unplaced) == ADAPTERS[adapter](FolderNames(sorted(names), ANY))
    placed = {name for p in pairs for name in (p.noisy, p.clean)}
    assert not placed & set(unplaced)
    ignored = {name for name in MIXED if "Mask" in name} if adapter == "renoir" else set()
    assert placed | set(unplaced) | ignored == set(MIXED)
    assert len({p.id for p in pairs}) == len(pairs)
    assert all(p.id.startswith(f"{adapter}/") and p.scene.startswith(f"{adapter}/") for p in pairs)


def test_a_label_replaces_the_corpus_in_ids_and_scenes(tmp_path: Path) -> None:
    for kind in ("noisy", "clean"):
        write_png(tmp_path / kind / "a.png", random_photo(8, 8))
    plain, labelled = (
        Corpus.parse(f"{name}={tmp_path}", STORAGE).list_pairs(ANY)[0][0]
        for name in ("pairs", "pairs:lab")
    )
    assert (plain.corpus, plain.id, plain.scene) == (
        "pairs",
        "pairs/noisy/a.png",
        "pairs/clean/a.png",
    )
    assert (labelled.corpus, labelled.id, labelled.scene) == (
        "lab",
        "lab/noisy/a.png",
        "lab/clean/a.png",
    )
    assert (labelled.noisy, labelled.stamp) == (plain.noisy, plain.stamp)
    write_png(tmp_path / "clean/a.png", random_photo(9, 9))
    assert Corpus.parse(f"pairs={tmp_path}", STORAGE).list_pairs(ANY)[0][0].stamp != plain.stamp
    with pytest.raises(UserError, match="cannot read corpus 'pairs:a/b=/photos'"):
        Corpus.parse("pairs:a/b=/photos", STORAGE)


@pytest.mark.parametrize(
    ("adapter", "folder", "pairs", "scenes"),
    [
        ("sidd", "SIDD_Small_sRGB_Only_256", 131, 7),
        ("renoir", "Mi3_Aligned", 20, 20),
        ("polyu", "PolyU", 100, 23),
    ],
)
def test_the_real_photo_pairs_are_all_placed(
    shared_data: Path, adapter: str, folder: str, pairs: int, scenes: int
) -> None:
    found, unplaced = Corpus.parse(f"{adapter}={shared_data / folder}", STORAGE).list_pairs(ANY)
    assert unplaced == []
    assert (len(found), len({p.id for p in found}), len({p.scene for p in found})) == (
        pairs,
        pairs,
        scenes,
    )
    assert all(p.camera for p in found)


def test_every_adapter_name_has_an_adapter() -> None:
    assert set(ADAPTERS) == set(get_args(Adapter))


def test_a_file_name_that_is_no_utf8_is_reported_as_unpaired(tmp_path: Path) -> None:
    for kind in ("noisy", "clean"):
        write_png(tmp_path / kind / "a.png", random_photo(8, 8))
    stray = os.fsencode(tmp_path / "noisy") + b"/caf\xe9.png"
    os.rename(write_png(tmp_path / "stray.png", random_photo(8, 8)), stray)  # noqa: PTH104
    pairs, unplaced = Corpus.parse(f"pairs={tmp_path}", STORAGE).list_pairs(ANY)
    assert [pair.id for pair in pairs] == ["pairs/noisy/a.png"]
    assert unplaced == [f"{tmp_path}/noisy/caf\\xe9.png"]
    unplaced[0].encode()


def test_a_corpus_folder_that_is_no_utf8_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    for kind in ("noisy", "clean"):
        write_png(folder / kind / "a.png", random_photo(8, 8))
    with pytest.raises(UserError, match=r"caf\\xe9' is not valid UTF-8; rename it") as raised:
        Corpus.parse(f"pairs={folder}", STORAGE).list_pairs(ANY)
    str(raised.value).encode()


def test_hidden_files_are_neither_paired_nor_reported(tmp_path: Path) -> None:
    for kind in ("noisy", "clean"):
        for name in ("a.png", "._a.png", ".trash/b.png"):
            write_png(tmp_path / kind / name, random_photo(8, 8))
    pairs, unplaced = Corpus.parse(f"pairs={tmp_path}", STORAGE).list_pairs(ANY)
    assert [pair.id for pair in pairs] == ["pairs/noisy/a.png"]
    assert unplaced == []
