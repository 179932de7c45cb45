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
from skimage.metrics import structural_similarity
from torch import Tensor, nn
from unit.support import smooth_patches

from degrain.data.loader import Batch, Patches
from degrain.data.spread import spread
from degrain.errors import JobFailedError, UserError
from degrain.imaging.codecs import decode
from degrain.imaging.denoiser import Application, NetworkDenoiser
from degrain.imaging.metrics import score_photo, to_eight_bits, to_float
from degrain.training.checkpoint import Snapshot, restore
from degrain.training.config import LOSSES, Loss, TrainingConfig
from degrain.training.ema import WeightAverage
from degrain.training.loop import Pace, begin, make_loader, measure, samples, train, validate
from degrain.training.losses import LOSS_FUNCTIONS
from degrain.training.session import LocalSession
from degrain.training.step import DivergedError, TrainingState, learning_rate, train_step
from degrain.training.usage import process_usage

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
    "psnr": ([-6.410121, -5.428704, -6.080601, -6.559869, -6.411771], 7.584394),
    "ssim": ([0.9153597, 0.8917166, 0.8429262, 0.7991981, 0.8289414], 7.321709),
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


def test_adversarial_training_at_a_fixed_seed_is_what_it_was() -> None:
    config = replace(GOLDEN_CONFIG, adversarial=0.5, crop=24)
    host = LocalSession(smooth_patches(7, 24), smooth_patches(5, 24, 1))
    train(replace(config, log_every=1), host)
    expected = [0.2738186, 0.299352, 0.2664438, 0.2311071, 0.2404936]
    assert [m["train_loss"] for m in host.curve[:5]] == pytest.approx(expected, rel=1e-4)
    assert host.history[0]["val_psnr"] == pytest.approx(7.516931, rel=1e-4)


def test_a_discriminator_learns_to_tell_and_moves_the_network() -> None:
    config = replace(CONFIG, adversarial=1.0, crop=24, learning_rate=1e-3, arguments={"width": 4, "residual": False})
    host = LocalSession(smooth_patches(7, 24), smooth_patches(5, 24, 1))
    state = TrainingState.create(config, CPU)
    assert state.adversary is not None
    loader = make_loader(config, host)
    batch = loader.batch(0)

    def verdicts() -> tuple[float, float]:
        assert state.adversary is not None
        with torch.no_grad():
            output = state.denoiser.network(batch.noisy)
            return state.adversary.network(batch.clean).mean().item(), state.adversary.network(output).mean().item()

    clean_before, output_before = verdicts()
    for step in range(12):
        train_step(state, loader.batch(step))
    clean, output = verdicts()
    assert clean - output > clean_before - output_before + 0.5
    assert all(p.requires_grad for p in state.adversary.network.parameters())
    alone = TrainingState.create(replace(config, adversarial=0.0), CPU)
    train_step(alone, batch)
    together = TrainingState.create(config, CPU)
    train_step(together, batch)
    pairs = zip(alone.denoiser.network.parameters(), together.denoiser.network.parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in pairs)


def test_a_crop_that_a_discriminator_cannot_judge_is_refused() -> None:
    with pytest.raises(ValueError, match="crop 16 is too small for a discriminator, which needs 24 pixels"):
        replace(CONFIG, adversarial=0.1).crop_of(20)


def gradients(config: TrainingConfig, batches: list[Batch], world_size: int) -> list[Tensor]:
    """The gradients that ranks with these batches make together, before any weight changes; float64 sums."""
    total: list[Tensor] = []
    for batch in batches:
        state = TrainingState.create(replace(config, gradient_clip=1e9), CPU)
        train_step(state, batch, world_size)
        mine = [p.grad.double() / world_size for p in state.denoiser.network.parameters() if p.grad is not None]
        total = [a + b for a, b in zip(total, mine, strict=True)] if total else mine
    return total


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(("world_size", "micro_batch"), [(1, 3), (1, 1), (2, None), (3, None), (3, 1)])
def test_shares_and_parts_make_the_gradient_of_the_whole_batch(loss: Loss, world_size: int, micro_batch: int | None) -> None:
    config = replace(CONFIG, loss=loss, batch_size=7, arguments={"width": 4, "residual": False})
    whole = gradients(config, [make_loader(config, session()).batch(0)], 1)
    shared = replace(config, micro_batch=micro_batch)
    workers = [OneOfMany(rank, world_size, 5) for rank in range(world_size)]
    got = gradients(shared, [make_loader(shared, worker).batch(0) for worker in workers], world_size)
    for a, b in zip(got, whole, strict=True):
        # A float32 sum of thousands of equal terms is off by a few units in the fifth digit.
        assert (a - b).norm() <= 5e-5 * b.norm() + 1e-9


