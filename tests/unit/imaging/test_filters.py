"""Classical filters against their libraries, and on unusual photos."""

import pickle
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import median_filter
from skimage.restoration import (
    denoise_nl_means,
    denoise_tv_chambolle,
    denoise_wavelet,
    estimate_sigma,
)
from unit.support import natural_photo, smooth_photo, with_noise

from degrain.errors import UserError
from degrain.imaging.filters import FILTERS, create_filter, list_filters
from degrain.imaging.limits import FilterName
from degrain.imaging.metrics import score_photo
from degrain.imaging.pixels import Photo, sixteen_bits

NAMES = ["bilateral", "bm3d", "median", "nlm", "nlm-tuned", "tv", "wavelet"]


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    """Each filter that can run on this machine."""
    try:
        return create_filter(request.param).name
    except UserError as error:
        pytest.skip(str(error))


def test_names_are_sorted_and_equal_the_options() -> None:
    assert list_filters() == NAMES == list(get_args(FilterName))


def naive_bilateral(x: NDArray[np.float32], deviation: float) -> NDArray[Any]:
    """The formula, pixel by pixel."""
    height, width, _ = x.shape
    clean = np.empty_like(x)
    for row, column in np.ndindex(height, width):
        window = np.s_[max(0, row - 4) : row + 5, max(0, column - 4) : column + 5]
        rows, columns = (axis[window] for axis in np.mgrid[:height, :width])
        squares = ((rows - row) ** 2 + (columns - column) ** 2) / 3**2
        squares = squares + ((x[window] - x[row, column]) ** 2).sum(axis=2) / deviation**2
        weights = np.exp(-squares / 2)[:, :, None]
        clean[row, column] = (weights * x[window]).sum(axis=(0, 1)) / weights.sum()
    return clean


def reference(name: str, x: NDArray[np.float32], sigma: float) -> NDArray[Any]:
    """The output of the library's own function, or of the formula."""
    if name == "nlm":
        return denoise_nl_means(
            x, patch_size=5, patch_distance=6, h=1.15 * sigma, fast_mode=False, channel_axis=-1
        )
    if name == "nlm-tuned":
        return denoise_nl_means(
            x,
            patch_size=5,
            patch_distance=9,
            h=0.6 * sigma,
            sigma=sigma,
            fast_mode=True,
            channel_axis=-1,
        )
    if name == "bilateral":
        return naive_bilateral(x, 3 * sigma)
    if name == "tv":
        return denoise_tv_chambolle(x, weight=sigma, channel_axis=-1)
    if name == "wavelet":
        return denoise_wavelet(
            x,
            sigma=sigma,
            wavelet="sym4",
            wavelet_levels=2,
            convert2ycbcr=True,
            channel_axis=-1,
            method="BayesShrink",
        )
    if name == "median":
        return np.stack([median_filter(x[:, :, c], size=5) for c in range(3)], axis=2)
    import bm3d

    profile = bm3d.BM3DProfile()
    profile.nf = 0
    profile.num_threads = 1
    return bm3d.bm3d_rgb(x, sigma, profile)


def test_equals_its_reference(name: str) -> None:
    noisy = with_noise(natural_photo(30, 44))
    x = noisy.astype(np.float32) / np.float32(255)
    sigma = float(np.mean(estimate_sigma(x, channel_axis=-1)))
    assert 0.05 < sigma < 0.07
    expected = np.round(np.clip(reference(name, x, sigma), 0, 1) * 255).astype(np.uint8)
    got = create_filter(name)(noisy)
    assert got.dtype == np.uint8
    # BM3D and the bilateral filter add in another order.
    assert np.abs(got.astype(int) - expected).max() <= (1 if name in ("bm3d", "bilateral") else 0)
    assert np.mean(got == expected) > 0.999


@pytest.mark.parametrize(
    ("sigma", "side"),
    [(0.014, 1), (0.016, 3), (0.044, 3), (0.046, 5), (0.076, 7), (0.106, 9), (1.0, 9)],
)
def test_median_window_grows_with_the_noise_level(sigma: float, side: int) -> None:
    noisy = with_noise(natural_photo(20, 24))
    expected = np.stack([median_filter(noisy[:, :, c], size=side) for c in range(3)], axis=2)
    assert np.array_equal(create_filter("median", sigma)(noisy), expected)


GAINS_DB = {"bilateral": 4, "bm3d": 6, "median": 3, "nlm": 3, "nlm-tuned": 4, "tv": 4, "wavelet": 4}


