"""The number of steps that fit into a budget of time, from a measured rate."""

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import torch

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


def with_planned_steps(
    state: TrainingState, session: Session, loader: BatchLoader
) -> TrainingConfig:
    """Return the configuration with the steps that fit into what is left of its budget.

    Steps and a validation are timed on a state that is restored afterwards, so that a run with the
    same number in `steps` gives the same weights. Unless the configuration says when to validate,
    validations take a twentieth of the time at most. All workers return the same numbers.
    """
    config = state.config
    assert config.budget is not None
    untouched = take_snapshot(state)
    step_seconds = _time_steps(state, session, loader)
    validation_seconds = _timed(
        state, lambda: (validate(state, session), sample_crops(state, session))
    )
    restore(state, untouched)
    finish = max(_FINISH_SHARE * config.budget, _SHORTEST_FINISH)
    left = config.budget - (time.time() - session.started) - finish
    validations = min(max(int(_VALIDATION_SHARE * left / validation_seconds), 1), _VALIDATIONS)
    fitting = (left - validations * validation_seconds) / step_seconds
    # Rank 0 decides, because clocks and rates differ between workers.
    numbers = torch.tensor([fitting, validations], dtype=torch.float64) * (session.rank == 0)
    fitting, validations = session.sum(numbers).tolist()
    steps = max(int(fitting), 1)
    session.planned(steps)
    every = config.validate_every or math.ceil(steps / validations)
    return replace(config, steps=steps, validate_every=every)


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
