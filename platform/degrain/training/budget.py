"""The number of steps that fit into a budget of time, from measured rates."""

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import torch

from degrain.inference.config import Compiled
from degrain.inference.execution import choose_execution
from degrain.loading.batches import BatchLoader
from degrain.training.checkpoint import restore, take_snapshot
from degrain.training.config import TrainingConfig
from degrain.training.session import Session
from degrain.training.step import TrainingState, train_step
from degrain.training.validation import sample_crops, validate

_WARM_UP_STEPS = 3
"""Steps that are not measured: the first ones compile kernels and allocate memory."""
_MEASURED_SHARE = 0.01
_LONGEST_MEASUREMENT = 10.0
"""Seconds."""
_FEWEST_STEPS = 5
_VALIDATIONS = 10
_VALIDATION_SHARE = 0.05
_FINISH_SHARE = 0.01
_SHORTEST_FINISH = 4.0
"""Seconds that are kept for the last checkpoint and for storing the model."""
_TOLERANCE = 0.05
"""Change of the steps that are left, relative to them, up to which their number is kept."""


class Pace:
    """Measures the steps since a validation, and the next validation."""

    def __init__(self, step: int) -> None:
        self._first = step
        self._started = time.perf_counter()

    def end_steps(self, step: int) -> None:
        """Call before the validation after step `step`."""
        self._validation_started = time.perf_counter()
        self.step_seconds = (self._validation_started - self._started) / (step - self._first)

    def validation_seconds(self) -> float:
        """Seconds since `end_steps`."""
        return time.perf_counter() - self._validation_started


def with_planned_steps(
    state: TrainingState, session: Session, loader: BatchLoader
) -> TrainingConfig:
    """Return the configuration with the steps that fit into what is left of its budget, and
    whether they are compiled.

    Steps and a validation are timed on a state that is restored afterwards, so that a run with the
    same number in `steps` gives the same weights. Unless the configuration says when to validate,
    validations take a twentieth of the time at most. All workers return the same numbers.
    """
    config = state.config
    assert config.budget is not None
    untouched = take_snapshot(state)
    step_seconds, compiled = _time_steps(state, session, loader), config.compiled
    if config.tries_compiled(state.execution.device.type):
        step_seconds, compiled = _choose_compiled(state, session, loader, step_seconds)
    validation_seconds = _timed(
        state, lambda: (validate(state, session), sample_crops(state, session))
    )
    restore(state, untouched)
    left = _seconds_left(config, session)
    validations = min(max(int(_VALIDATION_SHARE * left / validation_seconds), 1), _VALIDATIONS)
    fitting = (left - validations * validation_seconds) / step_seconds
    fitting, scored = _as_rank_0_says(session, fitting, validations)
    steps = max(int(fitting), 1)
    session.planned(steps)
    every = config.validate_every or math.ceil(steps / scored)
    return replace(config, steps=steps, validate_every=every, compiled=compiled)


def adjust_steps(state: TrainingState, session: Session, pace: Pace) -> None:
    """Change the number of steps after a validation, if the rate is not the one it was planned by.

    A machine that was busy when the run began, or becomes busy, would miss the budget otherwise.
    All workers set the same number.
    """
    config = state.config
    planned = config.steps - state.step
    validations = -(-planned // config.validation_interval)
    left = _seconds_left(config, session) - validations * pace.validation_seconds()
    (fitting,) = _as_rank_0_says(session, left / pace.step_seconds)
    if abs(fitting - planned) > _TOLERANCE * planned:
        state.set_steps(state.step + max(int(fitting), 1))
        session.planned(state.config.steps)


def _seconds_left(config: TrainingConfig, session: Session) -> float:
    """Seconds for steps and validations, from now."""
    assert config.budget is not None
    finish = max(_FINISH_SHARE * config.budget, _SHORTEST_FINISH)
    return config.budget - (time.time() - session.started) - finish


def _as_rank_0_says(session: Session, *values: float) -> list[float]:
    """Rank 0's values on all workers, because clocks and rates differ between them."""
    numbers = torch.tensor(values, dtype=torch.float64) * (session.rank == 0)
    found: list[float] = session.sum(numbers).tolist()
    return found


def _choose_compiled(
    state: TrainingState, session: Session, loader: BatchLoader, eager: float
) -> tuple[float, Compiled]:
    """Compile the network if its steps are then faster than `eager` seconds; returns the time of a
    step, and the choice.
    """
    state.set_compiled(
        compiled=choose_execution(state.execution.device, state.config.precision, "on").compiled
    )
    compiled = _time_steps(state, session, loader)
    (faster,) = _as_rank_0_says(session, float(compiled < eager))
    state.set_compiled(compiled=bool(faster))
    return (compiled, "on") if faster else (eager, "off")


def _time_steps(state: TrainingState, session: Session, loader: BatchLoader) -> float:
    """Return the mean time of a step in seconds, the wait for its batch included."""
    assert state.config.budget is not None
    longest = min(_MEASURED_SHARE * state.config.budget, _LONGEST_MEASUREMENT)
    seconds: list[float] = []
    count = None
    started = time.perf_counter()
    for number, batch in enumerate(loader.batches(0, state.config.steps), start=1):
        train_step(state, batch, session.world_size)
        _synchronise(state)
        ended = time.perf_counter()
        seconds.append(ended - started)
        started = ended
        if number == _WARM_UP_STEPS:
            # The same number on all workers, because steps synchronise them.
            rate = torch.tensor([seconds[-1] / session.world_size], dtype=torch.float64)
            count = max(int(longest / session.sum(rate).item()), _FEWEST_STEPS)
        if count is not None and number == _WARM_UP_STEPS + count:
            break
    return statistics.fmean(seconds[_WARM_UP_STEPS:] or seconds)


def _timed(state: TrainingState, work: Callable[[], object]) -> float:
    """Return the seconds that `work` takes on the state's device."""
    started = time.perf_counter()
    work()
    _synchronise(state)
    return time.perf_counter() - started


def _synchronise(state: TrainingState) -> None:
    """Wait until a GPU has done its work."""
    if state.execution.device.type == "cuda":
        torch.cuda.synchronize(state.execution.device)
