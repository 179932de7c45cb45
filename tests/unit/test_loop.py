"""The training loop and its parts: formulas, what is refused, and a loss that a refactor must not change."""

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn
from unit.support import smooth_patches

from degrain.errors import JobFailedError, UserError
from degrain.imaging.denoiser import Application, NetworkDenoiser
from degrain.imaging.metrics import score_photo, to_eight_bits, to_float
from degrain.training.config import LOSSES, Loss, TrainingConfig
from degrain.training.ema import WeightAverage
from degrain.training.loop import make_loader, spread, train, validate
from degrain.training.losses import LOSS_FUNCTIONS
from degrain.training.session import LocalSession
from degrain.training.step import DivergedError, TrainingState, learning_rate, train_step

CPU = torch.device("cpu")
CONFIG = TrainingConfig(
    model="red10",
    arguments={"width": 4},
    steps=12,
    batch_size=4,
    crop=16,
    precision="float32",
    validate_every=5,
    validation_patches=8,
)


def session(validation_patches: int = 5, deviation: float = 15) -> LocalSession:
    return LocalSession(smooth_patches(7, 20, 0, deviation), smooth_patches(validation_patches, 20, 1, deviation))


class OneOfMany(LocalSession):
    """One worker whose sums are kept, and stay its own."""

    def __init__(self, rank: int, world_size: int, validation_patches: int) -> None:
        shared = session(validation_patches)
        super().__init__(shared.train, shared.val)
        self.rank, self.world_size = rank, world_size
        self.sums: list[Tensor] = []

    def sum(self, values: Tensor) -> Tensor:
        self.sums.append(values)
        return values


def losses(config: TrainingConfig, steps: int) -> list[float]:
    state = TrainingState.create(config, CPU)
    loader = make_loader(config, session())
    return [train_step(state, loader.batch(step)).item() for step in range(steps)]


# Far from the identity, where a residual network of this size would start, every part of a step shows in the numbers.
GOLDEN_CONFIG = replace(
    CONFIG,
    arguments={"width": 4, "residual": False},
    steps=20,
    learning_rate=1e-2,
    warmup_steps=2,
    weight_decay=1.0,
    gradient_clip=0.05,
    ema_decay=0.3,
)
GOLDEN = {
    "mse": ([0.231128, 0.2895533, 0.2503179, 0.2235504, 0.2383933], 7.601226),
    "l1": ([0.4304858, 0.4871718, 0.4324334, 0.4051395, 0.4382983], 7.680215),
    "charbonnier": ([0.4304877, 0.4871736, 0.4324361, 0.4051442, 0.4383012], 7.680276),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_training_at_a_fixed_seed_is_what_it_was(loss: Loss) -> None:
    """Recorded when the loop was written. A change that is meant to change training records them anew and says so."""
    config = replace(GOLDEN_CONFIG, loss=loss)
    expected_losses, expected_psnr = GOLDEN[loss]
    assert losses(config, 5) == pytest.approx(expected_losses, rel=1e-4)
    host = session()
    train(config, host)
    assert host.history[0]["val_psnr"] == pytest.approx(expected_psnr, rel=1e-4)


def test_training_learns() -> None:
    config = replace(CONFIG, steps=60, validate_every=60, learning_rate=3e-3, ema_decay=0.9, arguments={"width": 16})
    host = session(deviation=40)
    untouched = np.mean([score_photo(*host.val[i]).psnr for i in range(len(host.val))])
    train(config, host)
    assert host.history[-1]["val_psnr"] > untouched + 0.5


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("mse", lambda d: np.mean(d**2)),
        ("l1", lambda d: np.mean(np.abs(d))),
        ("charbonnier", lambda d: np.mean(np.sqrt(d**2 + 0.001**2))),
    ],
)
def test_losses_are_their_formulas(name: Loss, formula: Callable[[NDArray[np.float64]], float]) -> None:
    random = np.random.default_rng(0)
    output, clean = random.random((2, 2, 3, 5, 7), dtype=np.float32)
    got = LOSS_FUNCTIONS[name](torch.from_numpy(output), torch.from_numpy(clean))
    assert got.shape == ()
    assert got.item() == pytest.approx(formula(output.astype(np.float64) - clean), rel=1e-6)


