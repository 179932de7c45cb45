"""Tiles join without seams: a photo of any size gives what the whole frame gives."""

import math
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from unit.support import natural_photo, random_photo
from unit.test_networks import learnt, small

from degrain.imaging.denoiser import Application, NetworkDenoiser, SelfEnsemble, Strength, Untouched
from degrain.imaging.filters import create_filter
from degrain.imaging.metrics import to_float
from degrain.imaging.pixels import sixteen_bits
from degrain.imaging.tiling import Tiling, apply_tiled, pad_to_contract, tiles_along
from denoisenets import SizeContract, list_models, model_contract

every_model = pytest.mark.parametrize("name", list_models())
SEES_THE_FRAME = [name for name in list_models() if model_contract(name).global_statistics]
LOCAL = [name for name in list_models() if name not in SEES_THE_FRAME]
NOISY_MEGAPIXELS = 3


def denoiser(model: str, **options: object) -> NetworkDenoiser:
    application = Application(precision="float32", **options)  # type: ignore[arg-type]
    return NetworkDenoiser(model, small(model), learnt(model).state_dict(), application=application)


def run_tiled(name: str, photo: Tensor, tile: int, batch: int = 1) -> Tensor:
    contract = model_contract(name, **small(name))
    size = contract.size
    tiling = Tiling(tile=tile, halo=contract.receptive_radius, size=size, grid=size.multiple, batch=batch)
    with torch.inference_mode():
        return apply_tiled(learnt(name), photo, tiling)


def run_whole(name: str, photo: Tensor) -> Tensor:
    height, width = photo.shape[-2:]
    with torch.inference_mode():
        return learnt(name)(pad_to_contract(photo, model_contract(name, **small(name)).size))[..., :height, :width]


@pytest.mark.parametrize("name", ["red10", "mwcnn", "unet"])
@pytest.mark.parametrize(("tile", "batch"), [(16, 1), (24, 3)])
@pytest.mark.parametrize(("height", "width"), [(64, 64), (65, 97), (127, 83), (31, 130), (5, 70), (71, 3)])
def test_tiles_equal_the_whole_frame(name: str, tile: int, batch: int, height: int, width: int) -> None:
    photo = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(height))
    tiled, whole = run_tiled(name, photo, tile, batch), run_whole(name, photo)
    assert tiled.shape == photo.shape
    assert torch.allclose(tiled, whole, rtol=0, atol=1e-5)
    assert (whole - photo).abs().mean() > 0.002


@settings(max_examples=15, deadline=None)
@given(height=st.integers(1, 60), width=st.integers(1, 60), tile=st.integers(8, 40), batch=st.integers(1, 4))
def test_any_tile_on_any_photo_equals_the_whole_frame(height: int, width: int, tile: int, batch: int) -> None:
    photo = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(tile))
    assert torch.allclose(run_tiled("mwcnn", photo, tile, batch), run_whole("mwcnn", photo), rtol=0, atol=1e-5)


tilings = st.builds(
    lambda tile, halo, multiple, coarser, blend: Tiling(
        tile=tile,
        halo=halo,
        size=SizeContract(minimum=multiple, multiple=multiple),
        grid=multiple * coarser,
        blend=min(blend, halo),
    ),
    tile=st.integers(1, 80),
    halo=st.integers(0, 60),
    multiple=st.sampled_from([1, 2, 8, 16]),
    coarser=st.sampled_from([1, 3]),
    blend=st.integers(0, 40),
)


