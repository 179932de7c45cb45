"""Networks on whole photos, and the wrappers of denoisers."""

import pickle
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor
from unit.small_networks import LARGE_LAST, small, trained
from unit.support import natural_photo, random_photo

from degrain.imaging.filters import create_filter
from degrain.imaging.metrics import to_float
from degrain.imaging.pixels import sixteen_bits
from degrain.inference.blending import Blended
from degrain.inference.config import BlendConfig, InferenceConfig
from degrain.inference.denoiser import Identity, NetworkDenoiser, SelfEnsemble
from degrain.inference.tiling import pad_to_contract, tiles_along
from denoisenets import create_model, list_models, model_contract

every_model = pytest.mark.parametrize("name", list_models())
GLOBAL = [name for name in list_models() if model_contract(name).global_statistics]
LOCAL = [name for name in list_models() if name not in GLOBAL]


def denoiser(model: str, **options: object) -> NetworkDenoiser:
    config = InferenceConfig(precision="float32", **options)  # type: ignore[arg-type]
    return NetworkDenoiser(model, small(model), trained(model).state_dict(), config=config)


def run_whole(name: str, photo: Tensor) -> Tensor:
    height, width = photo.shape[-2:]
    with torch.inference_mode():
        return trained(name)(pad_to_contract(photo, model_contract(name, **small(name)).size))[
            ..., :height, :width
        ]


@cache
def large_photo() -> Tensor:
    """A photo of four tiles with bright and dark parts, (1, 3, 752, 724) uint8, and noise."""
    photo = np.tile(natural_photo(376, 362), (2, 2, 1)).astype(np.float32)
    shade = np.linspace(0.15, 1, 724, dtype=np.float32)[None, :, None]
    noisy = photo * shade + np.random.default_rng(0).normal(0, 15, photo.shape)
    return torch.from_numpy(np.clip(noisy, 0, 255).astype(np.uint8)).permute(2, 0, 1)[None]


# Largest difference between tiles and the whole frame, in steps of 8 bits: rounding for networks of
# bounded receptive field, slightly more for those with global statistics, which become local.
TOLERANCE = dict.fromkeys(LOCAL, 1) | dict.fromkeys(GLOBAL, 2)


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE_LAST)
def test_tiles_of_a_large_photo_equal_the_whole_frame(name: str) -> None:
    photo = large_photo()[0].permute(1, 2, 0).numpy()
    tiled = denoiser(name, tile=512)(photo).astype(int)
    whole = denoiser(name, tile=2048)(photo).astype(int)
    difference = np.abs(tiled - whole)
    assert difference.max() <= TOLERANCE[name]
    assert difference.mean() < 0.001
    assert np.abs(whole - photo).mean() > 0.05


@pytest.mark.slow
@every_model
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 40), (17, 31), (50, 49)])
def test_photos_of_any_size_keep_their_shape_and_dtype(name: str, height: int, width: int) -> None:
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
def test_is_deterministic(name: str) -> None:
    photo = natural_photo(50, 61)
    one = denoiser(name)
    first = one(photo)
    assert np.array_equal(one(photo), first)
    assert np.array_equal(denoiser(name)(photo), first)


def test_photos_of_one_shape_share_a_batch_and_keep_their_order() -> None:
    photos = [
        natural_photo(40, 60),
        sixteen_bits(random_photo(40, 60)),
        random_photo(40, 60),
        natural_photo(33, 20),
    ]
    one = denoiser("unet")
    shapes: list[torch.Size] = []
    one.network.register_forward_pre_hook(lambda _, x: shapes.append(x[0].shape))
    together = one.batch(photos)
    assert sorted(shape[0] for shape in shapes) == [1, 1, 2]
    for photo, clean in zip(photos, together, strict=True):
        assert clean.dtype == photo.dtype
        # Sums have another order in batches of another size.
        assert np.abs(clean.astype(int) - one(photo)).max() <= (
            1 if photo.dtype == np.uint8 else 16
        )