def test_a_batch_is_cut_into_parts_as_equal_as_can_be() -> None:
    batch = make_loader(CONFIG, session()).batch(0)
    assert [len(part) for part in batch.parts(3)] == [2, 1, 1]
    assert torch.equal(torch.cat([part.noisy for part in batch.parts(3)]), batch.noisy)


@pytest.mark.parametrize(
    ("batch_size", "micro_batch", "world_size", "parts"),
    [(16, None, 1, 1), (16, 4, 1, 4), (16, 5, 1, 4), (16, 4, 2, 2), (7, 2, 2, 2), (7, 1, 2, 3), (3, 1, 2, 1), (4, 99, 2, 1)],
)
def test_all_workers_take_as_many_parts(batch_size: int, micro_batch: int | None, world_size: int, parts: int) -> None:
    assert replace(CONFIG, batch_size=batch_size, micro_batch=micro_batch).parts(world_size) == parts


def test_patience_ends_a_run_that_gets_no_better() -> None:
    host = session()
    state = train(replace(CONFIG, steps=100, validate_every=2, patience=3, learning_rate=1e-12), host)
    # Only the first validation is a better one, or ties do not count.
    scores = [m["val_psnr"] for m in host.history]
    best = scores.index(max(scores))
    assert len(scores) == best + 1 + 3
    assert state.step == 2 * len(scores) < 100


def test_training_starts_from_given_weights() -> None:
    given = TrainingState.create(replace(CONFIG, seed=9), CPU).denoiser.network.state_dict()
    host = session()
    host.start = given
    state = begin(CONFIG, host)
    for network in (state.denoiser.network, state.ema.network):
        assert all(torch.equal(value, given[name]) for name, value in network.state_dict().items())


class Leaving(LocalSession):
    """Is told at its seventh step to go."""

    asked = 0
    rescued: list[Snapshot]

    def must_go(self) -> bool:
        self.asked += 1
        return self.asked == 7

    def rescue(self, snapshot: Snapshot) -> None:
        self.rescued = [snapshot]


def test_who_must_go_keeps_a_snapshot_of_that_step() -> None:
    host = Leaving(smooth_patches(7, 20), smooth_patches(5, 20, 1))
    whole = train(CONFIG, host)
    assert host.asked == 12
    assert host.rescued[0]["step"] == 7
    resumed = TrainingState.create(CONFIG, CPU)
    restore(resumed, host.rescued[0])
    loader = make_loader(CONFIG, host)
    while resumed.step < CONFIG.steps:
        train_step(resumed, loader.batch(resumed.step))
    assert all(torch.equal(a, b) for a, b in zip(snapshot(resumed), snapshot(whole), strict=True))


def test_progress_is_measured_between_validations() -> None:
    host = session()
    train(replace(CONFIG, log_every=4), host)
    assert [m["step"] for m in host.curve] == [4, 5, 8, 10, 12]
    every = losses(CONFIG, 12)
    spans = [every[:4], every[4:5], every[5:8], every[8:10], every[10:]]
    assert [m["train_loss"] for m in host.curve] == pytest.approx([np.mean(span) for span in spans], rel=1e-6)
    for metrics in host.curve:
        assert metrics["seconds_left"] >= 0
        assert metrics["workers"] == 1
    assert host.curve[-1]["seconds_left"] == 0