@settings(max_examples=300, deadline=None)
@given(side=st.integers(1, 300), tiling=tilings)
def test_tiles_cover_every_pixel_once(side: int, tiling: Tiling) -> None:
    tiles = list(tiles_along(side, tiling))
    assert [p for t in tiles for p in range(t.start, t.stop)] == list(range(side))
    total = torch.zeros(side)
    for t in tiles:
        assert t.read_start % tiling.grid == 0
        assert 0 <= t.read_start <= t.shared_start <= t.start < t.stop <= t.shared_stop <= t.read_stop <= side
        assert t.read_start == 0 or t.start - t.read_start >= tiling.halo
        assert t.read_stop == side or t.read_stop - t.stop >= tiling.halo
        # inside the photo nothing is padded, because padding there would be seen
        assert t.read_stop == side or (t.read_stop - t.read_start) % tiling.size.multiple == 0
        total[t.shared_start : t.shared_stop] += t.weights(torch.device("cpu"))
    assert torch.allclose(total, torch.ones(side), rtol=0, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(height=st.integers(1, 150), width=st.integers(1, 150), tiling=tilings)
def test_blended_tiles_of_what_changes_nothing_are_the_photo(height: int, width: int, tiling: Tiling) -> None:
    photo = torch.rand(1, 3, height, width)
    assert torch.allclose(apply_tiled(lambda tile: tile, photo, tiling), photo, rtol=0, atol=1e-5)


def test_a_join_is_crossed_in_small_steps() -> None:
    """Tiles that differ, here by number, are blended over twice the blend's pixels, along both axes and at corners."""
    seen: list[float] = []

    def numbered(tile: Tensor) -> Tensor:
        seen.append(len(seen) % 3)
        return torch.full_like(tile, seen[-1])

    photo = torch.zeros(1, 1, 240, 240)
    out = apply_tiled(numbered, photo, Tiling(tile=64, halo=20, blend=16))[0, 0]
    assert len(set(seen)) == 3
    for differences in (out.diff(dim=0), out.diff(dim=1)):
        assert differences.abs().max() <= 2 / 32 + 1e-6
    hard = apply_tiled(numbered, photo, Tiling(tile=64, halo=20))[0, 0]
    assert hard.diff(dim=1).abs().max() >= 1


@settings(max_examples=50, deadline=None)
@given(height=st.integers(1, 40), width=st.integers(1, 40), multiple=st.sampled_from([1, 4, 8]))
def test_padding_keeps_the_photo_and_meets_the_contract(height: int, width: int, multiple: int) -> None:
    photo = torch.rand(1, 3, height, width)
    padded = pad_to_contract(photo, SizeContract(minimum=multiple, multiple=multiple))
    assert torch.equal(padded[..., :height, :width], photo)
    for before, after in zip(photo.shape[-2:], padded.shape[-2:], strict=True):
        assert after % multiple == 0
        assert 0 <= after - before < multiple


@cache
def three_megapixels() -> Tensor:
    """A photo with bright and dark parts, (1, 3, 1504, 2000) uint8, and noise."""
    photo = np.tile(natural_photo(376, 362), (4, 6, 1))[:1504, :2000].astype(np.float32)
    shade = np.linspace(0.15, 1, 2000, dtype=np.float32)[None, :, None]
    noisy = photo * shade + np.random.default_rng(0).normal(0, 15, photo.shape)
    return torch.from_numpy(np.clip(noisy, 0, 255).astype(np.uint8)).permute(2, 0, 1)[None]


# What tiles may differ from the whole frame, in steps of 8 bits: rounding alone for networks that see a bounded square, and
# for those that see the frame little more, because all their means are local.
TOLERANCE = dict.fromkeys(LOCAL, 1) | dict.fromkeys(SEES_THE_FRAME, 2)


@pytest.mark.slow
@every_model
def test_tiled_three_megapixels_equal_the_whole_frame(name: str) -> None:
    photo = three_megapixels()[0].permute(1, 2, 0).numpy()
    tiled = denoiser(name, tile=512)(photo).astype(int)
    whole = denoiser(name, tile=2048)(photo).astype(int)
    difference = np.abs(tiled - whole)
    assert difference.max() <= TOLERANCE[name]
    assert difference.mean() < 0.001
    assert np.abs(whole - photo).mean() > 0.05


@pytest.mark.slow
@every_model
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 40), (17, 31), (50, 49)])
def test_a_photo_of_any_size_comes_back_in_its_size_and_bits(name: str, height: int, width: int) -> None:
    photo = random_photo(height, width)
    before = photo.copy()
    clean = denoiser(name)(photo)
    assert clean.shape == photo.shape
    assert clean.dtype == np.uint8
    assert np.array_equal(photo, before)
    deep = denoiser(name)(sixteen_bits(photo))
    assert deep.dtype == np.uint16
    assert deep.shape == photo.shape
    assert np.abs(deep / 257 - clean).max() <= 0.51
    if name in LOCAL:
        whole = run_whole(name, to_float(torch.from_numpy(photo).permute(2, 0, 1)[None]))
        whole = whole[0].permute(1, 2, 0).clamp(0, 1).numpy() * 65535
        assert np.abs(deep - whole).max() <= 1.5


