"""Early stopping within an architecture, in the manner of ASHA (Li et al., 2020, arXiv:1810.05934).

At a rung, a share of its own budget, a trial is compared with all trials of its architecture that
have passed the rung. It is stopped if it is not in their better half, unless it improves so fast
that it would overtake the last one of that half by its own end if both went on as they did: PSNR
and SSIM grow about linearly with the logarithm of the progress. The first validation says nothing
on that, so no trial is stopped there. Architectures have separate rungs: the one that learns
fastest at first would stop the others.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ray.tune.experiment import Trial as RayTrial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from degrain.tuning.trial import Trial

RUNGS = (25.0, 50.0, 75.0)
"""Percent of a trial's own length, so that with a budget of time rungs are at equal cost."""


@dataclass(frozen=True)
class _Mark:
    score: float
    gain: float | None
    """Gain since the validation before, per unit of the progress' logarithm. None: there was
    none."""

    def at_end(self, rung: float) -> float:
        return self.score + (self.gain or 0) * math.log(100 / rung)


class Rungs:
    """The rungs of one architecture."""

    def __init__(self) -> None:
        self._marks: dict[float, dict[int, _Mark]] = {rung: {} for rung in RUNGS}
        self._last: dict[int, tuple[float, float]] = {}

    def keeps(self, number: int, progress: float, score: float) -> bool:
        """Record a validation of the trial `number`; returns whether it goes on."""
        if progress == 0:
            # The model that the trial starts from says nothing on how it learns.
            return True
        before = self._last.get(number)
        if before is not None and progress == before[0]:
            # A resumed trial repeats its last report.
            return True
        if before is not None and progress < before[0]:
            # The trial was started anew.
            before = None
            for marks in self._marks.values():
                marks.pop(number, None)
        self._last[number] = (progress, score)
        passed = [r for r in RUNGS if r <= progress and number not in self._marks[r]]
        if not passed or progress >= 100:
            return True
        for rung in passed:
            self._marks[rung][number] = _mark(rung, before, (progress, score))
        return self._in_race(number, passed[-1])

    def _in_race(self, number: int, rung: float) -> bool:
        mark, marks = self._marks[rung][number], self._marks[rung].values()
        better_half = sorted(marks, key=lambda m: -m.score)[: -(-len(marks) // 2)]
        last = better_half[-1]
        if mark.gain is None or mark.score >= last.score:
            return True
        return mark.at_end(rung) > last.at_end(rung)


def _mark(rung: float, before: tuple[float, float] | None, now: tuple[float, float]) -> _Mark:
    """The score at the rung, between two validations, so that compute is equal."""
    if before is None:
        return _Mark(now[1], None)
    gain = (now[1] - before[1]) / math.log(now[0] / before[0])
    return _Mark(now[1] - gain * math.log(now[0] / max(rung, before[0])), gain)


class EarlyStopping(FIFOScheduler):  # type: ignore[misc]
    """Ray Tune's interface to the rungs; `before` are trials that an earlier process ran."""

    def __init__(self, metric: str, before: Iterable[Trial] = ()) -> None:
        super().__init__()
        self._compared = metric
        self._rungs: dict[str, Rungs] = {}
        for trial in before:
            for progress, reached in trial.curve:
                self._of(trial.draw.model).keeps(trial.number, progress, reached)

    def _of(self, model: str) -> Rungs:
        return self._rungs.setdefault(model, Rungs())

    def on_trial_result(self, tune_controller: Any, trial: RayTrial, result: dict[str, Any]) -> str:
        if self._compared not in result:
            return str(TrialScheduler.CONTINUE)
        described = trial.config["trial"]
        rungs = self._of(described["training"]["model"])
        keeps = rungs.keeps(described["number"], result["progress"], result[self._compared])
        return str(TrialScheduler.CONTINUE if keeps else TrialScheduler.STOP)
