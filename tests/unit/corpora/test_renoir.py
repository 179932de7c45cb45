"""RENOIR: file names become pairs."""

from pathlib import Path

import pytest
from unit.corpus_names import ANY, renoir
from unit.support import random_photo, write_png

from degrain.corpora.base import Corpus
from degrain.corpora.listing import FolderNames
from degrain.corpora.record import PairRecord
from degrain.corpora.renoir import list_renoir
from degrain.storage.location import Storage

STORAGE = Storage()


def test_renoir_batches_are_scenes_of_a_camera() -> None:
    names = [
        *renoir(),
        *renoir("S90"),
        "T3i_Aligned/Batch_002/IMG_0001Noisy.bmp",
        "T3i_Aligned/Batch_002/IMG_0002Reference.bmp",
    ]
    pairs, unplaced = list_renoir(FolderNames(names, ANY))
    assert unplaced == []
    assert [(p.scene, p.camera) for p in pairs] == [
        ("renoir/Mi3/Batch_001", "Mi3"),
        ("renoir/S90/Batch_001", "S90"),
        ("renoir/T3i/Batch_002", "T3i"),
    ]
    assert pairs[2] == PairRecord(
        id="renoir/T3i/Batch_002/IMG_0001Noisy",
        corpus="renoir",
        scene="renoir/T3i/Batch_002",
        noisy=names[4],
        clean=names[5],
        camera="T3i",
    )


def test_renoir_given_as_one_camera_s_folder_has_the_same_ids() -> None:
    names = [*renoir(), *renoir(batch="002")]
    whole, _ = list_renoir(FolderNames(names, ANY, "RENOIR"))
    below = [name.removeprefix("Mi3_Aligned/") for name in names]
    one, unplaced = list_renoir(FolderNames(below, ANY, "Mi3_Aligned"))
    assert unplaced == []
    assert [(p.id, p.scene, p.camera) for p in one] == [(p.id, p.scene, p.camera) for p in whole]
    assert [p.noisy for p in one] == [below[0], below[2]]


def test_renoir_masks_are_left_aside_and_several_noisy_share_a_reference() -> None:
    names = renoir(kinds=("Noisy", "Reference", "Mask", "noisy", "MASK"))
    pairs, unplaced = list_renoir(FolderNames(names, ANY))
    assert unplaced == []
    assert [(p.noisy, p.clean) for p in pairs] == [(names[0], names[1]), (names[3], names[1])]
    assert len({p.id for p in pairs}) == 2


@pytest.mark.parametrize(
    "kinds", [("Noisy",), ("Reference",), ("Noisy", "Reference", "Reference"), ("Full", "Other")]
)
def test_renoir_batches_without_one_reference_are_reported(kinds: tuple[str, ...]) -> None:
    bad = renoir(batch="009", kinds=kinds)
    pairs, unplaced = list_renoir(FolderNames([*renoir(), *bad, "top.bmp"], ANY))
    assert len(pairs) == 1
    assert unplaced == sorted([*bad, "top.bmp"])


@pytest.mark.parametrize("below", ["", "/Mi3_Aligned"])
def test_renoir_s_camera_is_known_from_the_folder_itself(tmp_path: Path, below: str) -> None:
    for kind in ("Noisy", "Reference"):
        write_png(tmp_path / f"Mi3_Aligned/Batch_001/IMG_1{kind}.png", random_photo(8, 8))
    pairs, _ = Corpus.parse(f"renoir={tmp_path}{below}", STORAGE).list_pairs(ANY)
    assert [(p.id, p.camera) for p in pairs] == [("renoir/Mi3/Batch_001/IMG_1Noisy", "Mi3")]
