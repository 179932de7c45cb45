"""Floating-point TIFF stays floating point: the change of the clipped photo is added to it."""

import io

import numpy as np
import pytest
import tifffile
from unit.photofiles import PHOTO, profile, tiff

from degrain.imaging.codecs import UnreadablePhotoError, decode
from degrain.imaging.pixels import Photo, sixteen_bits
from degrain.inference.config import OutputConfig, ReadingConfig
from degrain.inference.denoiser import Denoiser, Identity
from degrain.inference.photo_file import DenoisedContent, denoise_content

FLOATS = ("float16", "float32", "float64")
LIGHT = np.random.default_rng(0).normal(0.5, 0.4, PHOTO.shape)


class Darker:
    """Takes 1000 of 65535 from each value."""

    name, parameters = "darker", 0

    def __call__(self, photo: Photo, window: object = None) -> Photo:
        assert photo.dtype == np.uint16
        return np.maximum(photo, 1000) - np.uint16(1000)


def denoised(content: bytes, denoiser: Denoiser, *options: object) -> DenoisedContent:
    output = OutputConfig(format=options[0] if options else None)  # type: ignore[arg-type]
    return denoise_content(content, denoiser, output=output, reading=ReadingConfig())


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("grey", [False, True])
def test_floats_come_back_as_they_were(
    dtype: str, order: str, compressed: bool, grey: bool
) -> None:
    photo = LIGHT.astype(dtype)
    photo[3, 4], photo[5, 6], photo[7, 8] = np.nan, np.inf, -np.inf
    stored = photo[:, :, 0] if grey else photo
    options = {"compression": "zlib", "predictor": True} if compressed else {}
    photometric = "minisblack" if grey else "rgb"
    content = tiff(stored, photometric=photometric, byteorder=order, **options)
    done = denoised(content, Identity())
    assert np.array_equal(tifffile.imread(io.BytesIO(done.content)), stored, equal_nan=True)
    assert tifffile.imread(io.BytesIO(done.content)).dtype == dtype
    assert done.notes == ("3 pixels are NaN or infinite and stay so",)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("grey", [False, True])
def test_values_beyond_black_and_white_keep_theirs_plus_the_change(dtype: str, grey: bool) -> None:
    photo = LIGHT.astype(dtype)
    photo[0, 0], photo[0, 1], photo[0, 2] = 3.5, np.nan, np.inf
    stored = photo[:, :, 0] if grey else photo
    done = denoised(tiff(stored, photometric="minisblack" if grey else "rgb"), Darker())
    result = tifffile.imread(io.BytesIO(done.content))
    seen = sixteen_bits(stored)
    change = np.minimum(seen, 1000) / -65535
    tolerance = {"float16": 2e-3, "float32": 1e-6, "float64": 1e-12}[dtype]
    expected = stored.astype(np.float64) + change
    assert np.allclose(result, expected, rtol=0, atol=tolerance, equal_nan=True)


def test_floats_in_a_profile_get_the_change_in_it() -> None:
    adobe = profile("adobergb")
    photo = LIGHT.astype(np.float32)
    tags = [(34675, 7, len(adobe), adobe, True)]
    content = tiff(photo, photometric="rgb", extratags=tags)
    kept = tifffile.imread(io.BytesIO(denoised(content, Identity()).content))
    assert np.array_equal(kept, photo)
    darker = tifffile.imread(io.BytesIO(denoised(content, Darker()).content))
    inside = (photo > 0.2) & (photo < 0.9)
    change = (darker - photo)[inside.all(axis=2)]
    assert -0.03 < change.mean() < -0.005


def test_other_types_get_sixteen_bits_and_a_note() -> None:
    photo = LIGHT.astype(np.float32)
    done = denoised(tiff(photo, photometric="rgb"), Identity(), "png")
    assert done.notes == ("floats became 16 bits, clipped to black and white",)
    assert np.array_equal(decode(done.content), sixteen_bits(photo))


def test_ingest_refuses_floats_beyond_black_and_white() -> None:
    with pytest.raises(UnreadablePhotoError, match=r"its floats are .* not in \[0, 1\]"):
        decode(tiff(LIGHT.astype(np.float32), photometric="rgb"))
    inside = np.clip(LIGHT, 0, 1).astype(np.float32)
    assert np.array_equal(decode(tiff(inside, photometric="rgb")), sixteen_bits(inside))
