"""Tiles against the whole frame."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from unit.small_networks import small, trained

from degrain.inference.tiling import (
    Tiling,
    apply_tiled,
    largest_tiling,
    pad_to_contract,
    tiles_along,
)
from denoisenets import SizeContract, model_contract


def run_tiled(name: str, photo: Tensor, tile: int, batch: int = 1) -> Tensor:
    contract = model_contract(name, **small(name))
    size = contract.size
    tiling = Tiling(
        tile=tile, halo=contract.receptive_radius, size=size, grid=size.multiple, batch=batch
    )
    with torch.inference_mode():
        return apply_tiled(trained(name), photo, tiling)


def run_whole(name: str, photo: Tensor) -> Tensor:
    height, width = photo.shape[-2:]
    with torch.inference_mode():
        return trained(name)(pad_to_contract(photo, model_contract(name, **small(name)).size))[
            ..., :height, :width
        ]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["red10", "mwcnn", "unet"])
@pytest.mark.parametrize(("tile", "batch"), [(16, 1), (24, 3)])
@pytest.mark.parametrize(
    ("height", "width"), [(64, 64), (65, 97), (127, 83), (31, 130), (5, 70), (71, 3)]
)
def test_tiles_equal_the_whole_frame(
    name: str, tile: int, batch: int, height: int, width: int
) -> None:
    photo = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(height))
    tiled, whole = run_tiled(name, photo, tile, batch), run_whole(name, photo)
    assert tiled.shape == photo.shape
    assert torch.allclose(tiled, whole, rtol=0, atol=1e-5)
    assert (whole - photo).abs().mean() > 0.002


@settings(max_examples=15, deadline=None)
@given(
    height=st.integers(1, 60),
    width=st.integers(1, 60),
    tile=st.integers(8, 40),
    batch=st.integers(1, 4),
)
def test_any_tile_on_any_photo_equals_the_whole_frame(
    height: int, width: int, tile: int, batch: int
) -> None:
    photo = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(tile))
    assert torch.allclose(
        run_tiled("mwcnn", photo, tile, batch), run_whole("mwcnn", photo), rtol=0, atol=1e-5
    )


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
        assert (
            0
            <= t.read_start
            <= t.blend_start
            <= t.start
            < t.stop
            <= t.blend_stop
            <= t.read_stop
            <= side
        )
        assert t.read_start == 0 or t.start - t.read_start >= tiling.halo
        assert t.read_stop == side or t.read_stop - t.stop >= tiling.halo
        # Inside the photo tiles are not padded, because padding there would change the output.
        assert t.read_stop == side or (t.read_stop - t.read_start) % tiling.size.multiple == 0
        total[t.blend_start : t.blend_stop] += t.weights(torch.device("cpu"))
    assert torch.allclose(total, torch.ones(side), rtol=0, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(height=st.integers(1, 150), width=st.integers(1, 150), tiling=tilings)
def test_blended_tiles_of_the_identity_equal_the_photo(
    height: int, width: int, tiling: Tiling
) -> None:
    photo = torch.rand(1, 3, height, width)
    assert torch.allclose(apply_tiled(lambda tile: tile, photo, tiling), photo, rtol=0, atol=1e-5)


def test_seams_are_blended_gradually() -> None:
    """Tiles of different constants are blended over twice the blend width along both axes and at
    corners.
    """
    values: list[float] = []

    def constant(tile: Tensor) -> Tensor:
        values.append(len(values) % 3)
        return torch.full_like(tile, values[-1])

    photo = torch.zeros(1, 1, 240, 240)
    out = apply_tiled(constant, photo, Tiling(tile=64, halo=20, blend=16))[0, 0]
    assert len(set(values)) == 3
    for differences in (out.diff(dim=0), out.diff(dim=1)):
        assert differences.abs().max() <= 2 / 32 + 1e-6
    hard = apply_tiled(constant, photo, Tiling(tile=64, halo=20))[0, 0]
    assert hard.diff(dim=1).abs().max() >= 1


@settings(max_examples=50, deadline=None)
@given(height=st.integers(1, 40), width=st.integers(1, 40), multiple=st.sampled_from([1, 4, 8]))
def test_padding_keeps_the_photo_and_fulfils_the_contract(
    height: int, width: int, multiple: int
) -> None:
    photo = torch.rand(1, 3, height, width)
    padded = pad_to_contract(photo, SizeContract(minimum=multiple, multiple=multiple))
    assert torch.equal(padded[..., :height, :width], photo)
    for before, after in zip(photo.shape[-2:], padded.shape[-2:], strict=True):
        assert after % multiple == 0
        assert 0 <= after - before < multiple


def test_tiling_refuses_empty_tiles_and_batches() -> None:
    for options in ({"tile": 0}, {"tile": 8, "batch": 0}):
        with pytest.raises(ValueError, match="must be at least 1"):
            Tiling(halo=2, **options)


def test_padding_refuses_frames_without_pixels() -> None:
    with pytest.raises(ValueError, match="a frame has at least one pixel, got 0x7"):
        pad_to_contract(torch.zeros(1, 3, 0, 7), SizeContract())


@settings(max_examples=100, deadline=None)
@given(
    height=st.integers(1, 120),
    width=st.integers(1, 120),
    tiling=tilings,
    batch=st.integers(1, 3),
    data=st.data(),
)
def test_a_window_has_the_pixels_of_the_whole_photo(
    height: int, width: int, tiling: Tiling, batch: int, data: st.DataObject
) -> None:
    photo, tiling = torch.rand(1, 3, height, width), replace(tiling, batch=batch)
    window = tuple(
        slice(first := data.draw(st.integers(0, side - 1)), data.draw(st.integers(first + 1, side)))
        for side in (height, width)
    )
    inputs: list[int] = []

    def count(tile: Tensor) -> Tensor:
        inputs.append(len(tile))
        return tile.sqrt()

    whole = apply_tiled(count, photo, tiling)
    every = sum(inputs)
    inputs.clear()
    part = apply_tiled(count, photo, tiling, window=window)
    assert torch.equal(part[..., window[0], window[1]], whole[..., window[0], window[1]])
    assert sum(inputs) <= every


def test_only_the_tiles_of_a_window_are_computed() -> None:
    calls: list[Tensor] = []

    def keep(tile: Tensor) -> Tensor:
        calls.append(tile)
        return tile

    window = (slice(130, 140), slice(250, 270))
    apply_tiled(keep, torch.rand(1, 3, 640, 640), Tiling(tile=64, halo=8), window=window)
    assert len(calls) == 2


def test_largest_tiling_uses_the_pixels_that_it_may() -> None:
    smallest = Tiling(tile=64, halo=128, size=SizeContract(minimum=256, multiple=256), grid=256)
    assert largest_tiling(smallest, 4000, 6000, 512**2).reads(6000) == 512
    assert largest_tiling(smallest, 4000, 6000, 800**2).reads(6000) == 768
    assert largest_tiling(smallest, 4000, 6000, 1).step == 256
    whole = largest_tiling(smallest, 300, 200, 10**9)
    assert (whole.reads(300), whole.reads(200), whole.batch) == (512, 256, 16)