def test_every_loss_has_a_function() -> None:
    assert set(LOSS_FUNCTIONS) == set(LOSSES)


def test_the_learning_rate_rises_then_falls_as_half_a_cosine() -> None:
    config = replace(CONFIG, steps=1000, warmup_steps=20, learning_rate=0.5)
    rates = [learning_rate(config, step) for step in range(1001)]
    assert rates[:20] == pytest.approx([0.5 * k / 20 for k in range(1, 21)])
    assert rates[20] == 0.5
    assert rates[20 + 490] == pytest.approx(0.25)
    assert rates[20 + 245] == pytest.approx(0.25 * (1 + math.cos(math.pi / 4)))
    assert rates[1000] == pytest.approx(0)
    assert all(a > b > 0 for a, b in pairwise(rates[20:1000]))


def test_a_short_run_warms_up_for_at_most_a_tenth() -> None:
    config = replace(CONFIG, steps=50, warmup_steps=20, learning_rate=1.0)
    assert [learning_rate(config, step) for step in range(6)][:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert learning_rate(config, 6) < 1
    assert learning_rate(replace(CONFIG, steps=1, learning_rate=1.0), 0) == 1


@settings(max_examples=50, deadline=None)
@given(steps=st.integers(1, 300), warmup=st.integers(0, 50))
def test_no_step_is_in_vain(steps: int, warmup: int) -> None:
    config = replace(CONFIG, steps=steps, warmup_steps=warmup)
    rates = [learning_rate(config, step) for step in range(steps)]
    assert all(0 < rate <= config.learning_rate for rate in rates)
    assert max(rates) == config.learning_rate


def test_the_average_follows_its_formula() -> None:
    torch.manual_seed(0)
    network = nn.Linear(3, 2)
    average = WeightAverage(network, 0.5)
    expected = {name: p.detach().double().clone() for name, p in network.named_parameters()}
    for step in range(1, 15):
        with torch.no_grad():
            for p in network.parameters():
                p.copy_(torch.randn_like(p))
        average.update(network, step)
        decay = min(0.5, (1 + step) / (10 + step))
        for name, p in network.named_parameters():
            expected[name] = decay * expected[name] + (1 - decay) * p.detach().double()
    for name, p in average.network.named_parameters():
        assert torch.allclose(p.double(), expected[name], atol=1e-6)
        assert not p.requires_grad
    assert not average.network.training


def test_the_average_takes_buffers_as_they_are() -> None:
    network = nn.BatchNorm2d(2)
    average = WeightAverage(network, 0.9)
    network(torch.rand(4, 2, 3, 3))
    average.update(network, 1)
    for mine, theirs in zip(average.network.buffers(), network.buffers(), strict=True):
        assert torch.equal(mine, theirs)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "red1O"}, "unknown model 'red1O'; did you mean 'red10'"),
        ({"arguments": {"widht": 4}}, "takes no argument 'widht'"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"validate_every": 0}, "validate_every must be at least 1, got 0"),
        ({"validation_patches": -1}, "validation_patches must be at least 1, got -1"),
        ({"learning_rate": 0.0}, "learning_rate must be a positive number, got 0"),
        ({"learning_rate": math.inf}, "learning_rate must be a positive number, got inf"),
        ({"weight_decay": math.nan}, "weight_decay must be a number that is not negative, got nan"),
        ({"learning_rate": math.nan}, "learning_rate must be a positive number, got nan"),
        ({"gradient_clip": -1.0}, "gradient_clip must be a positive number, got -1"),
        ({"weight_decay": -0.1}, "weight_decay must be a number that is not negative, got -0.1"),
        ({"warmup_steps": -1}, "warmup_steps must be a number that is not negative, got -1"),
        ({"ema_decay": 1.0}, "ema_decay must be at least 0 and below 1, got 1.0"),
        ({"ema_decay": -0.1}, "ema_decay must be at least 0 and below 1, got -0.1"),
        ({"loss": "l2"}, "unknown loss 'l2'; known: mse, l1, charbonnier"),
        ({"optimizer": "sgd"}, "unknown optimizer 'sgd'; known: adam, adamw"),
        ({"precision": "float16"}, "unknown precision 'float16'; known: auto, float32, bfloat16"),
        ({"crop": 15}, "crop must be at least 16 pixels, got 15"),
        ({"seed": -1}, "seed must be a number that is not negative, got -1"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **change)  # type: ignore[arg-type]


