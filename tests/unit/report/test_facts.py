"""Measurements of pairs for the exploratory page: their values, and the memory that they take."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from unit.support import natural_photo, pair_record, random_photo, with_noise, write_png

from degrain.corpora.record import PairRecord
from degrain.imaging.pixels import Photo, eight_bits, peak, sixteen_bits
from degrain.patchsets.check_rules import CheckRules
from degrain.patchsets.photos import PhotoSource
from degrain.report import facts
from degrain.report.facts import BINS, measure_pair
from degrain.storage.location import Storage
from degrain.storage.sealed import content_digest

STORAGE = Storage()
SOURCE = PhotoSource(STORAGE, CheckRules())


def stored_pair(folder: Path, noisy: Photo, clean: Photo) -> PairRecord:
    places = [write_png(folder / f"{n}.png", p) for n, p in (("noisy", noisy), ("clean", clean))]
    hashes = [content_digest(Path(place).read_bytes()) for place in places]
    return pair_record(noisy=places[0], clean=places[1], noisy_hash=hashes[0], clean_hash=hashes[1])


@pytest.mark.parametrize("deep", [(False, False), (True, False), (True, True)])
def test_intensities_are_those_of_all_pixels(tmp_path: Path, deep: tuple[bool, bool]) -> None:
    clean = natural_photo(300, 70)
    pair = [
        sixteen_bits(p) + np.uint16(97) * (p < 255) if d else p
        for p, d in zip((with_noise(clean), clean), deep, strict=True)
    ]
    found = measure_pair(stored_pair(tmp_path, *pair), SOURCE)
    for place, photo in enumerate(pair):
        scaled = photo * (255 / peak(photo))
        assert found.mean[place] == pytest.approx(scaled.mean(axis=(0, 1)))
        assert found.deviation[place] == pytest.approx(scaled.std(axis=(0, 1)))
        for channel in range(3):
            values = eight_bits(photo)[:, :, channel].ravel() // (256 // BINS)
            assert found.histogram[place, channel].tolist() == [*np.bincount(values, minlength=64)]


@pytest.mark.parametrize("bits", [8, 16])
def test_measuring_takes_little_memory_beside_the_photos(
    tmp_path: Path, bits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The crop that noise is measured on has a limit of its own.
    monkeypatch.setattr(facts, "_NOISE_SIDE", 128)
    monkeypatch.setattr(facts, "_ROWS", 64)
    clean = np.tile(natural_photo(200, 200), (6, 6, 1))
    noisy = clean ^ 1
    pair = (sixteen_bits(noisy), sixteen_bits(clean)) if bits == 16 else (noisy, clean)
    row = stored_pair(tmp_path, *pair)
    measure_pair(row, SOURCE)
    tracemalloc.start()
    try:
        measure_pair(row, SOURCE)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 4 * pair[0].nbytes + 5e6


def test_refused_photos_above_a_limit_are_not_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = stored_pair(tmp_path, random_photo(50, 60), random_photo(20, 20, 1))
    monkeypatch.setattr(facts, "_LARGEST_THUMBNAILED", 0.002)
    shown = facts._measure_pair_refused(row, SOURCE).thumbnails
    assert shown[0] == "60 x 50 pixels, not decoded"
    assert np.array_equal(shown[1], random_photo(20, 20, 1))
    monkeypatch.setattr(facts, "_LARGEST_FILE", 1000)
    shown = facts._measure_pair_refused(row, SOURCE).thumbnails
    assert shown == ["0 MB, not read", "0 MB, not read"]


def test_refused_photos_above_the_limit_of_ingest_are_not_decoded_either(tmp_path: Path) -> None:
    row = stored_pair(tmp_path, random_photo(50, 60), random_photo(20, 20, 1))
    source = PhotoSource(STORAGE, CheckRules(largest_megapixels=0.0001))
    assert facts._measure_pair_refused(row, source).thumbnails == [
        "60 x 50 pixels, not decoded",
        "20 x 20 pixels, not decoded",
    ]


def test_refused_files_that_are_missing_or_damaged_say_so(tmp_path: Path) -> None:
    row = stored_pair(tmp_path, random_photo(50, 60), random_photo(20, 20, 1))
    Path(row.noisy).unlink()
    Path(row.clean).write_bytes(b"<html>")
    assert facts._measure_pair_refused(row, SOURCE).thumbnails == [
        "there is no such file",
        "does not decode",
    ]
