"""Batches depend on the seed and the step alone."""

import threading
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from unit.support import random_photo, with_noise

from degrain.imaging.pixels import sixteen_bits
from degrain.loading.batches import BatchLoader, BatchPlan, augment, dihedral
from degrain.loading.order import Permuted, epoch_order
from degrain.loading.patches import PatchMetadata, ResidentPatches

CPU = torch.device("cpu")


def random_patches(count: int, side: int = 20) -> ResidentPatches:
    """Patches all of whose places differ, in blocks of unequal length; clean equals noisy."""
    all_of_them = np.stack([random_photo(side, side, i) for i in range(count)])
    cuts = [0, count // 3, count // 3 + 1, count]
    blocks = [all_of_them[a:b] for a, b in pairwise(cuts) if b > a]
    return ResidentPatches([(block, block.copy()) for block in blocks])


def plan(
    patches: int = 7,
    batch_size: int = 4,
    seed: int = 0,
    side: int = 20,
    crop: int = 16,
    **shares: float,
) -> BatchPlan:
    order = Permuted(seed=seed, patches=patches)
    return BatchPlan(seed=seed, order=order, side=side, batch_size=batch_size, crop=crop, **shares)


def test_blocks_are_addressed_as_one_sequence() -> None:
    patches = random_patches(7)
    assert len(patches) == 7
    assert patches.side == 20
    for i in range(7):
        for patch in patches[i]:
            assert np.array_equal(patch, random_photo(20, 20, i))


@settings(max_examples=100, deadline=None)
@given(
    patches=st.integers(1, 40),
    batch_size=st.integers(1, 60),
    seed=st.integers(0, 5),
    epochs=st.integers(1, 4),
)
def test_every_epoch_shows_each_patch_once(
    patches: int, batch_size: int, seed: int, epochs: int
) -> None:
    made = plan(patches, batch_size, seed)
    steps = -(-patches * epochs // batch_size)
    shown = np.concatenate([made.indices(step) for step in range(steps)])
    for epoch in range(epochs):
        assert sorted(shown[epoch * patches : (epoch + 1) * patches].tolist()) == list(
            range(patches)
        )


def test_epochs_and_seeds_are_ordered_differently() -> None:
    orders = [epoch_order(seed, epoch, 50).tolist() for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4
    assert epoch_order(0, 1, 50).tolist() == orders[1]


@settings(max_examples=50, deadline=None)
@given(side=st.integers(16, 30), margin=st.integers(0, 6), step=st.integers(0, 99))
def test_crops_lie_inside_the_patch(side: int, margin: int, step: int) -> None:
    positions = plan(side=side + margin, crop=side).crop_positions(step)
    assert positions.shape == (4, 3)
    assert ((positions[:, :2] >= 0) & (positions[:, :2] <= margin)).all()
    assert ((positions[:, 2] >= 0) & (positions[:, 2] < 8)).all()


def test_all_crops_and_orientations_are_drawn() -> None:
    positions = np.concatenate(
        [plan(batch_size=50, side=18, crop=16).crop_positions(step) for step in range(20)]
    )
    for column, count in enumerate((3, 3, 8)):
        assert len(set(positions[:, column].tolist())) == count


def batches(step: int, world_size: int = 1, **changes: int) -> tuple[Tensor, Tensor]:
    """The batches of all ranks, one after the other."""
    patches, made = random_patches(7), plan(**changes)
    parts = [
        BatchLoader(patches, made, rank=rank, world_size=world_size, device=CPU).batch(step)
        for rank in range(world_size)
    ]
    return torch.cat([p.noisy for p in parts]), torch.cat([p.clean for p in parts])


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@pytest.mark.parametrize("batch_size", [4, 8, 20])
def test_the_number_of_workers_does_not_change_batches(world_size: int, batch_size: int) -> None:
    for step in (0, 1, 5):
        for got, expected in zip(
            batches(step, world_size, batch_size=batch_size),
            batches(step, batch_size=batch_size),
            strict=True,
        ):
            assert got.shape == (batch_size, 3, 16, 16)
            assert torch.equal(got, expected)


def test_a_batch_does_not_depend_on_earlier_batches() -> None:
    loader = BatchLoader(random_patches(7), plan(), device=CPU)
    first = [loader.batch(step).noisy for step in range(6)]
    assert torch.equal(loader.batch(3).noisy, first[3])
    assert torch.equal(batches(5)[0], first[5])
    assert not torch.equal(first[0], first[1])


def test_another_seed_is_another_batch() -> None:
    assert not torch.equal(batches(0)[0], batches(0, seed=1)[0])


def test_noisy_and_clean_patches_have_the_same_crop() -> None:
    for step in range(10):
        noisy, clean = batches(step)
        assert torch.equal(noisy, clean)


def test_a_batch_holds_the_planned_crops() -> None:
    made = plan(batch_size=20)
    noisy, _ = batches(2, batch_size=20)
    for got, index, (top, left, orientation) in zip(
        noisy, made.indices(2), made.crop_positions(2), strict=True
    ):
        crop = random_photo(20, 20, int(index))[top : top + 16, left : left + 16]
        expected = torch.from_numpy(
            dihedral(crop, int(orientation)).astype(np.float32) / np.float32(255)
        )
        assert torch.equal(got, expected.permute(2, 0, 1))


def test_values_are_float_from_zero_to_one() -> None:
    extremes = np.zeros((2, 16, 16, 3), dtype=np.uint8)
    extremes[1] = 255
    batch = BatchLoader(
        ResidentPatches([(extremes, 255 - extremes)]),
        plan(patches=2, side=16, crop=16, batch_size=2),
        device=CPU,
    ).batch(0)
    for x in (batch.noisy, batch.clean):
        assert x.dtype == torch.float32
        assert x.is_contiguous(memory_format=torch.channels_last)
        assert (
            sorted(x.amax(dim=(1, 2, 3)).tolist())
            == sorted(x.amin(dim=(1, 2, 3)).tolist())
            == [0, 1]
        )
    assert torch.equal(batch.noisy, 1 - batch.clean)


def test_read_only_patches_become_writable_batches() -> None:
    """As they come from Ray's object store."""
    block = np.stack([random_photo(20, 20, i) for i in range(7)])
    block.setflags(write=False)
    batch = BatchLoader(ResidentPatches([(block, block)]), plan(), device=CPU).batch(0)
    assert torch.equal(batch.noisy, batches(0)[0])
    batch.noisy.zero_()
    assert block.any()


def test_orientations_are_the_eight_symmetries_of_the_square() -> None:
    patch = random_photo(5, 5)
    seen = {dihedral(patch, i).tobytes() for i in range(8)}
    turned = [np.rot90(patch, k) for k in range(4)]
    assert len(seen) == 8
    assert seen == {x.tobytes() for x in turned} | {x[:, ::-1].tobytes() for x in turned}
    assert np.array_equal(dihedral(patch, 0), patch)


def test_patches_of_eight_and_of_sixteen_bits_make_a_split_of_sixteen() -> None:
    blocks = [
        np.stack([random_photo(20, 20, i) for i in part]) for part in ((0, 1, 2), (3, 4), (5, 6))
    ]
    mixed = ResidentPatches(
        [(b, b) if i != 1 else (sixteen_bits(b), sixteen_bits(b)) for i, b in enumerate(blocks)]
    )
    assert mixed.dtype == np.uint16
    for i in range(7):
        for patch in mixed[i]:
            assert patch.dtype == np.uint16
            assert np.array_equal(patch, sixteen_bits(random_photo(20, 20, i)))
    batch = BatchLoader(mixed, plan(), device=CPU).batch(0)
    expected, _ = batches(0)
    for x in (batch.noisy, batch.clean):
        assert x.dtype == torch.float32
        assert x.is_contiguous(memory_format=torch.channels_last)
        assert torch.allclose(x, expected, rtol=0, atol=1e-7)


def test_sixteen_bits_reach_the_batch() -> None:
    block = np.random.default_rng(0).integers(0, 2**16, (2, 16, 16, 3)).astype(np.uint16)
    block.setflags(write=False)
    made = plan(patches=2, side=16, crop=16, batch_size=2)
    batch = BatchLoader(ResidentPatches([(block, block)]), made, device=CPU).batch(0)
    for got, index, (_, _, orientation) in zip(
        batch.noisy, made.indices(0), made.crop_positions(0), strict=True
    ):
        expected = dihedral(block[int(index)], int(orientation)).astype(np.float64) / 65535
        assert np.allclose(got.permute(1, 2, 0).numpy(), expected, rtol=0, atol=1e-7)


def test_patches_of_eight_bits_stay_positions() -> None:
    block = np.stack([random_photo(20, 20, i) for i in range(3)])
    patches = ResidentPatches([(block, block)])
    assert patches.dtype == np.uint8
    assert all(np.shares_memory(patch, block) for patch in patches[2])


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_augment_equals_dihedral(kind: type[np.generic]) -> None:
    photos = np.random.default_rng(0).integers(0, np.iinfo(kind).max, (8, 6, 6, 3)).astype(kind)  # type: ignore[type-var]
    channels_first = torch.from_numpy(photos.astype(np.float32)).permute(0, 3, 1, 2)
    got = augment(channels_first, torch.arange(8))
    assert got.is_contiguous(memory_format=torch.channels_last)
    for i in range(8):
        assert np.array_equal(got[i].permute(1, 2, 0).numpy(), dihedral(photos[i], i))


@pytest.mark.parametrize(("first", "last"), [(0, 7), (3, 4), (5, 5), (2, 11)])
def test_prefetched_batches_equal_those_of_their_steps(first: int, last: int) -> None:
    loader = BatchLoader(random_patches(7), plan(), device=CPU)
    got = list(loader.batches(first, last))
    assert len(got) == last - first
    for step, batch in zip(range(first, last), got, strict=True):
        assert torch.equal(batch.noisy, loader.batch(step).noisy)


def test_an_error_in_the_prefetch_thread_is_raised_in_the_caller() -> None:
    loader = BatchLoader(random_patches(3), plan(patches=7), device=CPU)
    with pytest.raises(IndexError):
        list(loader.batches(0, 9))


def test_closing_the_iterator_ends_the_prefetch_thread() -> None:
    before = threading.active_count()
    coming = BatchLoader(random_patches(7), plan(), device=CPU).batches(0, 1000)
    next(coming)
    assert threading.active_count() == before + 1
    coming.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


def noisy_batches(on_the_fly_noise: bool, world_size: int = 1) -> list[tuple[Tensor, Tensor]]:
    """Four steps over seven grey patches, of which the first three have Gaussian noise of a known
    strength.
    """
    grey = np.full((7, 20, 20, 3), 128, dtype=np.uint8)
    noisy = with_noise(grey, 0, 20)
    metadata = PatchMetadata(
        np.zeros(7, dtype=np.int32),
        ("a",),
        np.array([0, 0, 0, -1, -1, -1, -1], dtype=np.int16),
        ("gaussian:20",),
    )
    made = plan(batch_size=7)
    found = []
    for step in range(4):
        ranks = [
            BatchLoader(
                ResidentPatches([(noisy, grey)], metadata),
                made,
                rank=rank,
                world_size=world_size,
                device=CPU,
                on_the_fly_noise=on_the_fly_noise,
            ).batch(step)
            for rank in range(world_size)
        ]
        order = np.argsort(made.indices(step))
        parts = [
            torch.cat([getattr(r, kind) for r in ranks])[order] * 255 for kind in ("noisy", "clean")
        ]
        found.append((parts[0], parts[1]))
    return found


def test_on_the_fly_noise_differs_per_step_and_only_for_synthetic_pairs() -> None:
    stored, on_the_fly = noisy_batches(on_the_fly_noise=False), noisy_batches(on_the_fly_noise=True)
    for (noisy, clean), (old, _) in zip(on_the_fly, stored, strict=True):
        assert torch.equal(noisy[3:], old[3:])
        assert not torch.equal(noisy[:3], old[:3])
        assert (noisy[:3] - clean[:3]).std().item() == pytest.approx(20, rel=0.1)
    assert not torch.equal(on_the_fly[0][0][0].sort().values, on_the_fly[1][0][0].sort().values)
    again = noisy_batches(on_the_fly_noise=True, world_size=3)
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(on_the_fly, again, strict=True))


def test_shares_of_clean_and_synthetic_inputs() -> None:
    made = plan(batch_size=40, clean_share=0.25, synthetic_share=0.5)
    inputs = [kind for step in range(50) for kind in made.inputs(step)]
    assert inputs.count("clean") / 2000 == pytest.approx(0.25, abs=0.03)
    assert inputs.count("synthetic") / 2000 == pytest.approx(0.5, abs=0.03)
    assert made.inputs(3) == plan(batch_size=40, clean_share=0.25, synthetic_share=0.5).inputs(3)


def test_without_shares_every_input_is_the_noisy_half() -> None:
    assert set(plan(batch_size=40).inputs(0)) == {"pair"}


def test_a_clean_input_equals_its_target() -> None:
    noisy, grey = np.zeros((7, 20, 20, 3), np.uint8), np.full((7, 20, 20, 3), 128, np.uint8)
    loader = BatchLoader(
        ResidentPatches([(noisy, grey)]), plan(batch_size=7, clean_share=1.0), device=CPU
    )
    batch = loader.batch(0)
    assert torch.equal(batch.noisy, batch.clean)


@pytest.mark.parametrize("fitted", [(), ("near:0.01,0.001,0.3",)])
def test_a_synthetic_input_is_the_clean_half_with_noise(fitted: tuple[str, ...]) -> None:
    noisy, grey = np.zeros((7, 20, 20, 3), np.uint8), np.full((7, 20, 20, 3), 128, np.uint8)
    none = np.full(7, -1, dtype=np.int16)
    metadata = PatchMetadata(np.zeros(7, dtype=np.int32), ("a",), none, (), fitted)
    patches = ResidentPatches([(noisy, grey)], metadata)
    loader = BatchLoader(patches, plan(batch_size=7, synthetic_share=1.0), device=CPU)
    first, second, again = loader.batch(0), loader.batch(1), loader.batch(0)
    assert torch.equal(first.noisy, again.noisy)
    assert not torch.equal(first.noisy, second.noisy)
    for one in first.noisy:
        assert one.mean() == pytest.approx(128 / 255, abs=0.15)
        assert one.std() > 0