@pytest.mark.slow
@every_model
def test_the_same_photo_gives_the_same_output(name: str) -> None:
    photo = natural_photo(50, 61)
    one = denoiser(name)
    first = one(photo)
    assert np.array_equal(one(photo), first)
    assert np.array_equal(denoiser(name)(photo), first)


def test_photos_of_one_size_go_through_together_and_come_back_in_order() -> None:
    photos = [natural_photo(40, 60), sixteen_bits(random_photo(40, 60)), random_photo(40, 60), natural_photo(33, 20)]
    one = denoiser("unet")
    shapes: list[torch.Size] = []
    one.network.register_forward_pre_hook(lambda _, x: shapes.append(x[0].shape))
    together = one.batch(photos)
    assert sorted(shape[0] for shape in shapes) == [1, 1, 2]
    for photo, clean in zip(photos, together, strict=True):
        assert clean.dtype == photo.dtype
        # in batches of another size, sums are taken in another order
        assert np.abs(clean.astype(int) - one(photo)).max() <= (1 if photo.dtype == np.uint8 else 16)


def test_read_only_and_strided_photos_are_taken() -> None:
    one = denoiser("red10")
    for photo in (natural_photo(40, 60), sixteen_bits(natural_photo(40, 60))):
        expected = one(photo.copy())
        frozen = photo.copy()
        frozen.setflags(write=False)
        assert np.array_equal(one(frozen), expected)
    assert np.array_equal(one(natural_photo(80, 120)[::2, ::2]), one(natural_photo(80, 120)[::2, ::2].copy()))