class Busy(OneOfMany):
    """One of two workers, of which the other takes 30 MiB and a tenth of its machine."""

    def usage(self) -> dict[str, float]:
        return {"some_mib": 10.0 * (self.rank + 1), "load": 0.5}

    def sum(self, values: Tensor) -> Tensor:
        others = values.clone()
        if len(others) > 3:
            others[0] = 1.0
            others[1:4] = 0
            others[4:] = torch.tensor([0.2, 30.0, 0.1])
            others = others - torch.cat([torch.zeros(4), values[4:]])
        return values + others


def test_usage_is_the_most_memory_of_a_worker_and_the_mean_of_all_else() -> None:
    worker = Busy(0, 2, 5)
    state = TrainingState.create(CONFIG, CPU)
    pace = Pace(0)
    pace.loss(torch.tensor(0.5))
    state.step = 1
    measured = measure(state, worker, pace)
    assert measured["train_loss"] == pytest.approx(1.5)
    assert measured["some_mib"] == 30
    assert measured["load"] == pytest.approx(0.3)
    assert measured["data_wait_share"] == pytest.approx(0.1)


def test_this_process_is_measured() -> None:
    before = process_usage(CPU)["worker_memory_mib"]
    ballast = np.ones(200_000_000, dtype=np.uint8)
    assert process_usage(CPU)["worker_memory_mib"] - before == pytest.approx(200e6 / 2**20, abs=5)
    del ballast


def test_samples_show_noisy_denoised_and_clean_side_by_side() -> None:
    host = session()
    state = TrainingState.create(CONFIG, CPU)
    picture = decode(samples(state, host))
    assert picture.shape == (4 * 20, 3 * 20, 3)
    for row, index in enumerate(spread(5, 4)):
        noisy, clean = host.val[index]
        assert np.array_equal(picture[20 * row : 20 * row + 20, :20], noisy)
        assert np.array_equal(picture[20 * row : 20 * row + 20, 40:], clean)


def test_a_flat_patch_met_exactly_does_not_outweigh_all_others() -> None:
    black = np.zeros((3, 20, 20, 3), dtype=np.uint8)
    host = session()
    host.val = Patches([(black, black)])
    state = TrainingState.create(CONFIG, CPU)
    with torch.no_grad():
        for parameter in state.ema.network.parameters():
            parameter.zero_()
    assert validate(state, host).psnr == 100


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
        ("psnr", lambda d: np.mean([10 * np.log10(np.mean(e**2)) for e in d])),
    ],
)
def test_losses_are_their_formulas(name: Loss, formula: Callable[[NDArray[np.float64]], float]) -> None:
    random = np.random.default_rng(0)
    output, clean = random.random((2, 2, 3, 5, 7), dtype=np.float32)
    got = LOSS_FUNCTIONS[name](torch.from_numpy(output), torch.from_numpy(clean))
    assert got.shape == ()
    assert got.item() == pytest.approx(formula(output.astype(np.float64) - clean), rel=1e-6)


def test_the_ssim_loss_mixes_scikit_images_ssim_with_l1() -> None:
    random = np.random.default_rng(0)
    clean = random.random((2, 3, 16, 17))
    output = clean + random.normal(0, 0.1, clean.shape)
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1, "channel_axis": 0}
    similarity = [
        structural_similarity(a, b, full=True, **options)[1][:, 5:-5, 5:-5].mean()
        for a, b in zip(output, clean, strict=True)
    ]
    expected = 0.84 * (1 - np.mean(similarity)) + 0.16 * np.abs(output - clean).mean()
    got = LOSS_FUNCTIONS["ssim"](torch.from_numpy(output).float(), torch.from_numpy(clean).float())
    assert got.item() == pytest.approx(expected, rel=1e-4)


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


