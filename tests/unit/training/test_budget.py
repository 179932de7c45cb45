"""A budget of time decides the number of steps, and nothing else."""

from dataclasses import replace

import pytest
import torch
from unit.support import smooth_patches
from unit.training_support import CONFIG, CPU, session, snapshot

from degrain.durations import Duration
from degrain.inference.execution import Execution
from degrain.training import budget
from degrain.training.budget import Pace, adjust_steps, with_planned_steps
from degrain.training.checkpoint import Snapshot, restore, take_snapshot
from degrain.training.config import Schedule, TrainingConfig
from degrain.training.loop import initial_state, make_loader, train
from degrain.training.session import LocalSession
from degrain.training.step import TrainingState, learning_rate, train_step

BUDGET = replace(CONFIG, budget=Duration(3600), validate_every=None, compiled="off")
STEP_SECONDS = 300.0


@pytest.fixture
def slow_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps are made and measured as ever, but said to take `STEP_SECONDS`.

    The number of planned steps is then known, on a busy machine too.
    """
    measured = budget._time_steps
    monkeypatch.setattr(budget, "_LONGEST_MEASUREMENT", 0.01)
    monkeypatch.setattr(budget, "_time_steps", lambda *of: measured(*of) and STEP_SECONDS)


def planned(config: TrainingConfig, host: LocalSession) -> int:
    state = TrainingState.create(config, CPU)
    return with_planned_steps(state, host, make_loader(config, host)).steps


def test_a_planned_run_equals_a_run_of_that_many_steps(
    monkeypatch: pytest.MonkeyPatch, slow_steps: None
) -> None:
    monkeypatch.setattr(budget, "_TOLERANCE", 1e9)
    state = train(BUDGET, session())
    assert state.step == state.config.steps == 11
    again = train(replace(BUDGET, budget=None, steps=11), session())
    assert all(torch.equal(a, b) for a, b in zip(snapshot(state), snapshot(again), strict=True))


@pytest.mark.parametrize(("passed", "steps"), [(0, 11), (1800, 5), (3500, 1), (4000, 1)])
def test_time_that_has_passed_leaves_fewer_steps(
    passed: float, steps: int, slow_steps: None
) -> None:
    host = session()
    host.started -= passed
    assert planned(BUDGET, host) == steps


def test_the_measured_rate_decides_how_many_steps_fit() -> None:
    host = session()
    config = replace(BUDGET, budget=Duration(60))
    assert planned(config, host) > 20


class Resumed(LocalSession):
    """A session with a checkpoint, in which the planned steps are recorded."""

    snapshot: Snapshot
    steps = 0

    def restored(self) -> Snapshot:
        return self.snapshot

    def planned(self, steps: int) -> None:
        self.steps = steps


def test_a_resumed_run_keeps_its_number_of_steps() -> None:
    state = TrainingState.create(replace(BUDGET, steps=77, compiled="off"), CPU)
    state.step = 5
    host = Resumed(smooth_patches(7, 20), smooth_patches(5, 20, 1))
    host.snapshot = take_snapshot(state)
    resumed = initial_state(BUDGET, host).config
    assert resumed.steps == host.steps == 77
    assert resumed.compiled == "off"


class FixedPace(Pace):
    """A pace of given seconds per step, without time for validations."""

    def __init__(self, step_seconds: float) -> None:
        super().__init__(0)
        self.step_seconds = step_seconds

    def validation_seconds(self) -> float:
        return 0.0


def half_way(steps: int = 40) -> TrainingState:
    """A state at the middle of a run of `steps`, whose budget is an hour."""
    hour = replace(BUDGET, steps=steps, validate_every=10, warmup_steps=4)
    state = TrainingState.create(hour, CPU)
    loader = make_loader(hour, session())
    while state.step < steps // 2:
        train_step(state, loader.batch(state.step))
    return state


def test_a_slower_machine_gets_fewer_steps() -> None:
    state, host = half_way(), Resumed(smooth_patches(7, 20), smooth_patches(5, 20, 1))
    left = 3600 * 0.99
    adjust_steps(state, host, FixedPace(left / 10))
    assert state.config.steps == host.steps == pytest.approx(30, abs=1)


@pytest.mark.parametrize("factor", [0.97, 1.03])
def test_a_rate_close_to_the_planned_one_changes_nothing(factor: float) -> None:
    state = half_way()
    adjust_steps(state, session(), FixedPace(factor * 3600 * 0.99 / 20))
    assert state.config.steps == 40
    assert state.anchor is None


@pytest.mark.parametrize("schedule", ["cosine", "step"])
@pytest.mark.parametrize("steps", [26, 60])
def test_the_learning_rate_continues_and_ends_with_the_changed_steps(
    schedule: Schedule, steps: int
) -> None:
    state = half_way()
    state.config = replace(state.config, schedule=schedule)
    before, progress = learning_rate(state.config, 20), state.progress
    state.set_steps(steps)
    rates = [learning_rate(state.config, step, state.anchor) for step in range(20, steps + 1)]
    assert rates[0] == pytest.approx(before, rel=0.3 if schedule == "step" else 1e-9)
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == (0 if schedule == "cosine" else state.config.learning_rate / 32)
    assert state.progress == progress
    state.step = steps
    assert state.progress == pytest.approx(1)


def test_a_run_resumed_after_a_change_of_steps_is_bit_identical() -> None:
    state = half_way()
    state.set_steps(26)
    resumed = TrainingState.create(state.config, CPU)
    restore(resumed, take_snapshot(state))
    loader = make_loader(state.config, session())
    for one in (state, resumed):
        while not one.done:
            train_step(one, loader.batch(one.step))
    assert all(torch.equal(a, b) for a, b in zip(snapshot(state), snapshot(resumed), strict=True))


@pytest.mark.parametrize(("faster", "expected"), [(True, "on"), (False, "off")])
def test_a_long_budget_compiles_only_where_steps_are_then_faster(
    monkeypatch: pytest.MonkeyPatch, faster: bool, expected: str
) -> None:
    seconds = iter([2.0, 1.0 if faster else 3.0])
    monkeypatch.setattr(budget, "_time_steps", lambda *_: next(seconds))
    monkeypatch.setattr(Execution, "compile", lambda _, network: network)
    config = replace(BUDGET, budget=Duration(600), compiled="auto")
    state, host = TrainingState.create(config, CPU), session()
    planned = with_planned_steps(state, host, make_loader(config, host))
    assert planned.compiled == expected
    assert state.execution.compiled == faster


def test_a_budget_must_be_positive() -> None:
    with pytest.raises(ValueError, match="budget must be a positive number"):
        TrainingConfig(budget=Duration(-1))
