"""SIDD: file names become pairs."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.corpus_names import ANY, FOLDER, sidd

from degrain.corpora.listing import FolderNames
from degrain.corpora.record import PairRecord
from degrain.corpora.sidd import list_sidd


@pytest.mark.parametrize("root", ["", "Data/", "a b/SIDD Small/Data/"])
@pytest.mark.parametrize("prefix", ["", "0001_"])
@pytest.mark.parametrize("suffix", ["PNG", "png"])
@pytest.mark.parametrize("number", ["010", "011"])
def test_sidd_names_with_prefixes_folders_and_cases_are_paired(
    root: str, prefix: str, suffix: str, number: str
) -> None:
    clean, noisy = (root + name for name in sidd(prefix, number, suffix))
    pairs, unplaced = list_sidd(FolderNames([noisy, clean], ANY))
    assert unplaced == []
    assert pairs == [
        PairRecord(
            id=f"sidd/{FOLDER}/{number}",
            corpus="sidd",
            scene="sidd/001",
            noisy=noisy,
            clean=clean,
            camera="S6",
            iso=100,
            shutter="1/60",
            brightness="L",
        )
    ]


def test_sidd_shots_of_one_scene_by_several_phones() -> None:
    other = "0002_001_GP_03200_01600_5500_N"
    pairs, unplaced = list_sidd(
        FolderNames([*sidd(), *sidd(number="011"), *sidd(folder=other)], ANY)
    )
    assert unplaced == []
    assert [p.id for p in pairs] == [
        f"sidd/{FOLDER}/010",
        f"sidd/{FOLDER}/011",
        f"sidd/{other}/010",
    ]
    assert {p.scene for p in pairs} == {"sidd/001"}
    assert [(p.camera, p.iso, p.brightness) for p in pairs][2] == ("GP", 3200, "N")


def test_sidd_photos_of_other_numbers_or_prefixes_are_no_pair() -> None:
    noisy = [f"{FOLDER}/NOISY_SRGB_010.PNG", f"{FOLDER}/0001_NOISY_SRGB_012.PNG"]
    clean = [f"{FOLDER}/GT_SRGB_011.PNG", f"{FOLDER}/GT_SRGB_012.PNG"]
    pairs, unplaced = list_sidd(FolderNames([*noisy, *clean], ANY))
    assert pairs == []
    assert unplaced == sorted([*noisy, *clean])


@pytest.mark.parametrize(
    "foreign",
    [
        f"{FOLDER}/NOISY_SRGB_011.PNG",  # without its clean photo
        f"{FOLDER}/GT_SRGB_011.PNG",  # without its noisy photo
        "Thumbs.png",
        "NOISY_SRGB_010.PNG",
        "not_a_scene/NOISY_SRGB_010.PNG",
        f"{FOLDER}/NOISY_RAW_010.PNG",
        f"{FOLDER}/NOISY_SRGB_010.PNG.png",
    ],
)
def test_photos_that_are_no_sidd_pair_are_reported(foreign: str) -> None:
    pairs, unplaced = list_sidd(FolderNames([*sidd(), foreign], ANY))
    assert len(pairs) == 1
    assert unplaced == [foreign]


def test_a_foreign_pair_of_folders_is_not_sidd() -> None:
    names = sidd(folder="not_a_scene")
    assert list_sidd(FolderNames(names, ANY)) == ([], sorted(names))


@settings(max_examples=30, deadline=None)
@given(
    names=st.permutations(
        [
            *sidd(),
            *sidd(number="011"),
            *sidd("0002_", folder="0002_001_GP_03200_01600_5500_N"),
            "x.png",
            "y/GT.png",
        ]
    )
)
def test_the_order_of_sidd_names_does_not_matter(names: list[str]) -> None:
    assert list_sidd(FolderNames(names, ANY)) == list_sidd(FolderNames(sorted(names), ANY))
