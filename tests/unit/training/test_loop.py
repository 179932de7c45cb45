"""The training loop: validation, progress, preemption, errors."""

import math
import mmap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from unit.support import smooth_patches
from unit.training_support import CONFIG, CPU, OneOfMany, losses, session, snapshot

from degrain.errors import JobFailedError, UserError
from degrain.imaging.metrics import score_photo
from degrain.storage.location import Storage
from degrain.training.checkpoint import Snapshot, restore
from degrain.training.checkpoint_store import CheckpointStore
from degrain.training.distributed.resource_usage import process_usage
from degrain.training.loop import initial_state, make_loader, measure, train
from degrain.training.losses import LOSS_FUNCTIONS
from degrain.training.session import LocalSession
from degrain.training.step import TrainingState, learning_rate, train_step
from degrain.training.step_timer import StepTimer


def test_patience_stops_a_run_without_improvement() -> None:
    host = session()
    state = train(
        replace(CONFIG, steps=100, validate_every=2, patience=3, learning_rate=1e-12), host
    )
    # A tie with the best PSNR does not count as an improvement.
    scores = [m["val_psnr"] for m in host.history]
    best = scores.index(max(scores))
    assert len(scores) == best + 1 + 3
    assert state.step == 2 * len(scores) < 100


def test_training_starts_from_given_weights() -> None:
    given = TrainingState.create(replace(CONFIG, seed=9), CPU).denoiser.network.state_dict()
    host = session()
    host.start = given
    state = initial_state(CONFIG, host)
    for network in (state.denoiser.network, state.ema.network):
        assert all(torch.equal(value, given[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize(("rate", "best_step"), [(0.5, 0), (1e-3, 12)])
def test_training_never_ends_below_the_model_that_it_started_from(
    rate: float, best_step: int, tmp_path: Path
) -> None:
    host = session()
    given = train(replace(CONFIG, steps=40, learning_rate=3e-3), host)
    host = session()
    host.store = CheckpointStore(Storage().locate(tmp_path), warn=pytest.fail)
    host.start = {n: w.clone() for n, w in given.denoiser.network.state_dict().items()}
    train(replace(CONFIG, learning_rate=rate), host)
    assert [m["step"] for m in host.history] == [0, 5, 10, 12]
    best = host.store.best()
    assert best is not None
    assert best["step"] == best_step
    if best_step == 0:
        assert all(torch.equal(best["ema"][n], w) for n, w in host.start.items())
    assert best["metrics"]["val_psnr"] == max(m["val_psnr"] for m in host.history)


class Preempted(LocalSession):
    """A session in which a checkpoint is requested at the seventh step."""

    steps_seen = 0
    saved: list[Snapshot]

    def preempted(self) -> bool:
        self.steps_seen += 1
        return self.steps_seen == 7

    def save_checkpoint_now(self, snapshot: Snapshot) -> None:
        self.saved = [snapshot]


def test_preempted_run_saves_a_checkpoint_of_that_step() -> None:
    host = Preempted(smooth_patches(7, 20), smooth_patches(5, 20, 1))
    whole = train(CONFIG, host)
    assert host.steps_seen == 12
    assert host.saved[0]["step"] == 7
    resumed = TrainingState.create(CONFIG, CPU)
    restore(resumed, host.saved[0])
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
    assert [m["train_loss"] for m in host.curve] == pytest.approx(
        [np.mean(span) for span in spans], rel=1e-6
    )
    for metrics in host.curve:
        assert metrics["seconds_left"] >= 0
        assert metrics["workers"] == 1
    assert host.curve[-1]["seconds_left"] == 0


class Busy(OneOfMany):
    """One of two workers; the other waits 20% of the time, uses 30 MiB and has a load of 0.1."""

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


def test_memory_is_the_maximum_over_workers_and_other_metrics_the_mean() -> None:
    worker = Busy(0, 2, 5)
    state = TrainingState.create(CONFIG, CPU)
    timer = StepTimer(0)
    timer.loss(torch.tensor(0.5))
    state.step = 1
    measured = measure(state, worker, timer)
    assert measured["train_loss"] == pytest.approx(1.5)
    assert measured["some_mib"] == 30
    assert measured["load"] == pytest.approx(0.3)
    assert measured["data_wait_share"] == pytest.approx(0.1)


def test_process_usage_measures_this_process() -> None:
    before = process_usage(CPU)["worker_memory_mib"]
    # An allocator may take memory that earlier tests have left with the process.
    new = mmap.mmap(-1, 200_000_000, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory = np.frombuffer(new, dtype=np.uint8)
    memory[:] = 1
    assert process_usage(CPU)["worker_memory_mib"] - before == pytest.approx(200e6 / 2**20, abs=5)
    del memory


def test_training_improves_psnr_over_the_noisy_input() -> None:
    config = replace(
        CONFIG,
        steps=60,
        validate_every=60,
        learning_rate=3e-3,
        ema_decay=0.9,
        arguments={"width": 16},
    )
    host = session(deviation=40)
    noisy = np.mean([score_photo(*host.val[i]).psnr for i in range(len(host.val))])
    train(config, host)
    assert host.history[-1]["val_psnr"] > noisy + 0.5


def test_without_a_crop_training_uses_whole_patches() -> None:
    config = replace(CONFIG, crop=None)
    assert config.crop_of(20) == 20
    assert make_loader(config, session()).batch(0).noisy.shape == (4, 3, 20, 20)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"crop": 32}, r"crop 32 is larger than the patches of the set \(20\)"),
        ({"model": "mwcnn", "crop": 17}, "crop 17 does not suit mwcnn, which takes multiples of 8"),
        (
            {"model": "mwcnn", "crop": None},
            "crop 20 does not suit mwcnn, which takes multiples of 8",
        ),
    ],
)
def test_a_crop_of_unsupported_size_is_rejected(change: dict[str, object], message: str) -> None:
    config = replace(CONFIG, **change)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=message):
        config.crop_of(20)
    with pytest.raises(UserError, match=message):
        train(config, session())


