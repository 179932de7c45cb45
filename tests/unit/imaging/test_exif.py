"""Camera and ISO of photos by their EXIF, through files of all types and whatever is damaged."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from unit.ingest_support import serial_ingest, write_pairs
from unit.mixed_photos import canon_exif
from unit.photofiles import PHOTO, chunk, png, saved

from degrain.corpora.config import CorpusOptions
from degrain.imaging.metadata import read_camera
from degrain.patchsets.ingest.run import IngestResult

CANON = canon_exif(1)


def block(model: str = "X100", **below: int) -> bytes:
    """EXIF with a model, and tags of its folder `t<number>`."""
    exif = Image.Exif()
    exif[272] = model
    for name, value in below.items():
        exif.get_ifd(34665)[int(name[1:])] = value
    return exif.tobytes()


@pytest.mark.parametrize(
    "content",
    [
        saved(PHOTO, "JPEG", exif=b"Exif\0\0" + CANON),
        saved(PHOTO, "PNG", exif=CANON),
        saved(PHOTO, "WEBP", exif=CANON),
        saved(PHOTO, "MPO", exif=b"Exif\0\0" + CANON),
        saved(PHOTO, "TIFF", exif=CANON),
    ],
    ids=["jpeg", "png", "webp", "mpo", "tiff"],
)
def test_files_of_all_types_have_camera_and_iso(content: bytes) -> None:
    assert read_camera(content) == ("Canon EOS 5D", 6400)


@pytest.mark.parametrize(
    ("exif", "expected"),
    [
        (block(t34855=200), ("X100", 200)),
        (block(t34855=65535, t34866=102400), ("X100", 102400)),
        (block(t34855=65535), ("X100", None)),
        (block(t34855=0), ("X100", None)),
        (block(" NIKON  D1\0\0 \0"), ("NIKON D1", None)),
        (block("\0\0\0"), (None, None)),
        (block("a" * 5000), ("a" * 100, None)),
        (block("A7\x07\x1b[1m"), ("A7[1m", None)),
        (block("G9"), ("G9", None)),  # a text of up to four bytes is in the entry itself
    ],
)
def test_what_cameras_write_is_read(exif: bytes, expected: tuple[str | None, int | None]) -> None:
    assert read_camera(saved(PHOTO, "JPEG", exif=exif)) == expected


def test_files_without_exif_have_neither() -> None:
    big = io.BytesIO()
    Image.fromarray(PHOTO).save(big, "TIFF", big_tiff=True, exif=CANON)
    for content in (b"", b"\xff\xd8", png(PHOTO), saved(PHOTO, "BMP"), big.getvalue()):
        assert read_camera(content) == (None, None)


@given(
    st.sampled_from([CANON, block(t34855=200)]),
    st.lists(st.tuples(st.integers(0, 300), st.integers(0, 255)), max_size=8),
    st.integers(0, 300),
)
def test_damaged_exif_is_no_error(exif: bytes, changes: list[tuple[int, int]], end: int) -> None:
    exif = exif.removeprefix(b"Exif\0\0")
    damaged = bytearray(exif)
    for place, value in changes:
        damaged[place % len(damaged)] = value
    for content in (png(PHOTO, chunk(b"eXIf", bytes(damaged))), bytes(damaged[:end])):
        camera, iso = read_camera(content)
        assert camera is None or (camera.isprintable() and len(camera) <= 100)
        assert iso is None or 0 < iso < 2**32


def write_exif(folder: Path, exif: bytes, name: str = "*") -> None:
    """Write photos of a folder anew, with EXIF."""
    for file in folder.glob(f"{name}.png"):
        content = file.read_bytes()
        size = struct.unpack(">II", content[16:24])
        assert size == (32, 32)
        file.write_bytes(saved(np.asarray(Image.open(io.BytesIO(content))), "PNG", exif=exif))


def cameras(done: IngestResult) -> list[tuple[str | None, int | None]]:
    return [(row.camera, row.iso) for row in done.patch_set.catalog]


def test_camera_and_iso_reach_the_catalog_and_the_groups(tmp_path: Path) -> None:
    corpus = write_pairs(tmp_path / "corpus")
    write_exif(corpus / "noisy", block(t34855=3200))
    write_exif(corpus / "clean", block("other", t34855=100))
    done = serial_ingest(corpus, tmp_path / "out")
    assert cameras(done) == [("X100", 3200)] * 6
    assert {(g.camera, g.iso) for g in done.patch_set.manifest.groups} == {("X100", 3200)}
    assert not any(row.refused for row in done.patch_set.catalog)


def test_the_clean_photo_has_the_camera_where_the_noisy_one_lost_exif(tmp_path: Path) -> None:
    corpus = write_pairs(tmp_path / "corpus")
    write_exif(corpus / "clean", block(t34855=100))
    assert cameras(serial_ingest(corpus, tmp_path / "out")) == [("X100", None)] * 6


def test_broken_exif_refuses_no_photo(tmp_path: Path) -> None:
    corpus = write_pairs(tmp_path / "corpus")
    write_exif(corpus / "noisy", b"II*\0\xff\xff\xff\xff")
    done = serial_ingest(corpus, tmp_path / "out")
    assert cameras(done) == [(None, None)] * 6
    assert not any(row.refused for row in done.patch_set.catalog)


def test_synthetic_noise_has_no_iso_of_a_camera(tmp_path: Path) -> None:
    corpus = write_pairs(tmp_path / "corpus")
    write_exif(corpus / "clean", block(t34855=100))
    options = CorpusOptions(noise="gaussian:25")
    done = serial_ingest(f"clean={corpus / 'clean'}", tmp_path / "out", options=options)
    assert cameras(done) == [("synthetic", None)] * 6


def test_names_win_over_exif_and_every_ingest_finds_the_same(tmp_path: Path) -> None:
    """Photos that are known are not read again; what the names had is not kept."""
    corpus, out = write_pairs(tmp_path / "corpus"), tmp_path / "out"
    write_exif(corpus / "noisy", block(t34855=3200))
    named = CorpusOptions(
        noisy_name=r"regex:noisy/(?P<scene>(?P<camera>.+))_(?P<iso>\d)\.png",
        clean_name=r"regex:clean/(?P<scene>.+)_(?P<iso>\d)\.png",
    )
    for _ in range(2):
        by_name = serial_ingest(corpus, out, options=named)
        assert cameras(by_name) == [(f"s{n}", 0) for n in range(6)]
        by_exif = serial_ingest(corpus, out)
        assert cameras(by_exif) == [("X100", 3200)] * 6
    assert by_exif.cut == 0
    fresh = serial_ingest(corpus, tmp_path / "fresh")
    assert fresh.patch_set.manifest.version == by_exif.patch_set.manifest.version
