"""Synthetic noise has the variance and correlation of its name and depends on the photo's name
alone.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.support import natural_photo

from degrain.imaging.camera_noise import ISO_LEVELS, to_linear
from degrain.imaging.noise_statistics import neighbour_correlation
from degrain.imaging.noise_synthesis import LARGEST_CORRELATION, add_noise, correlated, expand_noise
from degrain.imaging.pixels import Photo, sixteen_bits

CLEAN = natural_photo(40, 56)
SINGLE = [
    "gaussian:25",
    "poisson:0.01,0.0005",
    "camera:3200",
    "fitted:0.01,0.0005,0.4",
    "near:0.01,0.0005,0.4",
]


def flat(value: float, deep: bool = True) -> Photo:
    return np.full(
        (300, 300, 3), round(value * (65535 if deep else 255)), np.uint16 if deep else np.uint8
    )


@pytest.mark.parametrize("kind", ["poisson:0.002,0.0002", "fitted:0.002,0.0002,0.5"])
def test_variance_is_linear_in_the_light(kind: str) -> None:
    for value in (0.4, 0.55, 0.7, 0.85):
        clean = flat(value)
        signal = to_linear(clean)
        made = to_linear(add_noise(clean, kind, "a")) - signal
        assert made.var() == pytest.approx(0.002 * signal.mean() + 0.0002, rel=0.03)
        assert abs(made.mean()) < 1e-3


@pytest.mark.parametrize("value", [0.3, 0.5, 0.7])
def test_gaussian_noise_does_not_depend_on_the_signal(value: float) -> None:
    clean = flat(value)
    made = add_noise(clean, "gaussian:15", "a").astype(np.float64) - clean
    assert made.std() / 257 == pytest.approx(15, rel=0.02)
    assert abs(made.mean()) / 257 < 0.1


@pytest.mark.parametrize("correlation", [0.0, 0.1, 0.35, 0.5, 0.65, LARGEST_CORRELATION])
def test_neighbours_have_the_given_correlation(correlation: float) -> None:
    field = correlated(np.random.default_rng(0), (400, 400, 3), correlation)
    assert field.dtype == np.float32
    assert field.var() == pytest.approx(1, rel=0.03)
    for axis in (0, 1):
        here, there = (np.take(field, range(a, 399 + a), axis=axis) for a in (0, 1))
        assert float((here * there).mean()) == pytest.approx(correlation, abs=0.03)
    assert abs(float((field[:, :, 0] * field[:, :, 1]).mean())) < 0.03


def test_correlation_is_limited_by_three_taps() -> None:
    most, asked = (
        correlated(np.random.default_rng(0), (20, 20, 3), r) for r in (LARGEST_CORRELATION, 0.95)
    )
    assert np.array_equal(most, asked)


def test_fitted_noise_has_the_given_correlation() -> None:
    clean = np.tile(CLEAN // 2 + 64, (6, 5, 1))
    made = add_noise(clean, "fitted:0.001,0.002,0.4", "a")
    assert neighbour_correlation(made, clean) == pytest.approx(0.4, abs=0.03)


@pytest.mark.parametrize("noise", SINGLE)
@pytest.mark.parametrize("clean", [CLEAN, sixteen_bits(CLEAN)], ids=["8", "16"])
def test_noise_depends_on_the_seed_alone(noise: str, clean: Photo) -> None:
    before = clean.copy()
    made = add_noise(clean, noise, "scene/1")
    assert np.array_equal(made, add_noise(clean.copy(), noise, "scene/1"))
    assert not np.array_equal(made, add_noise(clean, noise, "scene/2"))
    assert made.dtype == clean.dtype
    assert made.shape == clean.shape
    assert np.array_equal(clean, before)


@pytest.mark.parametrize("noise", SINGLE)
def test_noise_does_not_depend_on_bit_depth(noise: str) -> None:
    eight, deep = add_noise(CLEAN, noise, "a"), add_noise(sixteen_bits(CLEAN), noise, "a")
    assert np.abs(deep / 257 - eight).max() <= 0.51


@pytest.mark.parametrize("noise", SINGLE)
@pytest.mark.parametrize("value", [0.0, 1.0], ids=["black", "white"])
@pytest.mark.parametrize("deep", [False, True], ids=["8", "16"])
def test_black_and_white_are_clipped_and_do_not_wrap(noise: str, value: float, deep: bool) -> None:
    clean = flat(value, deep)
    made = add_noise(clean, noise, "a") / (65535 if deep else 255)
    assert np.abs(made - value).max() < 0.75
    assert (made == value).mean() > 0.3


def test_zero_noise_leaves_the_photo_unchanged() -> None:
    for noise in ("gaussian:0", "poisson:0,0", "fitted:0,0,0.5"):
        assert np.array_equal(add_noise(CLEAN, noise, "a"), CLEAN)


@pytest.mark.parametrize("height", [1, 2, 3])
def test_accepts_photos_of_a_few_pixels(height: int) -> None:
    for noise in SINGLE[:2] + SINGLE[3:]:
        assert add_noise(CLEAN[:height, :2], noise, "a").shape == (height, 2, 3)


@pytest.mark.parametrize("noise", ["gaussian:25", "gaussian:0", "poisson:0.01,0.0005"])
def test_single_valued_noise_expands_to_itself(noise: str) -> None:
    assert list(expand_noise(noise, "a")) == [(noise, None)]


def test_camera_noise_expands_to_one_pair_per_iso() -> None:
    assert list(expand_noise("camera:800,12800", "a")) == [
        ("camera:800", 800),
        ("camera:12800", 12800),
    ]
    every = ",".join(map(str, ISO_LEVELS))
    assert [iso for _, iso in expand_noise(f"camera:{every}", "a")] == list(ISO_LEVELS)


@settings(max_examples=50, deadline=None)
@given(
    name=st.text(max_size=20),
    low=st.floats(0, 50).map(lambda x: round(x, 2)),
    width=st.integers(0, 50),
)
def test_range_expands_to_one_value_per_photo(name: str, low: float, width: int) -> None:
    noise = f"gaussian:{low}-{low + width:.2f}"
    ((made, iso),) = expand_noise(noise, name)
    assert iso is None
    assert low * 0.999 <= float(made.removeprefix("gaussian:")) <= (low + width) * 1.001
    assert list(expand_noise(noise, name)) == [(made, None)]


def test_range_is_sampled_uniformly() -> None:
    drawn = [
        float(next(expand_noise("gaussian:10-50", f"{i}.png"))[0].partition(":")[2])
        for i in range(400)
    ]
    assert np.mean(drawn) == pytest.approx(30, abs=2)
    assert (min(drawn), max(drawn)) == (pytest.approx(10, abs=1), pytest.approx(50, abs=1))


def test_several_fits_expand_to_one_per_photo() -> None:
    fits = ["0.01,0.001,0.3", "0.02,0.002,0.4", "0.03,0.003,0"]
    drawn = [list(expand_noise("fitted:" + ";".join(fits), f"{i}.png")) for i in range(300)]
    for fit in fits:
        assert 60 < sum(made == [(f"fitted:{fit}", None)] for made in drawn) < 140
    assert drawn[7] == list(expand_noise("fitted:" + ";".join(fits), "7.png"))


@pytest.mark.parametrize(
    ("noise", "reason"),
    [
        ("", "its kind is not known"),
        ("snow:3", "its kind is not known"),
        ("like:pairs", "its kind is not known"),
        ("Gaussian:3", "its kind is not known"),
        ("gaussian", "none negative"),
        ("gaussian:", "none negative"),
        ("gaussian:x", "none negative"),
        ("gaussian:-5", "none negative"),
        ("gaussian:1,2", "none negative"),
        ("gaussian:nan", "none negative"),
        ("gaussian:inf", "none negative"),
        ("gaussian:1-2-3", "none negative"),
        ("gaussian:50-10", "the range must rise"),
        ("poisson:0.1", "none negative"),
        ("poisson:0.1,-1", "none negative"),
        ("fitted:0.1,0.2", "none negative"),
        ("fitted:", "none negative"),
        ("camera:", "the camera's ISOs are 800, 3200, 12800"),
        ("camera:100", "the camera's ISOs are 800, 3200, 12800"),
        ("camera:800,", "the camera's ISOs are 800, 3200, 12800"),
        ("camera:-800", "the camera's ISOs are 800, 3200, 12800"),
    ],
)
def test_invalid_noise_is_refused_with_the_known_kinds(noise: str, reason: str) -> None:
    with pytest.raises(
        ValueError, match=r"; known: gaussian:SIGMA, gaussian:LOW-HIGH, poisson:GAIN,READ, "
    ) as raised:
        list(expand_noise(noise, "a"))
    said = str(raised.value).partition("; known:")[0]
    assert f"noise {noise!r} cannot be made: " in said
    assert reason in said
