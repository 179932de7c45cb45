"""Ingest: inputs that cannot be ingested are refused before anything is read or written."""

from pathlib import Path

import pytest
from unit.patchset_support import STORAGE
from unit.support import random_photo, write_png

from degrain.errors import UserError
from degrain.patchsets.ingest.config import IngestConfig
from degrain.patchsets.ingest.run import ingest


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for seed, kind in enumerate(("noisy", "clean")):
        write_png(tmp_path / "photos" / kind / "a.png", random_photo(16, 16, seed))
    return tmp_path / "photos"


@pytest.mark.parametrize("below", ["", "out", "deep/out", "noisy/../out"])
def test_an_output_folder_inside_a_corpus_is_refused(photos: Path, below: str) -> None:
    config = IngestConfig(corpus=(f"pairs={photos}",), out=f"{photos}/{below}")
    with pytest.raises(UserError, match=r"`out` '.+' is inside the corpus '.+'; name a folder"):
        ingest(config, STORAGE)
    assert sorted(path.name for path in photos.iterdir()) == ["clean", "noisy"]


def test_an_output_folder_that_links_into_a_corpus_is_refused(photos: Path) -> None:
    link = photos.parent / "link"
    link.symlink_to(photos)
    with pytest.raises(UserError, match="is inside the corpus"):
        ingest(IngestConfig(corpus=(f"pairs={photos}",), out=f"{link}/out"), STORAGE)


def test_a_corpus_inside_the_output_folder_is_refused(photos: Path) -> None:
    config = IngestConfig(corpus=(f"pairs={photos}",), out=str(photos.parent))
    with pytest.raises(UserError, match=r"the corpus '.+' is inside `out` '.+'; name another"):
        ingest(config, STORAGE)


def test_a_folder_whose_name_begins_alike_is_another_folder(photos: Path) -> None:
    config = IngestConfig(corpus=(f"pairs={photos}",), out=f"{photos}-patches")
    with pytest.raises(UserError, match="no scene is left"):
        ingest(config, STORAGE)


def test_a_pair_of_two_corpora_with_one_label_is_refused(photos: Path) -> None:
    config = IngestConfig(corpus=(f"pairs={photos}", f"pairs={photos}"), out=f"{photos}-patches")
    with pytest.raises(UserError, match=r"pair 'pairs/noisy/a\.png' exists twice; name a corpus"):
        ingest(config, STORAGE)
