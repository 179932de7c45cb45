"""Which trials go on: early stopping, and population-based training.

Early stopping is in the manner of ASHA (Li et al., 2020, arXiv:1810.05934). At a rung, a share of
its own budget, a trial is compared with all trials of its architecture that have passed the rung.
It is stopped if it is not in their better half, unless it improves so fast that it would overtake
the last one of that half by its own end if both went on as they did: PSNR and SSIM grow about
linearly with the logarithm of the progress. The first validation says nothing on that, so no trial
is stopped there. Architectures have separate rungs: the one that learns fastest at first would stop
the others.

In population-based training (Jaderberg et al., 2017, arXiv:1711.09846) a trial leaves, at each
rung, its checkpoint and its score in a folder that all trials of its network share. If it is then
in the lowest quarter of those that have been there, it goes on from the checkpoint of one of the
highest quarter, with that one's configuration, and with another learning rate from there on. So a
trial ends with a schedule that was found while it trained, and no process has to wait for another.
"""

import math
import random
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ray.tune.experiment import Trial as RayTrial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from degrain.storage.location import Location
from degrain.training.checkpoint import Snapshot, decode, encode
from degrain.training.config import TrainingConfig
from degrain.training.rate_changes import RateChanges
from degrain.tuning.trial import Inherited, Task, Trial

RUNGS = (0.25, 0.5, 0.75)
"""Shares of a trial's own length, so that with a budget of time rungs are at equal cost."""
FACTORS = (0.5, 0.8, 1.25, 2.0)
"""Factors of the learning rate of a trial that takes another one's place."""
SHARE = 0.25
"""Share of the trials that are replaced, and of those that replace them."""
FEWEST = 4
"""Trials at a rung from which on the lowest is replaced."""
_NAME = re.compile(r"trial-(\d+)\.score-(-?\d+\.\d+)\.pt")


@dataclass(frozen=True)
class _Mark:
    score: float
    gain: float | None
    """Gain since the validation before, per unit of the progress' logarithm. None: there was
    none."""

    def at_end(self, rung: float) -> float:
        return self.score - (self.gain or 0) * math.log(rung)


class Rungs:
    """The rungs of one architecture."""

    def __init__(self) -> None:
        self._marks: dict[float, dict[int, _Mark]] = {rung: {} for rung in RUNGS}
        self._last: dict[int, tuple[float, float]] = {}

    def keeps(self, number: int, progress: float, score: float) -> bool:
        """Record a validation of the trial `number` after a share of its length; returns whether it
        goes on.
        """
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
        if not passed or progress >= 1:
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
                self._of(trial.draw.model).keeps(trial.number, progress / 100, reached)

    def _of(self, model: str) -> Rungs:
        return self._rungs.setdefault(model, Rungs())

    def on_trial_result(self, tune_controller: Any, trial: RayTrial, result: dict[str, Any]) -> str:
        if self._compared not in result:
            return str(TrialScheduler.CONTINUE)
        task = Task.of(trial.config)
        rungs, progress = self._of(task.training["model"]), result["progress"] / 100
        keeps = rungs.keeps(task.number, progress, result[self._compared])
        return str(TrialScheduler.CONTINUE if keeps else TrialScheduler.STOP)


@dataclass(frozen=True)
class Inheritance:
    """What a trial goes on with."""

    number: int
    """The trial from which it has the checkpoint."""
    share: float
    """Rung at which it was replaced."""
    factor: float
    """Factor of the learning rate from there on."""
    snapshot: Snapshot

    @property
    def config(self) -> TrainingConfig:
        """The configuration from there on."""
        return TrainingConfig(**self.snapshot["config"])

    def message(self) -> Inherited:
        """What the driver must know."""
        return Inherited(
            number=self.number,
            progress=100 * self.share,
            factor=self.factor,
            draw=self.snapshot["draw"],
            training=self.config.to_dict(),
        )


class Population:
    """The shared folder of the trials of one network; `number` is the trial that uses it."""

    def __init__(self, folder: Location, number: int, seed: int) -> None:
        self._folder = folder
        self._number = number
        self._seed = seed

    def at(self, before: float, now: float, score: float, snapshot: Snapshot) -> Inheritance | None:
        """Leave a checkpoint at each rung in (before, now]; returns what to go on with, or None for
        the trial's own state.
        """
        passed = [rung for rung in RUNGS if before < rung <= now]
        if not passed:
            return None
        name, content = f"trial-{self._number:02d}.score-{score:.4f}.pt", encode(snapshot)
        for rung in passed:
            (self._place(rung) / name).write_bytes(content)
        return self._inheritance(passed[-1])

    def _inheritance(self, rung: float) -> Inheritance | None:
        found = self._at_rung(rung)
        few = max(math.floor(SHARE * len(found)), 1)
        ranked = sorted(found, key=lambda number: (-found[number][0], number))
        if len(found) < FEWEST or self._number not in ranked[-few:]:
            return None
        # The same choice if an interrupted study repeats it.
        chance = random.Random(f"{self._seed} {self._number} {rung}")
        number, factor = chance.choice(ranked[:few]), chance.choice(FACTORS)
        snapshot = decode((self._place(rung) / found[number][1]).read_bytes())
        config = dict(snapshot["config"])
        changes = RateChanges.parse(config["rate_changes"]).and_from(rung, factor)
        config["rate_changes"] = str(changes)
        return Inheritance(number, rung, factor, {**snapshot, "config": config})

    def _at_rung(self, rung: float) -> dict[int, tuple[float, str]]:
        """Score and file of each trial at a rung."""
        matches = [(name, _NAME.fullmatch(name)) for name in self._place(rung).files()]
        return {int(m[1]): (float(m[2]), name) for name, m in matches if m}

    def _place(self, rung: float) -> Location:
        return self._folder / f"rung-{rung:g}"