def test_without_a_crop_the_whole_patch_is_seen() -> None:
    config = replace(CONFIG, crop=None)
    assert config.crop_of(20) == 20
    assert make_loader(config, session()).batch(0).noisy.shape == (4, 3, 20, 20)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"crop": 32}, r"crop 32 is larger than the patches of the set \(20\)"),
        ({"model": "mwcnn", "crop": 17}, "crop 17 does not suit mwcnn, which takes multiples of 8"),
        ({"model": "mwcnn", "crop": None}, "crop 20 does not suit mwcnn, which takes multiples of 8"),
    ],
)
def test_a_crop_that_does_not_fit_is_refused(change: dict[str, object], message: str) -> None:
    config = replace(CONFIG, **change)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=message):
        config.crop_of(20)
    with pytest.raises(UserError, match=message):
        train(config, session())


def test_whole_patches_are_validated_even_where_only_their_crops_fit_the_network() -> None:
    """The crops of 16 pixels are multiples of 8, the patches of 20 that a validation scores are not."""
    host = session()
    arguments = {"width": 4, "depth": 1}
    state = train(replace(CONFIG, model="mwcnn", arguments=arguments), host)
    denoiser = NetworkDenoiser(
        "mwcnn", arguments, state.ema.network.state_dict(), application=Application(precision="float32")
    )
    scores = [score_photo(denoiser(noisy), clean) for noisy, clean in (host.val[i] for i in range(len(host.val)))]
    assert host.history[-1]["val_psnr"] == pytest.approx(np.mean([s.psnr for s in scores]), abs=1e-3)
    assert host.history[-1]["val_ssim"] == pytest.approx(np.mean([s.ssim for s in scores]), abs=1e-4)


def test_a_batch_that_the_workers_cannot_share_is_refused() -> None:
    with pytest.raises(
        UserError, match="a batch of 4 cannot be shared evenly by 3 workers; make --batch-size a multiple of 3"
    ):
        train(CONFIG, OneOfMany(0, 3, 5))


@pytest.mark.parametrize(
    ("every", "expected"), [(5, [5, 10, 12]), (4, [4, 8, 12]), (12, [12]), (100, [12]), (1, [*range(1, 13)])]
)
def test_it_is_validated_as_often_as_told_and_at_the_end(every: int, expected: list[int]) -> None:
    host = session()
    train(replace(CONFIG, validate_every=every), host)
    assert [m["step"] for m in host.history] == expected


def test_a_report_says_what_happened_since_the_last() -> None:
    host = session()
    train(CONFIG, host)
    every = losses(CONFIG, 12)
    spans = [every[:5], every[5:10], every[10:]]
    assert [m["train_loss"] for m in host.history] == pytest.approx([np.mean(span) for span in spans], rel=1e-6)
    assert [m["learning_rate"] for m in host.history] == [learning_rate(CONFIG, step) for step in (4, 9, 11)]
    for metrics in host.history:
        assert metrics["patches_per_second"] > 0
        assert 0 <= metrics["data_wait_share"] <= 1


