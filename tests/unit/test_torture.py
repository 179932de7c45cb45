"""Some of the odd files of `make torture`, with the decoders that are at hand everywhere."""

import io
import warnings
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image
from torture.case import Case
from torture.run import CLOSE, Report, all_cases, denoise, scaled

CASES = list(all_cases())[::4]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    folder = tmp_path_factory.mktemp("torture")
    (folder / "in").mkdir()
    for case in CASES:
        (folder / "in" / f"{case.name}{case.suffix}").write_bytes(case.content)
    return folder / "out", denoise(folder, Report())


def decoded(content: bytes, suffix: str) -> NDArray[np.generic]:
    """By the library that the project reads the type with, without the project's own code."""
    if suffix == ".tif":
        with tifffile.TiffFile(io.BytesIO(content)) as file:
            page = file.pages.first
            pixels = page.asarray()
            planar = page.planarconfig == 2 and page.samplesperpixel > 1
            return np.moveaxis(pixels, 0, -1) if planar else pixels
    if suffix == ".png":
        return np.asarray(imagecodecs.png_decode(content))
    with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(content)) as image:
        return np.asarray(image)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_odd_file_comes_back_or_is_refused(
    case: Case, outputs: tuple[Path, dict[str, str]]
) -> None:
    folder, reasons = outputs
    name = f"{case.name}{case.suffix}"
    if case.outcome == "refused":
        assert not reasons[name].startswith("unexpected")
        return
    assert name not in reasons
    before, after = (
        decoded(content, case.suffix) for content in (case.content, (folder / name).read_bytes())
    )
    if before.shape != after.shape or before.dtype.kind == "b":
        return  # palettes, and bits that these decoders do not unpack
    if case.outcome == "exact" and before.dtype == after.dtype:
        assert np.array_equal(before, after, equal_nan=before.dtype.kind == "f")
    elif case.suffix != ".tif":
        assert np.abs(scaled(before) - scaled(after)).mean() < CLOSE
