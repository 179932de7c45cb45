"""Trials of earlier studies, from MLflow, from which a study may learn.

When a trial ends, a tag of its run gets the values that were searched and the best scores. Scores
of the same validation patches are comparable; those of trials of another length are not, but the
best of such trials is still a good configuration to begin with.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from degrain.tracking.runs import Tracker
from degrain.training.config import TrainingConfig
from degrain.tuning.config import Objective
from degrain.tuning.space import Draw, SearchSpace
from degrain.tuning.suggest import METRICS, Outcome
from degrain.tuning.trial import Trial

OUTCOME_TAG = "degrain.outcome"
_SAME_LENGTH = 0.2
"""Relative difference of two trials' lengths up to which their scores are compared."""
_PAGE = 1000


@dataclass(frozen=True)
class EarlierTrial:
    """What a study keeps of a trial for later ones."""

    draw: Draw
    best: Mapping[str, float]
    """Scores at the best validation; empty if the trial failed."""
    stopped_at: float | None
    """Progress in percent where early stopping ended the trial. None: it is complete."""
    budget: float | None
    """Seconds. None: the length is `steps`."""
    steps: int
    validation_patches: int

    @classmethod
    def of(cls, trial: Trial) -> "EarlierTrial":
        """What is kept of an ended trial."""
        named = {n for metrics in METRICS.values() for n in metrics}
        config = trial.config
        return cls(
            trial.draw,
            {k: v for k, v in trial.best.items() if k in named} if trial.usable else {},
            trial.stopped_at,
            None if config.budget is None else float(config.budget),
            config.steps,
            config.validation_patches,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as values that JSON can represent."""
        return asdict(self)

    @classmethod
    def read(cls, text: str) -> "EarlierTrial":
        """Read what `to_dict` returned. Raises ValueError, KeyError or TypeError for another
        text.
        """
        content = json.loads(text)
        return cls(**{**content, "draw": Draw(**content["draw"])})

    def has_length_of(self, config: TrainingConfig) -> bool:
        """Whether it was about as long as a trial of that configuration."""
        if (self.budget is None) != (config.budget is None):
            return False
        mine, other = (
            (self.steps, config.steps) if config.budget is None else (self.budget, config.budget)
        )
        assert mine is not None
        return abs(mine - other) <= _SAME_LENGTH * other

    def outcome(self, objective: Objective) -> Outcome | None:
        """What a search learns from it; None if it lacks a score of the objective."""
        if not self.best:
            return Outcome(self.draw, None)
        if not set(METRICS[objective]) <= set(self.best):
            return None
        return Outcome(self.draw, [self.best[n] for n in METRICS[objective]], self.stopped_at)


def earlier_trials(
    tracker: Tracker, version: str, protocol: str, config: TrainingConfig, study: str
) -> list[EarlierTrial]:
    """The ended trials of all studies but `study` on a version of a patch set, oldest first, whose
    scores are of the same protocol and validation patches.
    """
    found = []
    query = (
        f"tags.`degrain.kind` = 'trial' and tags.patch_set = '{version}' "
        f"and tags.val_protocol = '{protocol}'"
    )
    for run in tracker.search(query):
        tags = run.data.tags
        if OUTCOME_TAG in tags and tags.get("mlflow.parentRunId") != study:
            trial = EarlierTrial.read(tags[OUTCOME_TAG])
            if trial.validation_patches == config.validation_patches:
                found.append(trial)
    return found


@dataclass(frozen=True)
class WarmStart:
    """What a study learns before its first trial."""

    first: Mapping[str, Draw]
    """The best draw of each network, by its name."""
    outcomes: Sequence[Outcome]
    """Outcomes of trials of the study's own length."""

    @classmethod
    def of(
        cls,
        trials: Sequence[EarlierTrial],
        spaces: Sequence[SearchSpace],
        config: TrainingConfig,
        objective: Objective,
    ) -> "WarmStart":
        """Take what lies in the spaces. The best draw of a network is one of the study's own length
        if there is any.
        """
        by_model = {space.model: space for space in spaces}
        usable = [
            (trial, outcome)
            for trial in trials
            if trial.draw.model in by_model
            and by_model[trial.draw.model].has(trial.draw)
            and (outcome := trial.outcome(objective)) is not None
        ]
        first: dict[str, tuple[bool, float, Draw]] = {}
        for trial, outcome in usable:
            if outcome.scores is None:
                continue
            rank = (trial.has_length_of(config), outcome.scores[0])
            if trial.draw.model not in first or rank > first[trial.draw.model][:2]:
                first[trial.draw.model] = (*rank, trial.draw)
        same = tuple(outcome for trial, outcome in usable if trial.has_length_of(config))
        return cls({model: draw for model, (*_, draw) in first.items()}, same)


COLD = WarmStart({}, ())
"""A study that knows nothing of earlier ones."""