def test_denoises(name: str) -> None:
    clean = smooth_photo(48, 56)
    noisy = with_noise(clean, deviation=20)
    assert (
        score_photo(create_filter(name)(noisy), clean).psnr
        > score_photo(noisy, clean).psnr + GAINS_DB[name]
    )


def test_higher_noise_level_smooths_more(name: str) -> None:
    noisy = with_noise(natural_photo(32, 40))

    def roughness(photo: Photo) -> float:
        return float(np.abs(np.diff(photo.astype(float), axis=0)).mean())

    once, twice = (roughness(create_filter(name, level)(noisy)) for level in (0.04, 0.08))
    assert twice < 0.97 * once < 0.97 * roughness(noisy)


def test_noise_level_is_estimated_unless_given(name: str) -> None:
    noisy = with_noise(natural_photo(32, 40), deviation=25)
    estimated = float(np.mean(estimate_sigma(noisy / 255, channel_axis=-1)))
    # The filter estimates in float32.
    difference = create_filter(name, estimated)(noisy).astype(int) - create_filter(name)(noisy)
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize("level", [None, 0.1], ids=["estimated", "given"])
def test_flat_photo_is_unchanged(name: str, level: float | None) -> None:
    kept = create_filter(name, level)
    for white, value in [
        (255, 0),
        (255, 77),
        (255, 255),
        (65535, 0),
        (65535, 20_000),
        (65535, 65535),
    ]:
        photo: Photo = np.full((17, 20, 3), value, dtype=np.uint8 if white == 255 else np.uint16)
        got = kept(photo)
        assert got.dtype == photo.dtype
        # A step of 16 bits is near the precision of float32.
        assert np.abs(got.astype(int) - photo).max() <= white // 65535, f"{value} of {white}"


def test_photo_without_noise_is_unchanged(name: str) -> None:
    drawn = np.full((40, 40, 3), 77, dtype=np.uint8)
    drawn[10:20, 10:20] = (200, 30, 0)
    assert np.array_equal(create_filter(name)(drawn), drawn)


def test_tiny_noise_level_changes_little(name: str) -> None:
    photo = natural_photo(20, 24)
    for level in (1e-30, 1e-7, 2e-6):
        got = create_filter(name, level)(photo)
        assert np.abs(got.astype(int) - photo).max() <= 1


@pytest.mark.parametrize(
    "colour", [(1, 1, 1), (1, 0, 0), (1, 0, 1)], ids=["grey", "red", "magenta"]
)
def test_photo_of_one_hue_keeps_it(name: str, colour: tuple[int, int, int]) -> None:
    noisy = with_noise(natural_photo(24, 30))[:, :, :1] * np.array(colour, dtype=np.uint8)
    got = create_filter(name)(noisy)
    assert not np.array_equal(got, noisy)
    leaked = got - got[:, :, :1].astype(int) * colour
    # BM3D smooths luminance and colour apart; the others are off by scikit-image's YCbCr, good to
    # four digits.
    assert np.abs(leaked).max() <= (12 if name == "bm3d" and colour != (1, 1, 1) else 1)


def test_preserves_sixteen_bits(name: str) -> None:
    noisy = with_noise(natural_photo(24, 30))
    deep = create_filter(name)(sixteen_bits(noisy))
    assert deep.dtype == np.uint16
    assert np.abs(deep / 257 - create_filter(name)(noisy)).max() <= 0.51
    # The median makes no values of its own.
    assert name == "median" or np.unique(deep % 257).size > 100


def test_median_preserves_sixteen_bit_values() -> None:
    deep = np.random.default_rng(0).integers(0, 65536, (20, 20, 3), dtype=np.uint16)
    expected = np.stack([median_filter(deep[:, :, c], size=9) for c in range(3)], axis=2)
    assert np.array_equal(create_filter("median")(deep), expected)


@pytest.mark.parametrize("value", [0, 65535], ids=["black", "white"])
def test_sixteen_bits_do_not_wrap(name: str, value: int) -> None:
    noisy: Photo = np.full((16, 16, 3), value, dtype=np.uint16)
    noisy[::3, ::3] = 40_000
    got = create_filter(name, 0.2)(noisy).astype(int)
    assert np.abs(got - noisy).max() <= 40_000


def test_strong_contrast_does_not_wrap(name: str) -> None:
    rng = np.random.default_rng(0)
    noisy = (rng.integers(0, 2, (32, 32, 3)) * 255).astype(np.uint8)
    noisy[:, :12] = 0
    noisy[:, 20:] = 255
    got = create_filter(name, 0.1)(noisy)
    assert got[:, :6].max() < 60
    assert got[:, 26:].min() > 195


