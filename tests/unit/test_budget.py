"""A budget of time decides the number of steps, and nothing else."""

import time
from dataclasses import replace

import pytest
import torch
from unit.support import smooth_patches
from unit.training_support import CONFIG, CPU, session, snapshot

from degrain.durations import Duration
from degrain.training.budget import with_planned_steps
from degrain.training.checkpoint import Snapshot
from degrain.training.config import TrainingConfig
from degrain.training.loop import initial_state, make_loader, train
from degrain.training.session import LocalSession
from degrain.training.step import TrainingState

BUDGET = replace(CONFIG, budget=Duration(8), validate_every=None)


def planned(config: TrainingConfig, host: LocalSession) -> int:
    state = TrainingState.create(config, CPU)
    return with_planned_steps(state, host, make_loader(config, host)).steps


def test_a_planned_run_equals_a_run_of_that_many_steps() -> None:
    host = session()
    host.started = time.time() - 3.5
    state = train(BUDGET, host)
    assert state.step == state.config.steps > 1
    again = train(replace(BUDGET, budget=None, steps=state.config.steps), session())
    assert all(torch.equal(a, b) for a, b in zip(snapshot(state), snapshot(again), strict=True))


def test_time_that_has_passed_leaves_fewer_steps() -> None:
    early, late = session(), session()
    late.started -= 3
    assert planned(BUDGET, late) < planned(BUDGET, early)


def test_an_exceeded_budget_leaves_one_step() -> None:
    host = session()
    host.started -= 60
    assert planned(BUDGET, host) == 1


class Resumed(LocalSession):
    """A session with a checkpoint, in which the planned steps are recorded."""

    snapshot: Snapshot
    steps = 0

    def restored(self) -> Snapshot:
        return self.snapshot

    def planned(self, steps: int) -> None:
        self.steps = steps


def test_a_resumed_run_keeps_its_number_of_steps() -> None:
    from degrain.training.checkpoint import take_snapshot

    state = TrainingState.create(replace(BUDGET, steps=77), CPU)
    state.step = 5
    host = Resumed(smooth_patches(7, 20), smooth_patches(5, 20, 1))
    host.snapshot = take_snapshot(state)
    assert initial_state(BUDGET, host).config.steps == host.steps == 77


def test_a_budget_must_be_positive() -> None:
    with pytest.raises(ValueError, match="budget must be a positive number"):
        TrainingConfig(budget=Duration(-1))
