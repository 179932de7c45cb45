"""The optimizer step: recorded losses, gradients, learning rate, divergence."""

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from unit.support import smooth_patches
from unit.training_support import CONFIG, CPU, OneOfMany, losses, session, snapshot

from degrain.loading.batches import Batch
from degrain.training.config import LOSSES, Loss, TrainingConfig
from degrain.training.loop import make_loader, train
from degrain.training.losses import LOSS_FUNCTIONS
from degrain.training.session import LocalSession
from degrain.training.step import DivergedError, TrainingState, learning_rate, train_step

# Without the residual connection outputs are far from the input, so that every part of a step
# affects the losses.
GOLDEN_CONFIG = replace(
    CONFIG,
    arguments={"width": 4, "residual": False},
    steps=20,
    learning_rate=2e-3,
    warmup_steps=2,
    weight_decay=1.0,
    gradient_clip=0.05,
    ema_decay=0.3,
)


GOLDEN = {
    "mse": ([0.2288081, 0.2922238, 0.2587432, 0.2374109, 0.2653979], 7.029068),
    "l1": ([0.4272945, 0.4890504, 0.4412947, 0.4241123, 0.4677293], 7.095212),
    "charbonnier": ([0.4272967, 0.4890524, 0.4413002, 0.4240832, 0.4677354], 7.094411),
    "psnr": ([-6.453817, -5.388213, -5.934539, -6.293826, -5.92411], 7.025412),
    "ssim": ([0.9036294, 0.9018197, 0.8850993, 0.866742, 0.8753076], 6.929939),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_losses_at_a_fixed_seed_equal_the_recorded_ones(loss: Loss) -> None:
    """A commit that intends to change training records the values again."""
    config = replace(GOLDEN_CONFIG, loss=loss)
    expected_losses, expected_psnr = GOLDEN[loss]
    assert losses(config, 5) == pytest.approx(expected_losses, rel=1e-4)
    host = session()
    train(config, host)
    assert host.history[0]["val_psnr"] == pytest.approx(expected_psnr, rel=1e-4)


@pytest.mark.slow
def test_adversarial_losses_at_a_fixed_seed_equal_the_recorded_ones() -> None:
    config = replace(GOLDEN_CONFIG, adversarial=0.5, crop=24)
    host = LocalSession(smooth_patches(7, 24), smooth_patches(5, 24, 1))
    train(replace(config, log_every=1), host)
    expected = [0.2708639, 0.3027063, 0.275246, 0.2473067, 0.2706333]
    assert [m["train_loss"] for m in host.curve[:5]] == pytest.approx(expected, rel=1e-4)
    assert host.history[0]["val_psnr"] == pytest.approx(6.898333, rel=1e-4)


@pytest.mark.slow
def test_discriminator_learns_and_changes_the_network() -> None:
    config = replace(
        CONFIG,
        adversarial=1.0,
        crop=24,
        learning_rate=1e-3,
        arguments={"width": 4, "residual": False},
    )
    host = LocalSession(smooth_patches(7, 24), smooth_patches(5, 24, 1))
    state = TrainingState.create(config, CPU)
    assert state.adversary is not None
    loader = make_loader(config, host)
    batch = loader.batch(0)

    def mean_logits() -> tuple[float, float]:
        assert state.adversary is not None
        with torch.no_grad():
            output = state.denoiser.network(batch.noisy)
            return state.adversary.network(batch.clean).mean().item(), state.adversary.network(
                output
            ).mean().item()

    clean_before, output_before = mean_logits()
    for step in range(12):
        train_step(state, loader.batch(step))
    clean, output = mean_logits()
    assert clean - output > clean_before - output_before + 0.5
    assert all(p.requires_grad for p in state.adversary.network.parameters())
    alone = TrainingState.create(replace(config, adversarial=0.0), CPU)
    train_step(alone, batch)
    together = TrainingState.create(config, CPU)
    train_step(together, batch)
    pairs = zip(
        alone.denoiser.network.parameters(), together.denoiser.network.parameters(), strict=True
    )
    assert any(not torch.equal(a, b) for a, b in pairs)


def gradients(config: TrainingConfig, batches: list[Batch], world_size: int) -> list[Tensor]:
    """Sum, in float64, the gradients of ranks with these batches at the initial weights."""
    total: list[Tensor] = []
    for batch in batches:
        state = TrainingState.create(replace(config, gradient_clip=1e9), CPU)
        train_step(state, batch, world_size)
        mine = [
            p.grad.double() / world_size
            for p in state.denoiser.network.parameters()
            if p.grad is not None
        ]
        total = [a + b for a, b in zip(total, mine, strict=True)] if total else mine
    return total


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(
    ("world_size", "micro_batch"), [(1, 3), (1, 1), (2, None), (3, None), (3, 1)]
)
def test_the_gradient_does_not_depend_on_workers_and_micro_batches(
    loss: Loss, world_size: int, micro_batch: int | None
) -> None:
    config = replace(CONFIG, loss=loss, batch_size=7, arguments={"width": 4, "residual": False})
    whole = gradients(config, [make_loader(config, session()).batch(0)], 1)
    shared = replace(config, micro_batch=micro_batch)
    workers = [OneOfMany(rank, world_size, 5) for rank in range(world_size)]
    got = gradients(
        shared, [make_loader(shared, worker).batch(0) for worker in workers], world_size
    )
    for a, b in zip(got, whole, strict=True):
        # A float32 sum of thousands of equal terms has a relative error of about 1e-5.
        assert (a - b).norm() <= 5e-5 * b.norm() + 1e-9


def test_a_batch_is_split_into_equal_parts() -> None:
    batch = make_loader(CONFIG, session()).batch(0)
    assert [len(part) for part in batch.parts(3)] == [2, 1, 1]
    assert torch.equal(torch.cat([part.noisy for part in batch.parts(3)]), batch.noisy)


def test_learning_rate_warms_up_then_falls_as_half_a_cosine() -> None:
    config = replace(CONFIG, steps=1000, warmup_steps=20, learning_rate=0.5)
    rates = [learning_rate(config, step) for step in range(1001)]
    assert rates[:20] == pytest.approx([0.5 * k / 20 for k in range(1, 21)])
    assert rates[20] == 0.5
    assert rates[20 + 490] == pytest.approx(0.25)
    assert rates[20 + 245] == pytest.approx(0.25 * (1 + math.cos(math.pi / 4)))
    assert rates[1000] == pytest.approx(0)
    assert all(a > b > 0 for a, b in pairwise(rates[20:1000]))


def test_step_schedule_halves_the_learning_rate() -> None:
    config = replace(
        CONFIG, steps=1000, warmup_steps=20, learning_rate=0.8, schedule="step", decay_steps=300
    )
    rates = {step: learning_rate(config, step) for step in (10, 20, 299, 300, 599, 600, 999)}
    assert rates == pytest.approx(
        {10: 0.8 * 11 / 20, 20: 0.8, 299: 0.8, 300: 0.4, 599: 0.4, 600: 0.2, 999: 0.1}
    )
    assert learning_rate(replace(config, decay_steps=None), 200) == pytest.approx(0.4)


def test_warm_up_is_at_most_a_tenth_of_the_run() -> None:
    config = replace(CONFIG, steps=50, warmup_steps=20, learning_rate=1.0)
    assert [learning_rate(config, step) for step in range(6)][:5] == pytest.approx(
        [0.2, 0.4, 0.6, 0.8, 1.0]
    )
    assert learning_rate(config, 6) < 1
    assert learning_rate(replace(CONFIG, steps=1, learning_rate=1.0), 0) == 1


@settings(max_examples=50, deadline=None)
@given(steps=st.integers(1, 300), warmup=st.integers(0, 50))
def test_learning_rate_is_positive_at_every_step(steps: int, warmup: int) -> None:
    config = replace(CONFIG, steps=steps, warmup_steps=warmup)
    rates = [learning_rate(config, step) for step in range(steps)]
    assert all(0 < rate <= config.learning_rate for rate in rates)
    assert max(rates) == config.learning_rate


def test_the_gradient_is_clipped_to_the_maximum_norm() -> None:
    config = replace(CONFIG, gradient_clip=1e-4)
    state = TrainingState.create(config, CPU)
    train_step(state, make_loader(config, session()).batch(0))
    gradient = torch.cat(
        [p.grad.flatten() for p in state.denoiser.network.parameters() if p.grad is not None]
    )
    assert gradient.norm().item() == pytest.approx(1e-4, rel=1e-2)


@pytest.mark.parametrize(
    "broken",
    [
        lambda output, clean: (output - clean).mean() * math.nan,
        lambda output, clean: (output - clean).mean() * math.inf,
        lambda output, clean: (output - clean).square().mean() + math.inf,
    ],
    ids=["nan", "infinite", "infinite with a finite gradient"],
)
def test_divergence_names_the_step_and_keeps_the_weights(
    monkeypatch: pytest.MonkeyPatch, broken: Callable[[Tensor, Tensor], Tensor]
) -> None:
    state = TrainingState.create(CONFIG, CPU)
    loader = make_loader(CONFIG, session())
    for step in range(2):
        train_step(state, loader.batch(step))
    before = snapshot(state)
    monkeypatch.setitem(LOSS_FUNCTIONS, "mse", broken)
    with pytest.raises(
        DivergedError,
        match=r"training diverged at step 3: the loss is (nan|-?inf) .*Lower `learning_rate`",
    ):
        train_step(state, loader.batch(2))
    assert state.step == 2
    assert all(torch.equal(a, b) for a, b in zip(snapshot(state), before, strict=True))


def test_seed_determines_the_weights() -> None:
    first, again, other = (
        TrainingState.create(replace(CONFIG, seed=seed), CPU).denoiser.network for seed in (3, 3, 4)
    )
    for a, b, c in zip(first.parameters(), again.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
        assert a.ndim == 1 or not torch.equal(a, c)


def test_the_discriminator_gradient_does_not_depend_on_micro_batches() -> None:
    found = []
    for micro_batch in (None, 3, 1):
        config = replace(
            CONFIG,
            batch_size=7,
            crop=24,
            adversarial=10.0,
            micro_batch=micro_batch,
            gradient_clip=1e9,
        )
        state = TrainingState.create(config, CPU)
        host = LocalSession(smooth_patches(7, 24), smooth_patches(5, 24, 1))
        train_step(state, make_loader(config, host).batch(0))
        assert state.adversary is not None
        networks = (state.denoiser.network, state.adversary.network)
        found.append([p.grad for network in networks for p in network.parameters()])
    whole, *parted = found
    for gradients in parted:
        for got, expected in zip(gradients, whole, strict=True):
            assert (got - expected).norm() <= 1e-5 * expected.norm()
