"""A run resumed from a checkpoint equals an uninterrupted run bit for bit."""

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from unit.support import smooth_patches

from degrain.errors import UserError
from degrain.inference.execution import Precision
from degrain.storage.location import Storage
from degrain.training.checkpoint import Snapshot, decode, encode, restore, take_snapshot
from degrain.training.checkpoint_store import CheckpointStore
from degrain.training.config import TrainingConfig
from degrain.training.loop import make_loader, train
from degrain.training.session import LocalSession, Metrics
from degrain.training.step import TrainingState, train_step

CPU = torch.device("cpu")
CONFIG = TrainingConfig(
    model="red10",
    arguments={"width": 4},
    steps=12,
    batch_size=4,
    crop=16,
    precision="float32",
    validate_every=5,
    validation_patches=3,
)


class Killed(Exception):  # noqa: N818 - a test's own exception
    """Simulates the end of the process."""


class KilledSession(LocalSession):
    """A session that ends with an exception after its first checkpoint."""

    def report(
        self, metrics: Metrics, snapshot: Callable[[], Snapshot], samples: Callable[[], bytes]
    ) -> None:
        super().report(metrics, snapshot, samples)
        assert self.store is not None
        self.store.flush()
        raise Killed


def session(folder: Path | None = None, kind: type[LocalSession] = LocalSession) -> LocalSession:
    store = CheckpointStore(Storage().locate(folder), warn=pytest.fail) if folder else None
    return kind(smooth_patches(7, 24), smooth_patches(3, 24, seed=1), store=store)


def tensors(state: TrainingState) -> Iterator[tuple[str, Tensor]]:
    yield from state.denoiser.network.state_dict().items()
    yield from ((f"ema {name}", t) for name, t in state.ema.network.state_dict().items())
    for number, moments in state.denoiser.optimizer.state_dict()["state"].items():
        yield from ((f"optimizer {number} {name}", t) for name, t in moments.items())


def assert_same(a: TrainingState, b: TrainingState) -> None:
    assert a.step == b.step
    expected = dict(tensors(b))
    got = dict(tensors(a))
    assert got.keys() == expected.keys()
    assert [name for name, t in got.items() if not torch.equal(t, expected[name])] == []
    assert (
        a.denoiser.optimizer.state_dict()["param_groups"]
        == b.denoiser.optimizer.state_dict()["param_groups"]
    )


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("model", ["red10", "mwcnn"])
def test_a_resumed_run_equals_an_uninterrupted_run(
    tmp_path: Path, precision: Precision, model: str
) -> None:
    arguments = {"width": 4} if model == "red10" else {"width": 4, "depth": 1}
    config = replace(CONFIG, model=model, arguments=arguments, precision=precision)
    whole = train(config, session())

    file = tmp_path / "checkpoints"
    with pytest.raises(Killed):
        train(config, session(file, KilledSession))
    torch.manual_seed(99)
    resumed = session(file)
    assert_same(train(config, resumed), whole)
    assert [m["step"] for m in resumed.history] == [10, 12]
    assert sorted(f.name[:13] for f in file.iterdir()) == ["step-00000010", "step-00000012"]


def test_a_finished_run_is_not_trained_further(tmp_path: Path) -> None:
    file = tmp_path / "checkpoints"
    whole = train(CONFIG, session(file))
    again = session(file)
    assert_same(train(CONFIG, again), whole)
    assert again.history == []


def state_after(steps: int, config: TrainingConfig = CONFIG) -> TrainingState:
    state = TrainingState.create(config, CPU)
    loader = make_loader(config, session())
    while state.step < steps:
        train_step(state, loader.batch(state.step))
    return state


def test_a_checkpoint_restores_everything() -> None:
    state = state_after(3)
    content = take_snapshot(state)
    fresh = TrainingState.create(CONFIG, CPU)
    assert not torch.equal(
        next(fresh.denoiser.network.parameters()), next(state.denoiser.network.parameters())
    )
    restore(fresh, content)
    assert_same(fresh, state)


@pytest.mark.slow
def test_a_resumed_run_counts_the_training_time_of_both_processes(tmp_path: Path) -> None:
    file = tmp_path / "checkpoints"
    with pytest.raises(Killed):
        train(CONFIG, session(file, KilledSession))
    store = CheckpointStore(Storage().locate(file), warn=pytest.fail)
    killed = store.newest()
    assert killed is not None
    store.save({**killed, "seconds": 1000.0})
    store.flush()
    resumed = session(file)
    train(CONFIG, resumed)
    times = [metrics["seconds"] for metrics in resumed.curve]
    assert 1000 < times[0] < times[-1] < 1100


def test_a_checkpoint_restores_the_random_states() -> None:
    def draws() -> list[float]:
        return [
            random.random(),
            float(np.random.rand()),
            float(np.random.randn()),
            torch.rand(()).item(),
        ]

    np.random.randn()  # fills numpy's cache of the second normal sample
    state = TrainingState.create(CONFIG, CPU)
    content = take_snapshot(state)
    expected = draws()
    draws()
    restore(state, content)
    assert draws() == expected


def test_a_checkpoint_holds_plain_values_on_the_cpu() -> None:
    loaded = decode(encode(take_snapshot(state_after(1))))
    assert loaded["config"] == CONFIG.to_dict()
    assert loaded["step"] == 1
    assert set(loaded) == {
        "config",
        "step",
        "seconds",
        "best_psnr",
        "validations_since_best",
        "ema",
        "denoiser",
        "adversary",
        "anchor",
        "random",
        "metrics",
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learning_rate": 0.01}, "learning_rate 0.001 -> 0.01"),
        ({"steps": 13}, "steps 12 -> 13"),
        ({"arguments": {"width": 8}}, r"arguments \{'width': 4\} -> \{'width': 8\}"),
        ({"seed": 1, "loss": "l1"}, "loss 'mse' -> 'l1', seed 0 -> 1"),
    ],
)
def test_resuming_with_another_configuration_is_rejected_with_the_differing_fields(
    change: dict[str, object], message: str
) -> None:
    content = take_snapshot(TrainingState.create(CONFIG, CPU))
    other = TrainingState.create(replace(CONFIG, **change), CPU)  # type: ignore[arg-type]
    before = {name: t.clone() for name, t in tensors(other)}
    with pytest.raises(UserError, match=rf"cannot resume with another configuration \({message}\)"):
        restore(other, content)
    assert all(torch.equal(t, before[name]) for name, t in tensors(other))


def test_validation_settings_may_change_when_a_run_is_resumed() -> None:
    state = state_after(2)
    other = TrainingState.create(replace(CONFIG, validate_every=3, validation_patches=1), CPU)
    restore(other, take_snapshot(state))
    assert_same(other, state)
