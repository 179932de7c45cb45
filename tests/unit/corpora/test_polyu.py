"""PolyU: file names become pairs."""

import pytest
from unit.corpus_names import ANY, polyu

from degrain.corpora.listing import FolderNames
from degrain.corpora.polyu import list_polyu
from degrain.corpora.record import PairRecord


@pytest.mark.parametrize(
    ("stem", "camera", "iso", "shutter", "scene"),
    [
        ("Canon5D2_5_160_3200_chair_11", "Canon5D2", 3200, "160", "chair"),
        ("Sony_4-5_125_3200_plant_3", "Sony", 3200, "125", "plant"),
        ("NikonD800_6-3_125_5000_plant__1", "NikonD800", 5000, "125", "plant"),
        ("Canon80D_8_8_800_GO_15", "Canon80D", 800, "8", "go"),
        ("Nikon_D800_10_100_6400_plan_and_sofa_2", "Nikon_D800", 6400, "100", "plan_and_sofa"),
    ],
)
@pytest.mark.parametrize("suffix", ["JPG", "png"])
def test_regular_and_irregular_polyu_names_are_paired(
    stem: str, camera: str, iso: int, shutter: str, scene: str, suffix: str
) -> None:
    clean, noisy = polyu(stem, suffix=suffix)
    assert list_polyu(FolderNames([noisy, clean], ANY)) == (
        [
            PairRecord(
                id=f"polyu/CroppedImages/{stem}",
                corpus="polyu",
                scene=f"polyu/{scene}",
                noisy=noisy,
                clean=clean,
                camera=camera,
                iso=iso,
                shutter=f"1/{shutter}",
            )
        ],
        [],
    )


def test_polyu_objects_photographed_by_several_cameras_are_one_scene() -> None:
    pairs, _ = list_polyu(
        FolderNames(polyu("Sony_4-5_125_1600_toy_1", "Canon600D_4-5_125_1600_Toy_11"), ANY)
    )
    assert {p.scene for p in pairs} == {"polyu/toy"}
    assert len({p.camera for p in pairs}) == 2


@pytest.mark.parametrize(
    "foreign", ["Sony_4_200_3200_door_9_real.JPG", "door_real.JPG", "Sony_4_200_3200_door_9.JPG"]
)
def test_photos_that_are_no_polyu_pair_are_reported(foreign: str) -> None:
    pairs, unplaced = list_polyu(FolderNames([*polyu("Sony_4_200_3200_door_1"), foreign], ANY))
    assert len(pairs) == 1
    assert unplaced == [foreign]
