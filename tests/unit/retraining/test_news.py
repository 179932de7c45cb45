"""What a retraining takes for new."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from unit.patchset_support import MANIFEST, publish_rows

from degrain.corpora.config import CorpusOptions
from degrain.corpora.record import PairRecord
from degrain.errors import UserError
from degrain.imaging.codecs import encode_png
from degrain.patchsets.ingest.config import IngestConfig
from degrain.patchsets.listing import list_corpora
from degrain.retraining.news import News, find_news
from degrain.storage.location import Storage

VERSION = "0123456789ab"


@pytest.fixture
def config(tmp_path: Path) -> IngestConfig:
    """Three pairs, and a patch set of them as version VERSION."""
    for name in ("a", "b", "c"):
        write_pair(tmp_path / "photos", name)
    config = IngestConfig(
        corpus=[f"pairs={tmp_path / 'photos'}"],
        out=str(tmp_path / "patches"),
        options=CorpusOptions(noisy_name="noisy/{name}.png", clean_name="clean/{name}.png"),
    )
    records, _ = list_corpora(config.corpus, config.options, Storage())
    root = Storage().locate(config.out)
    publish_rows(root, records, replace(MANIFEST, version=VERSION))
    return config


def write_pair(folder: Path, name: str) -> None:
    for kind in ("noisy", "clean"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        photo = np.zeros((8, 8, 3), np.uint8)
        (folder / kind / f"{name}.png").write_bytes(encode_png(photo))


def names(news: News) -> list[str]:
    return [pair.id.rpartition("/")[2] for pair in news.pairs]


def test_nothing_is_new_if_no_file_has_changed(config: IngestConfig) -> None:
    news = find_news(config, Storage(), VERSION)
    assert news.pairs == []
    assert news.describe() == f"no new pairs since patch set {VERSION}"


def test_added_and_changed_pairs_are_new_and_removed_ones_are_not(
    config: IngestConfig, tmp_path: Path
) -> None:
    photos = tmp_path / "photos"
    write_pair(photos, "d")
    os.utime(photos / "noisy" / "b.png", (1, 1))
    for kind in ("noisy", "clean"):
        (photos / kind / "a.png").unlink()
    assert names(find_news(config, Storage(), VERSION)) == ["b.png", "d.png"]


def test_a_pair_whose_names_are_those_of_other_files_is_new(
    config: IngestConfig, tmp_path: Path
) -> None:
    """Of equal size and time: a copy that keeps times."""
    shutil.copytree(tmp_path / "photos/clean", tmp_path / "photos/better")
    options = CorpusOptions(noisy_name="noisy/{name}.png", clean_name="better/{name}.png")
    assert len(find_news(replace(config, options=options), Storage(), VERSION).pairs) == 3


def test_a_damaged_patch_set_is_named_and_not_taken_for_a_missing_one(
    config: IngestConfig, tmp_path: Path
) -> None:
    for file in (tmp_path / "patches" / VERSION).iterdir():
        content = file.read_bytes()
        file.write_bytes(content[:-1])
        with pytest.raises(UserError, match=f"cannot read '{file}': it is damaged"):
            find_news(config, Storage(), VERSION)
        file.write_bytes(content)


@pytest.mark.parametrize("since", [None, "ffffffffffff"])
def test_all_pairs_are_new_without_an_earlier_patch_set(
    config: IngestConfig, since: str | None
) -> None:
    news = find_news(config, Storage(), since)
    assert names(news) == ["a.png", "b.png", "c.png"]
    assert news.describe() == "3 new pairs: 3 of unknown camera"


def test_a_description_names_the_most_frequent_cameras() -> None:
    pair = PairRecord(id="x/1", corpus="x", scene="x/1", noisy="n", clean="c")
    cameras = ["S6", "S6", "IP", "GP", "N6", "G4"]
    news = News([replace(pair, camera=camera) for camera in cameras], VERSION, None)
    assert news.describe() == (
        f"6 new pairs since patch set {VERSION}: 2 of S6, 1 of IP, 1 of GP, 1 of N6, other cameras"
    )


def test_a_pair_whose_file_is_missing_is_new_once(tmp_path: Path) -> None:
    write_pair(tmp_path / "photos", "a")
    table = tmp_path / "photos" / "pairs.csv"
    table.write_text("noisy,clean\nnoisy/a.png,clean/a.png\nnoisy/gone.png,clean/gone.png\n")
    config = IngestConfig(corpus=[f"pairs={table}"], out=str(tmp_path / "patches"))
    records, _ = list_corpora(config.corpus, config.options, Storage())
    root = Storage().locate(config.out)
    publish_rows(root, records, replace(MANIFEST, version=VERSION))
    assert find_news(config, Storage(), VERSION).pairs == []
    write_pair(tmp_path / "photos", "gone")
    assert [p.id for p in find_news(config, Storage(), VERSION).pairs] == ["pairs/noisy/gone.png"]
