"""A folder of 200 photos of all kinds through `degrain denoise`."""

import json
import subprocess
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image
from programs import needs
from unit.mixed_photos import EXIFTOOL, MixedPhoto, mixed_photos, write_mixed

from degrain.cli.main import main

pytestmark = pytest.mark.slow
IGNORED_GROUPS = ("System", "ExifTool", "File", "Composite")
STRUCTURE = {
    *("NewSubfileType", "SubfileType", "Compression", "StripOffsets", "StripByteCounts"),
    *("RowsPerStrip", "Predictor", "PlanarConfiguration", "FillOrder", "Interlace", "Filter"),
    *("PhotometricInterpretation", "ExtraSamples", "SampleFormat", "ColorMap", "Palette"),
    *("ColorType", "BitDepth", "BitsPerSample", "ImageLength", "VP8Version", "ExifByteOrder"),
    *("Transparency", "HorizontalScale", "VerticalScale", "NumColors", "NumImportantColors"),
    *("BMPVersion", "AlphaIsUsed", "WebP_Flags", "TileWidth", "TileLength", "YCbCrPositioning"),
}  # fmt: skip
"""Tags on how pixels are stored, which may differ."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The photos in `in`, denoised with strength 0 in `out`, and the summary."""
    folder = tmp_path_factory.mktemp("mixed")
    write_mixed(folder / "in", PHOTOS)
    summary = ["--summary", str(folder / "summary.json")]
    options = ["--filter", "bilateral", "--strength", "0", "-r", "--out", str(folder / "out")]
    status = main(["denoise", str(folder / "in"), *options, *summary])
    assert status == 1, status
    return folder


PHOTOS = mixed_photos(200)
GOOD = [photo for photo in PHOTOS if photo.reason is None]


def stored_values(file: Path) -> NDArray[Any]:
    """The pixels of a file, decoded by other means than the code under test."""
    if file.suffix == ".tif":
        return np.asarray(tifffile.imread(file))
    with Image.open(file) as image:
        palette = image.mode in ("P", "PA")
    if file.suffix == ".png" and not palette:
        return np.asarray(imagecodecs.png_decode(file.read_bytes()))
    with Image.open(file) as image:
        return np.asarray(image.convert("RGBA" if "transparency" in image.info else "RGB")
                          if palette else image)  # fmt: skip


def test_every_photo_has_an_output_or_a_reason(folder: Path) -> None:
    made = {str(p.relative_to(folder / "out")) for p in (folder / "out").rglob("[!.]*.*")}
    assert made == {photo.name for photo in GOOD}
    summary = json.loads((folder / "summary.json").read_text())
    bad = {str(folder / "in" / photo.name) for photo in PHOTOS if photo.reason is not None}
    assert set(summary["failed"]) == bad
    assert summary["files"] == len(PHOTOS)


def test_reasons_of_photos_that_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = [photo for photo in mixed_photos(90) if photo.reason is not None]
    write_mixed(tmp_path / "in", bad)
    options = ["--filter", "bilateral", "-r", "--out", str(tmp_path / "out")]
    assert main(["denoise", str(tmp_path / "in"), *options]) == 1
    lines = capsys.readouterr().out.splitlines()
    for photo in bad:
        start = f"{tmp_path / 'in' / photo.name}: failed: {photo.reason}"
        assert any(line.startswith(start) for line in lines), (photo.name, lines)


def test_strength_0_gives_the_same_values_in_lossless_files(folder: Path) -> None:
    for photo in GOOD:
        before, after = (stored_values(folder / side / photo.name) for side in ("in", "out"))
        assert after.dtype == before.dtype, photo.name
        if photo.same_bits:
            assert np.array_equal(after, before), photo.name
        else:
            error = np.square(after.astype(float) - before).mean()
            assert 10 * np.log10(255**2 / error) > 38, photo.name


@needs(EXIFTOOL, "libimage-exiftool-perl")
def test_metadata_is_equal_tag_by_tag(folder: Path) -> None:
    before, after = (read_tags(folder / side) for side in ("in", "out"))
    compared = 0
    for photo in GOOD:
        old, new = before[photo.name], after[photo.name]
        assert {k: new.get(k) for k in old} == old, (photo.name, missing(old, new))
        assert new.keys() - old.keys() <= allowed_additions(photo), photo.name
        compared += len(old)
    assert compared > 20 * len([p for p in GOOD if "turned" in p.name])


def read_tags(folder: Path) -> dict[str, dict[str, object]]:
    """The tags of each file by name, as ExifTool reads them, maker notes as well."""
    assert EXIFTOOL is not None
    command = [EXIFTOOL, "-json", "-G1", "-a", "-u", "-n", "-b", "-r", "-q", "-ext", "*"]
    done = subprocess.run([*command, str(folder)], capture_output=True, check=False)
    return {
        str(Path(tags["SourceFile"]).relative_to(folder)): {
            key: value
            for key, value in tags.items()
            if ":" in key
            and key.split(":")[0] not in IGNORED_GROUPS
            and key.split(":")[1] not in STRUCTURE
        }
        for tags in json.loads(done.stdout)
    }


def missing(old: dict[str, object], new: dict[str, object]) -> dict[str, object]:
    return {key: (value, new.get(key)) for key, value in old.items() if new.get(key) != value}


def allowed_additions(photo: MixedPhoto) -> set[str]:
    """Tags that a writer adds."""
    return {"IFD0:Orientation"} if photo.name.endswith(".tif") else set()
