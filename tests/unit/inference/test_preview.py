"""A preview has the pixels that a run writes, for every network and filter."""

import io
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage import data
from unit.photofiles import png, profile, saved, tiff
from unit.small_networks import small, trained

from degrain.imaging.codecs import apply_orientation, decode, decode_layers
from degrain.imaging.filters import create_filter, list_filters
from degrain.imaging.pixels import Photo, eight_bits, sixteen_bits
from degrain.inference.blending import Blended
from degrain.inference.config import BlendConfig, Crop, InferenceConfig, OutputConfig, ReadingConfig
from degrain.inference.denoiser import Denoiser, NetworkDenoiser, SelfEnsemble
from degrain.inference.photo_file import open_photo
from degrain.inference.preview import encode_preview, stored_window
from denoisenets import list_models

PHOTO = np.asarray(data.astronaut()[60:260, 90:390])
CROP = Crop.parse("90x50+151+101")


def network(name: str) -> NetworkDenoiser:
    """A network in several tiles whose borders are not those of the crop."""
    config = InferenceConfig(tile=64, precision="float32")
    return NetworkDenoiser(name, small(name), trained(name).state_dict(), crop=32, config=config)


def halves(
    content: bytes, denoiser: Denoiser, crop: Crop = CROP, reading: ReadingConfig | None = None
) -> tuple[Photo, Photo, Photo]:
    """The preview before and after, and the same part of the file that a run writes."""
    reading = reading or ReadingConfig()
    photo = open_photo(content, OutputConfig(), reading)
    shown = np.asarray(Image.open(io.BytesIO(encode_preview(photo, denoiser, crop)())))
    width, height, left, top = crop
    written = photo.encode(photo.denoise(denoiser))
    run = eight_bits(decode_layers(written, profiles=reading.profiles).rgb)
    part = run[top : top + height, left : left + width]
    return shown[:, :width], shown[:, -width:], part


@pytest.mark.parametrize("name", list_models())
def test_preview_of_every_network_equals_the_run(name: str) -> None:
    before, after, run = halves(png(PHOTO), network(name))
    assert np.array_equal(before, PHOTO[101:151, 151:241])
    assert np.array_equal(after, run)


@pytest.mark.parametrize("name", [n for n in list_filters() if n not in ("bm3d", "nlm")])
def test_preview_of_every_filter_equals_the_run(name: str) -> None:
    _, after, run = halves(png(PHOTO), create_filter(name))
    assert np.array_equal(after, run)


@pytest.mark.parametrize(
    "wrap",
    [
        SelfEnsemble,
        lambda one: Blended(one, BlendConfig(detail=0.5)),
        lambda one: Blended(one, BlendConfig(strength=0.7, luma=0.5)),
    ],
    ids=["ensemble", "detail", "strength"],
)
def test_preview_with_every_option_equals_the_run(wrap: Callable[[Denoiser], Denoiser]) -> None:
    _, after, run = halves(png(PHOTO), wrap(network("fast16")))
    assert np.array_equal(after, run)


def test_preview_of_every_kind_of_photo_equals_the_run() -> None:
    deep = sixteen_bits(PHOTO) - np.uint16(77)
    exif = Image.Exif()
    exif[274] = 6
    turned = saved(PHOTO, "PNG", exif=exif)
    adobe = saved(PHOTO, "PNG", icc_profile=profile("adobergb"))
    for content in (png(deep), tiff(deep), png(PHOTO[:, :, 0]), turned, adobe):
        height, width = decode(content).shape[:2]
        crop = Crop((40, 30, width - 61, height - 57))
        _, after, run = halves(content, network("fast16"), crop)
        assert np.array_equal(after, run)


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(1, 40), st.integers(1, 40), st.sampled_from(range(1, 9)))
def test_a_part_of_an_upright_photo_is_found_in_the_stored_one(
    data: st.DataObject, height: int, width: int, orientation: int
) -> None:
    stored = np.arange(height * width).reshape(height, width)
    upright = apply_orientation(stored, orientation)
    top, left = (data.draw(st.integers(0, side - 1)) for side in upright.shape)
    rows, columns = (
        data.draw(st.integers(1, side - first))
        for side, first in zip(upright.shape, (top, left), strict=True)
    )
    window = stored_window(Crop((columns, rows, left, top)), stored.shape, orientation)
    expected = upright[top : top + rows, left : left + columns]
    assert np.array_equal(apply_orientation(stored[window], orientation), expected)


def test_preview_ignores_a_profile_where_the_run_does() -> None:
    content = saved(PHOTO, "PNG", icc_profile=profile("adobergb"))
    keep = ReadingConfig(profiles="keep")
    before, after, run = halves(content, network("fast16"), reading=keep)
    assert np.array_equal(before, PHOTO[101:151, 151:241])
    assert np.array_equal(after, run)