def test_a_batch_smaller_than_the_number_of_workers_is_rejected() -> None:
    with pytest.raises(
        UserError, match="a batch of 4 leaves some of 5 workers without a patch; raise `batch_size`"
    ):
        train(CONFIG, OneOfMany(0, 5, 5))


def test_a_split_smaller_than_a_batch_is_rejected() -> None:
    with pytest.raises(
        UserError,
        match="the train split has 7 patches, fewer than a batch of 8; lower `batch_size`",
    ):
        train(replace(CONFIG, batch_size=8), session())


@pytest.mark.parametrize(
    ("every", "expected"),
    [(5, [5, 10, 12]), (4, [4, 8, 12]), (12, [12]), (100, [12]), (1, [*range(1, 13)])],
)
def test_validation_runs_at_the_interval_and_at_the_end(every: int, expected: list[int]) -> None:
    host = session()
    train(replace(CONFIG, validate_every=every), host)
    assert [m["step"] for m in host.history] == expected


def test_a_report_covers_the_steps_since_the_previous_one() -> None:
    host = session()
    train(replace(CONFIG, log_every=100), host)
    every = losses(CONFIG, 12)
    spans = [every[:5], every[5:10], every[10:]]
    assert [m["train_loss"] for m in host.history] == pytest.approx(
        [np.mean(span) for span in spans], rel=1e-6
    )
    assert [m["learning_rate"] for m in host.history] == [
        learning_rate(CONFIG, step) for step in (4, 9, 11)
    ]
    for metrics in host.history:
        assert metrics["patches_per_second"] > 0
        assert 0 <= metrics["data_wait_share"] <= 1


def test_divergence_fails_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        LOSS_FUNCTIONS, "mse", lambda output, clean: (output - clean).mean() * math.nan
    )
    host = session()
    with pytest.raises(JobFailedError, match="diverged at step 1"):
        train(CONFIG, host)
    assert host.history == []


def test_gpu_out_of_memory_error_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(output: Tensor, clean: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setitem(LOSS_FUNCTIONS, "mse", full)
    with pytest.raises(
        JobFailedError,
        match=r"ran out of memory training red10 on 2 crops of 16 pixels; set `micro_batch` to 1",
    ):
        train(replace(CONFIG, micro_batch=2), session())
