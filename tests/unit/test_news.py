"""What a retraining takes for new."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from degrain.corpora.config import CorpusOptions
from degrain.corpora.record import PairRecord
from degrain.imaging.codecs import encode_png
from degrain.patchsets.catalog import write_catalog
from degrain.patchsets.ingest.config import IngestConfig
from degrain.patchsets.listing import list_corpora
from degrain.retraining.news import News, find_news
from degrain.storage.location import Storage

VERSION = "0123456789ab"


@pytest.fixture
def config(tmp_path: Path) -> IngestConfig:
    """Three pairs, and a catalog of them as version VERSION."""
    for name in ("a", "b", "c"):
        write_pair(tmp_path / "photos", name)
    config = IngestConfig(
        corpus=[f"pairs={tmp_path / 'photos'}"],
        out=str(tmp_path / "patches"),
        options=CorpusOptions(noisy_name="noisy/{name}.png", clean_name="clean/{name}.png"),
    )
    records, _ = list_corpora(config.corpus, config.options, Storage())
    folder = tmp_path / "patches" / VERSION
    folder.mkdir(parents=True)
    (folder / "catalog.parquet").write_bytes(write_catalog(records))
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
    (tmp_path / "patches" / VERSION).mkdir(parents=True)
    catalog = tmp_path / "patches" / VERSION / "catalog.parquet"
    catalog.write_bytes(write_catalog(records))
    assert find_news(config, Storage(), VERSION).pairs == []
    write_pair(tmp_path / "photos", "gone")
    assert [p.id for p in find_news(config, Storage(), VERSION).pairs] == ["pairs/noisy/gone.png"]
