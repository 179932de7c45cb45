"""Tiles join without seams: a photo of any size gives what the whole frame gives."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from unit.support import natural_photo, random_photo

from degrain.imaging.codecs import sixteen_bits
from degrain.imaging.denoiser import NetworkDenoiser, Untouched
from degrain.imaging.metrics import to_eight_bits, to_float
from degrain.imaging.tiling import apply_tiled, pad_to_contract, tiles_along
from denoisenets import SizeContract, create_model, receptive_radius, size_contract

ARGUMENTS = {"red10": {"width": 4}, "mwcnn": {"width": 4, "depth": 1}}
networks = pytest.mark.parametrize("name", sorted(ARGUMENTS))


def network(name: str) -> nn.Module:
    """Random, and with strong last layers so that what it adds is not small."""
    torch.manual_seed(0)
    made = create_model(name, **ARGUMENTS[name]).eval()
    for layer in made.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.uniform_(layer.bias, -0.2, 0.2)
            with torch.no_grad():
                layer.weight.mul_(1.5)
    return made


def denoiser(name: str, tile: int = 24) -> NetworkDenoiser:
    weights = network(name).state_dict()
    return NetworkDenoiser(name, ARGUMENTS[name], weights, precision="float32", tile=tile)


def run_tiled(name: str, photo: Tensor, tile: int) -> Tensor:
    size = size_contract(name, **ARGUMENTS[name])
    halo = receptive_radius(name, **ARGUMENTS[name])
    with torch.inference_mode():
        return apply_tiled(network(name), photo, size=size, halo=halo, tile=tile)


def run_whole(name: str, photo: Tensor) -> Tensor:
    height, width = photo.shape[-2:]
    with torch.inference_mode():
        return network(name)(pad_to_contract(photo, size_contract(name, **ARGUMENTS[name])))[..., :height, :width]


@networks
@pytest.mark.parametrize("tile", [16, 24])
@pytest.mark.parametrize(("height", "width"), [(64, 64), (65, 97), (127, 83), (31, 130), (5, 70), (71, 3)])
def test_tiles_equal_the_whole_frame(name: str, tile: int, height: int, width: int) -> None:
    photo = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(height))
    tiled, whole = run_tiled(name, photo, tile), run_whole(name, photo)
    assert tiled.shape == photo.shape
    assert torch.allclose(tiled, whole, rtol=0, atol=1e-5)
    assert (whole - photo).abs().mean() > 0.01


@settings(max_examples=15, deadline=None)
@given(height=st.integers(1, 60), width=st.integers(1, 60), tile=st.integers(1, 40))
def test_any_tile_on_any_photo_equals_the_whole_frame(height: int, width: int, tile: int) -> None:
    photo = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(tile))
    tile = max(tile, 8)
    assert torch.allclose(run_tiled("mwcnn", photo, tile), run_whole("mwcnn", photo), rtol=0, atol=1e-5)


@settings(max_examples=200, deadline=None)
@given(side=st.integers(1, 300), tile=st.integers(1, 80), halo=st.integers(0, 60), multiple=st.sampled_from([1, 2, 8, 16]))
def test_tiles_cover_every_pixel_once(side: int, tile: int, halo: int, multiple: int) -> None:
    tiles = list(tiles_along(side, tile, halo, multiple))
    assert [p for t in tiles for p in range(t.start, t.stop)] == list(range(side))
    for t in tiles:
        assert t.read_start % multiple == 0
        assert 0 <= t.read_start <= t.start < t.stop <= t.read_stop <= side
        assert t.read_start == 0 or t.start - t.read_start >= halo
        assert t.read_stop == side or t.read_stop - t.stop >= halo
        # inside the photo nothing is padded, because padding there would be seen
        assert t.read_stop == side or (t.read_stop - t.read_start) % multiple == 0
        assert t.stop - t.start <= max(tile, multiple)


@settings(max_examples=50, deadline=None)
@given(height=st.integers(1, 40), width=st.integers(1, 40), multiple=st.sampled_from([1, 4, 8]))
def test_padding_keeps_the_photo_and_meets_the_contract(height: int, width: int, multiple: int) -> None:
    photo = torch.rand(1, 3, height, width)
    padded = pad_to_contract(photo, SizeContract(minimum=multiple, multiple=multiple))
    assert torch.equal(padded[..., :height, :width], photo)
    for before, after in zip(photo.shape[-2:], padded.shape[-2:], strict=True):
        assert after % multiple == 0
        assert 0 <= after - before < multiple


@networks
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 40), (17, 31), (50, 49)])
def test_a_photo_of_any_size_comes_back_in_its_size(name: str, height: int, width: int) -> None:
    photo = random_photo(height, width)
    before = photo.copy()
    clean = denoiser(name)(photo)
    assert clean.shape == photo.shape
    assert clean.dtype == np.uint8
    assert np.array_equal(photo, before)
    x = to_float(torch.from_numpy(photo).permute(2, 0, 1)[None])
    whole = to_eight_bits(run_whole(name, x))[0].permute(1, 2, 0).numpy()
    assert np.abs(clean.astype(int) - whole).max() <= 1


@networks
def test_the_same_photo_gives_the_same_output(name: str) -> None:
    photo = natural_photo(50, 61)
    one = denoiser(name)
    first = one(photo)
    assert np.array_equal(one(photo), first)
    assert np.array_equal(denoiser(name)(photo), first)


def test_read_only_and_strided_photos_are_taken() -> None:
    photo = natural_photo(40, 60)
    one = denoiser("red10")
    expected = one(photo.copy())
    frozen = photo.copy()
    frozen.setflags(write=False)
    assert np.array_equal(one(frozen), expected)
    assert np.array_equal(one(natural_photo(80, 120)[::2, ::2]), one(natural_photo(80, 120)[::2, ::2].copy()))


@pytest.mark.parametrize("tile", [0, -1])
def test_a_tile_has_at_least_one_pixel(tile: int) -> None:
    with pytest.raises(ValueError, match=f"tile must be at least 1 pixel, got {tile}"):
        run_tiled("red10", torch.zeros(1, 3, 8, 8), tile)


def test_a_denoiser_knows_its_name_and_size() -> None:
    parameters = sum(p.numel() for p in network("red10").parameters())
    made = denoiser("red10")
    assert (made.name, made.parameters) == ("red10", parameters)
    assert NetworkDenoiser("red10", ARGUMENTS["red10"], network("red10").state_dict(), name="ours").name == "ours"


def test_untouched_gives_the_photo_back() -> None:
    photo = random_photo(5, 6)
    assert np.array_equal(Untouched()(photo), photo)


@networks
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 40), (17, 31), (50, 49)])
def test_sixteen_bits_stay_sixteen(name: str, height: int, width: int) -> None:
    """And say more than eight: the network's output is rounded to one part in 65535."""
    photo = random_photo(height, width)
    before = sixteen_bits(photo)
    deep = denoiser(name)(before)
    assert deep.dtype == np.uint16
    assert deep.shape == photo.shape
    assert np.array_equal(before, sixteen_bits(photo))
    assert np.abs(deep / 257 - denoiser(name)(photo)).max() <= 0.51
    x = to_float(torch.from_numpy(photo).permute(2, 0, 1)[None])
    whole = run_whole(name, x)[0].permute(1, 2, 0).clamp(0, 1).numpy() * 65535
    assert np.abs(deep - whole).max() <= 1.5


@networks
def test_lower_bits_reach_the_network(name: str) -> None:
    photo = sixteen_bits(random_photo(20, 24))
    low = np.random.default_rng(0).integers(0, 100, photo.shape).astype(np.uint16)
    assert not np.array_equal(denoiser(name)(photo // 2 + low), denoiser(name)(photo // 2))


def test_read_only_photos_of_sixteen_bits_are_taken() -> None:
    photo = sixteen_bits(natural_photo(40, 60))
    expected = denoiser("red10")(photo)
    photo.setflags(write=False)
    assert np.array_equal(denoiser("red10")(photo), expected)
