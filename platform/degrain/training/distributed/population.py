"""Population-based training (Jaderberg et al., 2017, arXiv:1711.09846) of a study's trials.

At a quarter, a half and three quarters of its run, a trial leaves its checkpoint and its score in a
folder that all trials of its network share. If it is then in the lowest quarter of those that have
been there, it goes on from the checkpoint of one of the highest quarter, with that one's
configuration, and with another learning rate from there on. So a trial ends with a schedule that
was found while it trained, and no process has to wait for another one.
"""

import math
import random
import re
from dataclasses import dataclass
from typing import Any

from degrain.storage.location import Location
from degrain.training.checkpoint import Snapshot, decode, encode
from degrain.training.config import TrainingConfig
from degrain.training.rate_changes import RateChanges

RUNGS = (0.25, 0.5, 0.75)
"""Shares of a run."""
FACTORS = (0.5, 0.8, 1.25, 2.0)
"""Factors of the learning rate of a trial that takes another one's place."""
SHARE = 0.25
"""Share of the trials that are replaced, and of those that replace them."""
FEWEST = 4
"""Trials at a rung from which on the lowest is replaced."""
_NAME = re.compile(r"trial-(\d+)\.score-(-?\d+\.\d+)\.pt")


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

    def to_dict(self) -> dict[str, Any]:
        """What a driver must know, as values that JSON can represent."""
        return {
            "number": self.number,
            "progress": 100 * self.share,
            "factor": self.factor,
            "draw": self.snapshot["draw"],
            "training": self.config.to_dict(),
        }


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