def test_accepts_read_only_and_strided_photos() -> None:
    one = denoiser("red10")
    for photo in (natural_photo(40, 60), sixteen_bits(natural_photo(40, 60))):
        expected = one(photo.copy())
        frozen = photo.copy()
        frozen.setflags(write=False)
        assert np.array_equal(one(frozen), expected)
    assert np.array_equal(
        one(natural_photo(80, 120)[::2, ::2]), one(natural_photo(80, 120)[::2, ::2].copy())
    )


def test_lower_bits_of_sixteen_change_the_output() -> None:
    photo = sixteen_bits(random_photo(20, 24))
    low = np.random.default_rng(0).integers(0, 100, photo.shape).astype(np.uint16)
    assert not np.array_equal(denoiser("red10")(photo // 2 + low), denoiser("red10")(photo // 2))


@pytest.mark.slow
@every_model
def test_tiles_and_batches_fit_in_memory_and_use_it(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Only the smallest tile may exceed the memory limit, and says so; large limits are used."""
    for megabytes in (8, 64, 512):
        caplog.clear()
        one = denoiser(name, memory=megabytes)
        tiling = one.tiling(4000, 6000)
        longest = [
            max(tiling.size.padded(t.read_width) for t in tiles_along(side, tiling))
            for side in (4000, 6000)
        ]
        needed = tiling.batch * longest[0] * longest[1] * one.bytes_per_pixel
        if needed > megabytes * 2**20:
            assert tiling.step == -(-max(64, 2 * tiling.blend) // tiling.grid) * tiling.grid
            assert tiling.batch == 1
            assert f"over the limit of {megabytes} MiB" in caplog.text
        else:
            assert caplog.text == ""
            larger = replace(tiling, tile=tiling.step + tiling.grid)
            assert (
                tiling.step >= 6000
                or larger.reads(4000) * larger.reads(6000) * one.bytes_per_pixel > megabytes * 2**20
            )
    if name in LOCAL:
        contract = model_contract(name, **small(name))
        assert (tiling.halo, tiling.grid, tiling.blend) == (
            contract.receptive_radius,
            contract.size.multiple,
            0,
        )
    assert denoiser(name, memory=2**13).tiling(300, 200).batch > 1
    assert denoiser(name, memory=1).tiling(300, 200).batch == 1


def test_a_pickled_denoiser_gives_the_same_photo() -> None:
    photo = natural_photo(40, 50)
    one = denoiser("pridnet", memory=64)
    again = pickle.loads(pickle.dumps(Blended(one, BlendConfig(strength=0.5))))
    assert (again.name, again.denoiser.config) == (one.name, one.config)
    assert np.array_equal(again.denoiser(photo), one(photo))


def test_name_and_number_of_parameters() -> None:
    parameters = sum(p.numel() for p in trained("red10").parameters())
    made = denoiser("red10")
    assert (made.name, made.parameters) == ("red10", parameters)
    assert (
        NetworkDenoiser("red10", small("red10"), trained("red10").state_dict(), name="ours").name
        == "ours"
    )


def test_identity_returns_the_photo() -> None:
    photo = random_photo(5, 6)
    assert np.array_equal(Identity()(photo), photo)


class Corner:
    """Adds to the upper left quarter, so that the output depends on the orientation."""

    name, parameters = "corner", 0

    def __call__(self, photo: np.ndarray) -> np.ndarray:
        out = photo.copy()
        out[: photo.shape[0] // 2, : photo.shape[1] // 2] += 80
        return out


def test_self_ensemble_is_the_mean_over_flips_and_rotations() -> None:
    photo = random_photo(20, 30) // 2
    # Over eight orientations the quarter covers each corner twice.
    expected = photo.astype(int)
    expected[:10, :15] += 20
    expected[10:, :15] += 20
    expected[:10, 15:] += 20
    expected[10:, 15:] += 20
    assert np.array_equal(SelfEnsemble(Corner())(photo), expected)
    assert np.array_equal(SelfEnsemble(Identity())(sixteen_bits(photo)), sixteen_bits(photo))
    clean = SelfEnsemble(denoiser("unet"))(photo)
    rotated = SelfEnsemble(denoiser("unet"))(np.rot90(photo).copy())
    assert np.abs(np.rot90(clean).astype(int) - rotated).max() <= 1


def test_noise_level_needs_a_network_that_takes_it() -> None:
    photo = natural_photo(64, 64)
    weak, strong = denoiser("ffdnet", noise_level=0.01), denoiser("ffdnet", noise_level=0.5)
    assert not np.array_equal(weak(photo), strong(photo))
    with pytest.raises(ValueError, match="model 'red10' takes no noise level"):
        denoiser("red10", noise_level=0.1)
    with pytest.raises(ValueError, match="noise_level"):
        denoiser("ffdnet", noise_level=-1)


WRONG_PHOTOS = [
    (
        np.zeros((4, 5, 4), np.uint8),
        r"3 channels, got the shape \(4, 5, 4\); repeat grey, and keep alpha apart",
    ),
    (np.zeros((4, 5), np.uint8), r"3 channels, got the shape \(4, 5\)"),
    (np.zeros((4, 5, 3), np.float32), "a photo is uint8 or uint16, got float32; scale values"),
    (np.full((4, 5, 3), np.nan, np.float32), "got float32 with NaN or infinite pixels"),
    (np.zeros((4, 5, 3), np.int64), "a photo is uint8 or uint16, got int64"),
    (np.zeros((0, 5, 3), np.uint8), "a photo has at least one pixel, got 0x5"),
]


@pytest.mark.parametrize(("photo", "message"), WRONG_PHOTOS)
def test_refuses_arrays_that_are_not_photos(photo: np.ndarray, message: str) -> None:
    for one in (
        denoiser("red10"),
        create_filter("bilateral"),
        SelfEnsemble(denoiser("red10")),
        Blended(Identity(), BlendConfig(strength=0.5)),
    ):
        with pytest.raises(ValueError, match=message):
            one(photo)


def test_refuses_weights_of_another_network_and_invalid_crops() -> None:
    weights = trained("red10").state_dict()
    with pytest.raises(
        ValueError, match=r"its weights do not fit red20: Error.s. in loading state_dict"
    ):
        NetworkDenoiser("red20", {"width": 8}, weights)
    for crop in (0, -64, "64"):
        with pytest.raises(ValueError, match="crop must be a whole number of at least 1"):
            NetworkDenoiser("red10", small("red10"), weights, crop=crop)  # type: ignore[arg-type]


def test_refuses_weights_that_are_not_finite() -> None:
    weights = {name: value.clone() for name, value in trained("red10").state_dict().items()}
    next(iter(weights.values()))[0, 0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="its weights are not all finite"):
        NetworkDenoiser("red10", small("red10"), weights)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["drunet", "ffdnet", "pridnet", "red10"])
def test_networks_that_do_not_add_to_the_photo_have_all_tones_under_bfloat16(name: str) -> None:
    arguments = small(name) | {"residual": False}
    torch.manual_seed(0)
    made = create_model(name, **arguments)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        clean = made(torch.rand(1, 3, 256, 256))
    assert clean.dtype == torch.float32
    rounded = (clean == clean.bfloat16().float()).float().mean()
    assert rounded < 0.05


def test_a_digest_tells_weights_arguments_and_crops_apart() -> None:
    weights = trained("red10").state_dict()
    other = {name: values + 1e-6 for name, values in weights.items()}
    one = NetworkDenoiser("red10", small("red10"), weights)
    assert one.digest == NetworkDenoiser("red10", small("red10"), dict(weights)).digest
    assert one.digest != NetworkDenoiser("red10", small("red10"), other).digest
    assert one.digest != NetworkDenoiser("red10", small("red10"), weights, crop=64).digest