def test_lower_bits_reach_the_network() -> None:
    photo = sixteen_bits(random_photo(20, 24))
    low = np.random.default_rng(0).integers(0, 100, photo.shape).astype(np.uint16)
    assert not np.array_equal(denoiser("red10")(photo // 2 + low), denoiser("red10")(photo // 2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tile": 0}, "tile must be at least 1, got 0"),
        ({"memory": -1}, "memory must be at least 1, got -1"),
        ({"noise_level": 25}, "noise_level must be above 0 and at most 1, where white is 1, got 25"),
        ({"precision": "float16"}, "unknown precision 'float16'; known: auto, float32, bfloat16"),
        ({"compiled": "yes"}, "unknown compiled 'yes'; known: auto, on, off"),
    ],
)
def test_what_an_application_refuses(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Application(**options)  # type: ignore[arg-type]


def test_tilings_have_pixels_and_tiles() -> None:
    for options in ({"tile": 0}, {"tile": 8, "batch": 0}):
        with pytest.raises(ValueError, match="must be at least 1"):
            Tiling(halo=2, **options)


@every_model
def test_tiles_and_batches_follow_memory(name: str) -> None:
    """A batch of tiles takes no more than was given, unless the smallest tile does; and what was given is used."""
    for megabytes in (8, 64, 512):
        one = denoiser(name, memory=megabytes * 2**20)
        tiling = one.tiling(4000, 6000)
        assert tiling.step < 4000 + tiling.grid
        grown = math.ceil(tiling.halo / tiling.grid) * tiling.grid
        pixels = tiling.batch * (tiling.step + 2 * grown) ** 2
        smallest = max(64, tiling.grid)
        if tiling.tile > smallest:
            assert pixels * one.bytes_per_pixel <= 1.5 * megabytes * 2**20
    if name in LOCAL:
        contract = model_contract(name, **small(name))
        assert (tiling.halo, tiling.grid, tiling.blend) == (contract.receptive_radius, contract.size.multiple, 0)
    assert denoiser(name, memory=2**33).tiling(300, 200).batch > 1
    assert denoiser(name, memory=2**20).tiling(300, 200).batch == 1


def test_a_denoiser_knows_its_name_and_size() -> None:
    parameters = sum(p.numel() for p in learnt("red10").parameters())
    made = denoiser("red10")
    assert (made.name, made.parameters) == ("red10", parameters)
    assert NetworkDenoiser("red10", small("red10"), learnt("red10").state_dict(), name="ours").name == "ours"


def test_untouched_gives_the_photo_back() -> None:
    photo = random_photo(5, 6)
    assert np.array_equal(Untouched()(photo), photo)


@pytest.mark.parametrize("deep", [False, True])
def test_strength_goes_from_the_photo_to_the_result(deep: bool) -> None:
    photo = sixteen_bits(natural_photo(30, 40)) if deep else natural_photo(30, 40)
    one = denoiser("red10")
    clean = one(photo)
    assert np.array_equal(Strength(one, 0)(photo), photo)
    assert np.array_equal(Strength(one, 1)(photo), clean)
    half = Strength(one, 0.5)(photo)
    assert half.dtype == photo.dtype
    assert np.abs(half - (photo.astype(float) + clean) / 2).max() <= 0.5
    assert (Strength(one, 0.5).name, Strength(one, 0.5).parameters) == (one.name, one.parameters)


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan")])
def test_strength_is_from_0_to_1(strength: float) -> None:
    with pytest.raises(ValueError, match="strength must be from 0 to 1, got"):
        Strength(Untouched(), strength)


class Corner:
    """Adds to the upper left quarter: what it gives depends on how the photo lies."""

    name, parameters = "corner", 0

    def __call__(self, photo: np.ndarray) -> np.ndarray:
        out = photo.copy()
        out[: photo.shape[0] // 2, : photo.shape[1] // 2] += 80
        return out


def test_self_ensemble_is_the_mean_over_flips_and_rotations() -> None:
    photo = random_photo(20, 30) // 2
    # a corner of eight orientations comes to each corner twice
    expected = photo.astype(int)
    expected[:10, :15] += 20
    expected[10:, :15] += 20
    expected[:10, 15:] += 20
    expected[10:, 15:] += 20
    assert np.array_equal(SelfEnsemble(Corner())(photo), expected)
    assert np.array_equal(SelfEnsemble(Untouched())(sixteen_bits(photo)), sixteen_bits(photo))
    clean = SelfEnsemble(denoiser("unet"))(photo)
    turned = SelfEnsemble(denoiser("unet"))(np.rot90(photo).copy())
    assert np.abs(np.rot90(clean).astype(int) - turned).max() <= 1


def test_a_noise_level_is_for_networks_that_are_told_it() -> None:
    photo = natural_photo(64, 64)
    weak, strong = denoiser("ffdnet", noise_level=0.01), denoiser("ffdnet", noise_level=0.5)
    assert not np.array_equal(weak(photo), strong(photo))
    with pytest.raises(ValueError, match="model 'red10' is not told the noise level"):
        denoiser("red10", noise_level=0.1)
    with pytest.raises(ValueError, match="noise_level"):
        denoiser("ffdnet", noise_level=-1)


WRONG_PHOTOS = [
    (np.zeros((4, 5, 4), np.uint8), r"3 channels, got the shape \(4, 5, 4\); repeat grey, and keep alpha apart"),
    (np.zeros((4, 5), np.uint8), r"3 channels, got the shape \(4, 5\)"),
    (np.zeros((4, 5, 3), np.float32), "a photo is uint8 or uint16, got float32; scale values"),
    (np.full((4, 5, 3), np.nan, np.float32), "got float32 with NaN or infinite pixels"),
    (np.zeros((4, 5, 3), np.int64), "a photo is uint8 or uint16, got int64"),
    (np.zeros((0, 5, 3), np.uint8), "a photo has at least one pixel, got 0x5"),
]


@pytest.mark.parametrize(("photo", "message"), WRONG_PHOTOS)
def test_what_is_no_photo_is_refused(photo: np.ndarray, message: str) -> None:
    for one in (denoiser("red10"), create_filter("bilateral"), SelfEnsemble(denoiser("red10")), Strength(Untouched(), 0.5)):
        with pytest.raises(ValueError, match=message):
            one(photo)


def test_frames_without_pixels_are_refused() -> None:
    with pytest.raises(ValueError, match="a frame has at least one pixel, got 0x7"):
        pad_to_contract(torch.zeros(1, 3, 0, 7), SizeContract())


def test_weights_of_another_network_and_crops_of_nothing_are_refused() -> None:
    weights = learnt("red10").state_dict()
    with pytest.raises(ValueError, match=r"its weights do not fit red20: Error.s. in loading state_dict"):
        NetworkDenoiser("red20", {"width": 8}, weights)
    for crop in (0, -64, "64"):
        with pytest.raises(ValueError, match="crop must be a whole number of at least 1"):
            NetworkDenoiser("red10", small("red10"), weights, crop=crop)  # type: ignore[arg-type]


def test_weights_that_are_not_finite_are_refused() -> None:
    weights = {name: value.clone() for name, value in learnt("red10").state_dict().items()}
    next(iter(weights.values()))[0, 0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="its weights are not all finite"):
        NetworkDenoiser("red10", small("red10"), weights)
