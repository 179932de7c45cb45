"""Clean photos: each becomes a pair per synthetic noise."""

from degrain.corpora.clean import list_clean
from degrain.corpora.config import CorpusOptions
from degrain.corpora.listing import FolderNames


def test_clean_photos_become_a_pair_for_each_noise() -> None:
    pairs, unplaced = list_clean(
        FolderNames(["b.png", "deep/a.png"], CorpusOptions(noise="camera:800,3200"))
    )
    assert unplaced == []
    assert [(p.id, p.scene, p.iso, p.noise) for p in pairs] == [
        ("clean/b.png#camera:800", "clean/b.png", 800, "camera:800"),
        ("clean/b.png#camera:3200", "clean/b.png", 3200, "camera:3200"),
        ("clean/deep/a.png#camera:800", "clean/deep/a.png", 800, "camera:800"),
        ("clean/deep/a.png#camera:3200", "clean/deep/a.png", 3200, "camera:3200"),
    ]
    assert all(p.noisy == p.clean and p.camera == "synthetic" for p in pairs)