def test_validation_equals_scoring_photo_by_photo() -> None:
    host = session(11)
    config = replace(CONFIG, validation_patches=11)
    state = train(config, host)
    scores = []
    for i in range(11):
        noisy, clean = host.val[i]
        with torch.no_grad():
            output = state.ema.network(to_float(torch.from_numpy(noisy).permute(2, 0, 1)[None]))
        scores.append(score_photo(to_eight_bits(output)[0].permute(1, 2, 0).numpy(), clean))
    got = validate(state, host)
    assert got.psnr == pytest.approx(np.mean([s.psnr for s in scores]), abs=1e-3)
    assert got.ssim == pytest.approx(np.mean([s.ssim for s in scores]), abs=1e-4)
    assert (host.history[-1]["val_psnr"], host.history[-1]["val_ssim"]) == (got.psnr, got.ssim)


def test_validation_is_shared_out_over_the_workers() -> None:
    state = TrainingState.create(replace(CONFIG, validation_patches=20), CPU)
    workers = [OneOfMany(rank, 3, 11) for rank in range(3)]
    alone = OneOfMany(0, 1, 11)
    for worker in (*workers, alone):
        validate(state, worker)
    together = sum(worker.sums[0] for worker in workers)
    assert torch.allclose(together, alone.sums[0], atol=1e-3)
    assert [int(worker.sums[0][2]) for worker in workers] == [4, 4, 3]


@settings(max_examples=200, deadline=None)
@given(count=st.integers(1, 500), wanted=st.integers(1, 100))
def test_chosen_patches_are_spread_evenly(count: int, wanted: int) -> None:
    chosen = spread(count, wanted)
    assert len(chosen) == min(count, wanted)
    assert chosen == sorted(set(chosen))
    assert chosen[0] == 0
    assert chosen[-1] == (count - 1 if min(count, wanted) > 1 else 0)
    gaps = np.diff(chosen)
    assert gaps.size == 0 or gaps.max() - gaps.min() <= 1


def test_the_gradient_is_clipped_to_its_norm() -> None:
    config = replace(CONFIG, gradient_clip=1e-4)
    state = TrainingState.create(config, CPU)
    train_step(state, make_loader(config, session()).batch(0))
    gradient = torch.cat([p.grad.flatten() for p in state.network.parameters() if p.grad is not None])
    assert gradient.norm().item() == pytest.approx(1e-4, rel=1e-2)


def snapshot(state: TrainingState) -> list[Tensor]:
    moments = [t for per in state.optimizer.state_dict()["state"].values() for t in per.values()]
    return [t.clone() for t in (*state.network.parameters(), *state.ema.network.parameters(), *moments)]


@pytest.mark.parametrize(
    "broken",
    [
        lambda output, clean: (output - clean).mean() * math.nan,
        lambda output, clean: (output - clean).mean() * math.inf,
        lambda output, clean: (output - clean).square().mean() + math.inf,
    ],
    ids=["nan", "infinite", "infinite with a finite gradient"],
)
def test_divergence_names_the_step_and_leaves_the_weights(
    monkeypatch: pytest.MonkeyPatch, broken: Callable[[Tensor, Tensor], Tensor]
) -> None:
    state = TrainingState.create(CONFIG, CPU)
    loader = make_loader(CONFIG, session())
    for step in range(2):
        train_step(state, loader.batch(step))
    before = snapshot(state)
    monkeypatch.setitem(LOSS_FUNCTIONS, "mse", broken)
    with pytest.raises(
        DivergedError, match=r"training diverged at step 3: the loss is (nan|-?inf) .*Lower the learning rate"
    ):
        train_step(state, loader.batch(2))
    assert state.step == 2
    assert all(torch.equal(a, b) for a, b in zip(snapshot(state), before, strict=True))


def test_divergence_ends_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LOSS_FUNCTIONS, "mse", lambda output, clean: (output - clean).mean() * math.nan)
    host = session()
    with pytest.raises(JobFailedError, match="diverged at step 1"):
        train(CONFIG, host)
    assert host.history == []


def test_the_seed_decides_the_weights() -> None:
    first, again, other = (TrainingState.create(replace(CONFIG, seed=seed), CPU).network for seed in (3, 3, 4))
    for a, b, c in zip(first.parameters(), again.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
        assert a.ndim == 1 or not torch.equal(a, c)
