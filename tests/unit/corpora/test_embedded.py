"""The embedded corpus: its pairs and their fixed splits."""

from pathlib import Path

import pytest
from unit.corpus_names import ANY

from degrain.corpora import embedded
from degrain.corpora.embedded import list_embedded, write_embedded
from degrain.corpora.listing import FolderNames
from degrain.errors import UserError
from degrain.imaging.camera_noise import ISO_LEVELS
from degrain.storage.location import Storage


def embedded_names() -> list[str]:
    noisy = [
        embedded.NOISY_TEMPLATE.format(scene=s, iso=iso)
        for s in embedded.SPLITS
        for iso in ISO_LEVELS
    ]
    return noisy + [embedded.CLEAN_TEMPLATE.format(scene=s) for s in embedded.SPLITS]


def test_the_embedded_corpus_has_fixed_splits() -> None:
    pairs, unplaced = list_embedded(FolderNames(embedded_names(), ANY))
    assert unplaced == []
    assert len(pairs) == 21
    assert len({p.id for p in pairs}) == 21
    assert {p.iso for p in pairs} == set(ISO_LEVELS)
    assert {p.scene.removeprefix("embedded/"): p.split for p in pairs} == {
        "astronaut": "train",
        "coffee": "train",
        "hubble": "train",
        "ihc": "train",
        "retina": "train",
        "rocket": "val",
        "chelsea": "test",
    }


def test_a_foreign_pair_among_the_embedded_ones_is_not_placed() -> None:
    foreign = ["clean/mine.png", "noisy/mine_ISO800.png"]
    pairs, unplaced = list_embedded(FolderNames([*embedded_names(), *foreign], ANY))
    assert len(pairs) == 21
    assert unplaced == foreign


def test_files_of_the_user_are_not_replaced(tmp_path: Path) -> None:
    folder = Storage().locate(tmp_path)
    (tmp_path / "clean").mkdir()
    mine = tmp_path / "clean/coffee.png"
    mine.write_bytes(b"mine")
    with pytest.raises(UserError, match=r"coffee\.png' is not a photo of the embedded"):
        write_embedded(folder)
    assert mine.read_bytes() == b"mine"
    mine.unlink()
    # What the interrupted call has written is no obstacle, nor are photos of an older version.
    write_embedded(folder)
    mine.write_bytes(b"older")
    (tmp_path / "recipe.json").write_text("{}")
    write_embedded(folder)
    assert mine.read_bytes() != b"older"
