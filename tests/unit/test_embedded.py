"""The embedded corpus: its pairs and their fixed splits."""

from unit.corpus_names import ANY

from degrain.corpora import embedded
from degrain.corpora.embedded import list_embedded
from degrain.imaging.camera_noise import ISO_LEVELS


def embedded_names() -> list[str]:
    noisy = [
        embedded.NOISY_TEMPLATE.format(scene=s, iso=iso)
        for s in embedded.SPLITS
        for iso in ISO_LEVELS
    ]
    return noisy + [embedded.CLEAN_TEMPLATE.format(scene=s) for s in embedded.SPLITS]


def test_the_embedded_corpus_has_fixed_splits() -> None:
    pairs, unplaced = list_embedded(embedded_names(), ANY)
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
    pairs, unplaced = list_embedded([*embedded_names(), *foreign], ANY)
    assert len(pairs) == 21
    assert unplaced == foreign
