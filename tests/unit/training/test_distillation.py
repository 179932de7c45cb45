"""Distillation: what the target of each patch is, and noisy photos without clean partners."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from unit.support import pair_record, smooth_patches, smooth_photo, with_noise
from unit.training_support import CONFIG, CPU, session

from degrain.corpora.config import CorpusOptions
from degrain.corpora.listing import FolderNames
from degrain.corpora.noisy import list_noisy
from degrain.loading.patches import PatchMetadata, ResidentPatches
from degrain.patchsets.check_rules import CheckRules
from degrain.patchsets.checks import measure
from degrain.training.checkpoint import restore, take_snapshot
from degrain.training.config import TrainingConfig
from degrain.training.loop import initial_state, make_loader, train
from degrain.training.session import LocalSession
from degrain.training.step import TrainingState, train_step
from degrain.training.teacher import Teacher
from denoisenets import create_model


def teacher() -> Teacher:
    torch.manual_seed(5)
    network = create_model("fast16", width=4, depth=1, levels=2)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    arguments = {"width": 4, "depth": 1, "levels": 2}
    return Teacher(model="fast16", arguments=arguments, weights=network.state_dict())


def host(patches: ResidentPatches, teacher: Teacher | None = None) -> LocalSession:
    return LocalSession(patches, smooth_patches(5, 20, 1), teacher=teacher)


def half_unpaired() -> ResidentPatches:
    """Eight patches, of which the last four have no clean partner."""
    clean = np.stack([smooth_photo(20, 20, i) for i in range(8)])
    noisy = with_noise(clean)
    clean[4:] = noisy[4:]
    metadata = PatchMetadata(
        np.repeat(np.array([0, 1], dtype=np.int32), 4),
        ("real", "noisy"),
        np.full(8, -1, dtype=np.int16),
        (),
        unpaired=np.arange(8) >= 4,
    )
    return ResidentPatches([(noisy, clean)], metadata)


def first_loss(config: TrainingConfig, session: LocalSession) -> float:
    state = initial_state(config, session)
    return train_step(state, make_loader(config, session).batch(0)).item()


def test_the_target_is_the_weighted_mean_of_clean_patch_and_teacher() -> None:
    config = replace(CONFIG, teacher="a", teacher_share=0.25, loss="mse")
    shared = host(smooth_patches(7, 20), teacher())
    batch = make_loader(config, shared).batch(0)
    network = create_model("fast16", width=4, depth=1, levels=2)
    network.load_state_dict(dict(teacher().weights))
    with torch.no_grad():
        taught = network(batch.noisy).clamp(0, 1)
    assert not torch.allclose(taught, batch.clean, atol=0.01)
    target = 0.75 * batch.clean + 0.25 * taught
    output = initial_state(config, shared).denoiser.network(batch.noisy)
    expected = (output - target).square().mean().item()
    assert first_loss(config, shared) == pytest.approx(expected, rel=1e-5)


def test_a_teacher_share_of_zero_trains_on_pairs_as_without_a_teacher() -> None:
    with_teacher = host(smooth_patches(7, 20), teacher())
    config = replace(CONFIG, teacher_share=0.0)
    assert first_loss(config, with_teacher) == first_loss(config, host(smooth_patches(7, 20)))


def test_weights_of_pairs_unpaired_and_clean_inputs() -> None:
    config = replace(CONFIG, batch_size=8, teacher_share=0.25, clean_share=0.5)
    loader = make_loader(config, host(half_unpaired(), teacher()))
    for step in range(4):
        batch, indices = loader.batch(step), loader.plan.indices(step)
        assert batch.teacher_weight is not None
        weights = batch.teacher_weight.flatten().tolist()
        for index, weight, kind in zip(indices, weights, loader.plan.inputs(step), strict=True):
            assert weight == (1 if index >= 4 else 0 if kind == "clean" else 0.25)


def test_a_photo_without_clean_partner_gets_no_synthetic_noise() -> None:
    config = replace(CONFIG, batch_size=8, synthetic_share=1.0)
    loader = make_loader(config, host(half_unpaired(), teacher()))
    batch, unpaired = loader.batch(0), loader.plan.indices(0) >= 4
    assert torch.equal(batch.noisy[unpaired], batch.clean[unpaired])


def test_micro_batches_with_a_teacher_give_the_same_gradient() -> None:
    weights = []
    for micro_batch in (None, 2):
        config = replace(CONFIG, steps=3, micro_batch=micro_batch, teacher_share=0.25)
        state = train(config, host(half_unpaired(), teacher()))
        weights.append([p.detach() for p in state.denoiser.network.parameters()])
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*weights, strict=True))


def test_distillation_resumes_bit_for_bit() -> None:
    shared = host(half_unpaired(), teacher())
    whole = initial_state(CONFIG, shared)
    loader = make_loader(CONFIG, shared)
    for step in range(4):
        train_step(whole, loader.batch(step))
    resumed = initial_state(CONFIG, shared)
    restore(resumed, take_snapshot(whole))
    for state in (whole, resumed):
        for step in range(4, 8):
            train_step(state, loader.batch(step))
    pairs = zip(
        whole.denoiser.network.parameters(), resumed.denoiser.network.parameters(), strict=True
    )
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.slow
def test_a_student_of_noisy_photos_alone_approaches_its_teacher() -> None:
    noisy = with_noise(np.stack([smooth_photo(20, 20, i) for i in range(16)]))
    metadata = PatchMetadata(
        np.zeros(16, dtype=np.int32),
        ("noisy",),
        np.full(16, -1, dtype=np.int16),
        (),
        unpaired=np.ones(16, dtype=np.bool_),
    )
    shared = host(ResidentPatches([(noisy, noisy)], metadata), teacher())
    config = replace(CONFIG, steps=60, batch_size=8, loss="mse", learning_rate=5e-3, log_every=10)
    train(config, shared)
    losses = [metrics["train_loss"] for metrics in shared.curve]
    assert losses[-1] < losses[0] / 3


def test_a_teacher_runs_at_any_size_of_crop() -> None:
    taught = teacher().on(CPU, CONFIG)
    noisy = torch.rand(2, 3, 19, 19)
    output = taught(noisy)
    assert output.shape == noisy.shape
    assert output.min() >= 0
    assert output.max() <= 1
    assert not output.requires_grad


def test_noisy_photos_are_listed_for_the_train_split() -> None:
    pairs, left = list_noisy(FolderNames(["b/2.jpg", "a.png"], CorpusOptions()))
    assert left == []
    assert [pair.id for pair in pairs] == ["noisy/a.png", "noisy/b/2.jpg"]
    assert all(pair.unpaired and pair.split == "train" for pair in pairs)


def test_a_photo_without_clean_partner_is_not_refused_as_equal() -> None:
    photo = smooth_photo(40, 40)
    unpaired = pair_record(noisy="/a/noisy.png", clean="/a/noisy.png")
    measured = measure(unpaired, photo, photo, CheckRules())
    assert (measured.shift_y, measured.move_y) == (0, 0)


def test_a_state_without_teacher_has_clean_targets() -> None:
    state = TrainingState.create(CONFIG, CPU)
    batch = make_loader(CONFIG, session()).batch(0)
    assert state.teacher is None
    assert batch.teacher_weight is None