def test_the_learning_rate_is_halved_in_steps() -> None:
    config = replace(CONFIG, steps=1000, warmup_steps=20, learning_rate=0.8, schedule="step", decay_steps=300)
    rates = {step: learning_rate(config, step) for step in (10, 20, 299, 300, 599, 600, 999)}
    assert rates == pytest.approx({10: 0.8 * 11 / 20, 20: 0.8, 299: 0.8, 300: 0.4, 599: 0.4, 600: 0.2, 999: 0.1})
    assert learning_rate(replace(config, decay_steps=None), 200) == pytest.approx(0.4)


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
        ({"loss": "l2"}, "unknown loss 'l2'; known: mse, l1, charbonnier, psnr, ssim"),
        ({"optimizer": "sgd"}, "unknown optimizer 'sgd'; known: adam, adamw"),
        ({"precision": "float16"}, "unknown precision 'float16'; known: auto, float32, bfloat16"),
        ({"crop": 15}, "crop must be at least 16 pixels, got 15"),
        ({"schedule": "linear"}, "unknown schedule 'linear'; known: cosine, step"),
        ({"batches": "some"}, "unknown batches 'some'; known: auto, resident, streaming"),
        ({"noise": "new"}, "unknown noise 'new'; known: stored, fresh"),
        ({"adversarial": -1.0}, "adversarial must be a number that is not negative, got -1"),
        ({"micro_batch": 0}, "micro_batch must be at least 1, got 0"),
        ({"patience": 0}, "patience must be at least 1, got 0"),
        ({"log_every": 0}, "log_every must be at least 1, got 0"),
        ({"decay_steps": 0}, "decay_steps must be at least 1, got 0"),
        ({"window_megabytes": 0}, "window_megabytes must be at least 1, got 0"),
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


def test_a_batch_that_leaves_workers_without_a_patch_is_refused() -> None:
    with pytest.raises(UserError, match="a batch of 4 leaves some of 5 workers without a patch; raise --batch-size"):
        train(CONFIG, OneOfMany(0, 5, 5))


def test_a_split_that_is_smaller_than_a_batch_is_refused() -> None:
    with pytest.raises(UserError, match="the train split has 7 patches, fewer than a batch of 8; lower --batch-size"):
        train(replace(CONFIG, batch_size=8), session())


@pytest.mark.parametrize(
    ("every", "expected"), [(5, [5, 10, 12]), (4, [4, 8, 12]), (12, [12]), (100, [12]), (1, [*range(1, 13)])]
)
def test_it_is_validated_as_often_as_told_and_at_the_end(every: int, expected: list[int]) -> None:
    host = session()
    train(replace(CONFIG, validate_every=every), host)
    assert [m["step"] for m in host.history] == expected


def test_a_report_says_what_happened_since_the_last() -> None:
    host = session()
    train(replace(CONFIG, log_every=100), host)
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
    gradient = torch.cat([p.grad.flatten() for p in state.denoiser.network.parameters() if p.grad is not None])
    assert gradient.norm().item() == pytest.approx(1e-4, rel=1e-2)


def snapshot(state: TrainingState) -> list[Tensor]:
    moments = [t for per in state.denoiser.optimizer.state_dict()["state"].values() for t in per.values()]
    return [t.clone() for t in (*state.denoiser.network.parameters(), *state.ema.network.parameters(), *moments)]


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
    first, again, other = (TrainingState.create(replace(CONFIG, seed=seed), CPU).denoiser.network for seed in (3, 3, 4))
    for a, b, c in zip(first.parameters(), again.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
        assert a.ndim == 1 or not torch.equal(a, c)


def test_a_gpu_without_room_is_told_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(output: Tensor, clean: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setitem(LOSS_FUNCTIONS, "mse", full)
    with pytest.raises(JobFailedError, match=r"no room to train red10 on 2 crops of 16 pixels .* set --micro-batch to 1"):
        train(replace(CONFIG, micro_batch=2), session())


def test_a_discriminator_too_gives_a_batch_in_parts_the_gradient_of_the_whole() -> None:
    found = []
    for micro_batch in (None, 3, 1):
        config = replace(CONFIG, batch_size=7, crop=24, adversarial=10.0, micro_batch=micro_batch, gradient_clip=1e9)
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