SIZES = [
    (1, 1),
    (1, 9),
    (9, 1),
    (2, 2),
    (3, 17),
    (5, 5),
    (8, 8),
    (9, 8),
    (9, 9),
    (13, 11),
    (14, 40),
]


@pytest.mark.parametrize("level", [None, 0.1, 1.0], ids=["estimated", "given", "greatest"])
def test_photos_of_any_size_keep_their_shape(name: str, level: float | None) -> None:
    for size in SIZES:
        noisy = with_noise(np.full((*size, 3), 120, dtype=np.uint8))
        clean = create_filter(name, level)(noisy)
        assert clean.shape == noisy.shape
        assert clean.dtype == np.uint8
        assert np.abs(clean.astype(int) - 120).max() <= np.abs(noisy.astype(int) - 120).max() + 1, (
            f"{size}"
        )


def test_a_black_channel_does_not_hide_the_noise_of_the_others(name: str) -> None:
    clean = natural_photo(24, 30).copy()
    clean[:, :, 2] = 0
    noisy = with_noise(clean)
    noisy[:, :, 2] = 0
    assert not np.array_equal(create_filter(name)(noisy), noisy)


def test_accepts_read_only_and_strided_photos_without_changing_them(name: str) -> None:
    noisy = with_noise(natural_photo(48, 60))
    views = noisy[::2, ::-2], noisy.transpose(1, 0, 2)[:30, :24], noisy[:24, :30, ::-1]
    noisy.flags.writeable = False
    before = noisy.copy()
    for view in views:
        view.flags.writeable = False
        assert np.array_equal(create_filter(name)(view), create_filter(name)(view.copy(order="C")))
    assert np.array_equal(noisy, before)


def test_filters_can_be_pickled(name: str) -> None:
    noisy = with_noise(natural_photo(20, 24))
    here = create_filter(name, 0.08)
    there = pickle.loads(pickle.dumps(here))
    assert there == here
    assert (there.name, there.parameters) == (name, 0)
    assert np.array_equal(there(noisy), here(noisy))


@pytest.mark.parametrize(
    ("unknown", "hint"),
    [("nlm-tunde", "; did you mean 'nlm-tuned'?"), ("BM4D", "."), ("", ".")],
)
def test_unknown_name_suggests_the_nearest(unknown: str, hint: str) -> None:
    with pytest.raises(ValueError) as caught:
        create_filter(unknown)
    assert (
        str(caught.value) == f"unknown filter '{unknown}'{hint} Known filters: {', '.join(NAMES)}"
    )


@pytest.mark.parametrize("level", [0, -0.1, 1.001, 15, float("nan"), float("inf")])
def test_refuses_noise_levels_out_of_range(level: float) -> None:
    with pytest.raises(
        ValueError,
        match=rf"noise_level must be above 0 and at most 1.* got {level}; divide .* by 255",
    ):
        create_filter("tv", level)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (ModuleNotFoundError("No module named 'bm3d'"), r"licence.*pip install 'degrain\[bm3d\]'$"),
        (
            OSError("libbm4d.so: wrong ELF class"),
            r"no binaries for this machine \(libbm4d.so: wrong ELF class\)",
        ),
    ],
    ids=["missing", "no binaries"],
)
def test_bm3d_error_has_the_reason_and_the_remedy(
    monkeypatch: pytest.MonkeyPatch, error: Exception, says: str
) -> None:
    def refuse(name: str, package: str | None = None) -> None:
        assert name == "bm3d"
        raise error

    monkeypatch.setattr("degrain.imaging.filters.import_module", refuse)
    with pytest.raises(UserError, match=says) as caught:
        create_filter("bm3d")
    assert "\n" not in str(caught.value)
    assert create_filter("nlm").name == "nlm"


def test_a_pixel_without_a_value_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(x: NDArray[np.float32], _: float) -> NDArray[np.float32]:
        clean = np.zeros_like(x)
        clean[3, 4], clean[5, 6] = np.nan, np.inf
        return clean

    noisy = with_noise(natural_photo(20, 24))
    monkeypatch.setitem(FILTERS, "nlm", replace(FILTERS["nlm"], denoise=broken))
    output = create_filter("nlm", 0.1)(noisy)
    assert np.array_equal(output[3, 4], noisy[3, 4])
    assert np.array_equal(output[5, 6], noisy[5, 6])
    assert np.count_nonzero(output.any(axis=2)) == 2
