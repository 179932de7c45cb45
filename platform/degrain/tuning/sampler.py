"""Which configuration a study tries next: at random, by TPE, or by NSGA-II, from what is known.

Each architecture has a search of its own, and architectures take turns, so that all get the same
number of trials. The first trial of an architecture is the default of its space, or the best one of
earlier studies.

A study may learn from earlier ones, by MLflow. When a trial ends, a tag of its run gets the values
that were searched and the best scores. Scores of the same validation patches are comparable; those
of trials of another length are not, but the best of such trials is still a good configuration to
begin with.
"""

import json
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.samplers import BaseSampler, NSGAIISampler, TPESampler
from optuna.trial import TrialState, create_trial

from degrain.domains import Choice, Domain, Uniform, Value
from degrain.tracking.runs import Tracker
from degrain.training.config import TrainingConfig
from degrain.tuning.config import Algorithm, Objective
from degrain.tuning.space import Draw, SearchSpace
from degrain.tuning.trial import Trial

_WORST = (0.0, 1e6)
"""Scores of a failed trial where there are two objectives."""
_AT_RANDOM = ("random", "pbt")
"""Algorithms whose configurations do not depend on other trials."""
_RANDOM_TRIALS = 4
"""Trials of an architecture before TPE or NSGA-II suggest one."""

Scores: TypeAlias = Sequence[float]
"""The values of a trial's objectives."""
METRICS: dict[Objective, tuple[str, ...]] = {
    "psnr": ("val_psnr",),
    "ssim": ("val_ssim",),
    "psnr+speed": ("val_psnr", "seconds_per_megapixel"),
}
"""Metrics of each objective; of the speed less is better."""


@dataclass(frozen=True)
class Outcome:
    """How a trial ended."""

    draw: Draw
    scores: Scores | None
    """None if it failed."""
    stopped_at: float | None = None
    """Progress in percent where early stopping ended the trial. None: it is complete."""


class Suggester:
    """Suggests the configurations of a study's trials, and learns from their outcomes.

    `known` is the number of trials that an earlier process suggested: with the same seed alone, the
    first suggestions of a resumed study would repeat them. `first` has the draw of an
    architecture's first trial, by its name, where that is not the default of the space.
    """

    def __init__(
        self,
        spaces: Sequence[SearchSpace],
        *,
        algorithm: Algorithm = "tpe",
        objective: Objective = "psnr",
        seed: int = 0,
        known: int = 0,
        first: Mapping[str, Draw] | None = None,
    ) -> None:
        self._spaces = spaces
        self._first = first or {}
        self._algorithm = algorithm
        self._seed = seed
        several = len(METRICS[objective]) > 1
        self._studies = {
            space.model: _study(algorithm, [seed, known, *space.model.encode()], several=several)
            for space in spaces
        }
        self._open: dict[int, optuna.Trial] = {}

    def suggest(self, number: int) -> Draw:
        """Return the configuration of the trial of that number."""
        space = self._spaces[number % len(self._spaces)]
        turn = number // len(self._spaces)
        if turn == 0 and space.model in self._first:
            return self._first[space.model]
        if turn == 0:
            return space.draw(lambda _, domain: _middle(domain))
        if self._algorithm in _AT_RANDOM:
            random = np.random.default_rng([self._seed, turn, *space.model.encode()])
            return space.draw(lambda _, domain: _random(random, domain))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            trial = self._open[number] = self._studies[space.model].ask()
            return space.draw(lambda label, domain: _suggested(trial, label, domain))

    def learn(self, number: int | None, outcome: Outcome) -> None:
        """Learn the outcome of a trial, also of one that an earlier process suggested, or, with the
        number None, of one of another study.

        A failed trial ranks last, a stopped one behind complete ones.
        """
        if self._algorithm in _AT_RANDOM:
            return
        study = self._studies[outcome.draw.model]
        state, values, intermediate = _result(outcome, several=len(study.directions) > 1)
        asked = None if number is None else self._open.pop(number, None)
        if asked is not None:
            for step, value in intermediate.items():
                asked.report(value, step)
            study.tell(asked, values, state=state)
            return
        space = next(s for s in self._spaces if s.model == outcome.draw.model)
        domains, drawn = space.domains(), outcome.draw.labelled
        study.add_trial(
            create_trial(
                state=state,
                values=values,
                params=dict(drawn),
                distributions={label: _distribution(domains[label]) for label in drawn},
                intermediate_values=intermediate,
            )
        )


def _result(
    outcome: Outcome, *, several: bool
) -> tuple[TrialState, list[float] | None, dict[int, float]]:
    """State, values and intermediate values of an outcome for Optuna."""
    scores = outcome.scores
    if several:
        # Optuna prunes no trials with several objectives.
        return TrialState.COMPLETE, list(_WORST if scores is None else scores), {}
    if scores is None:
        return TrialState.PRUNED, None, {}
    if outcome.stopped_at is not None:
        return TrialState.PRUNED, None, {math.floor(outcome.stopped_at): scores[0]}
    return TrialState.COMPLETE, list(scores), {}


def _study(algorithm: Algorithm, seed: Sequence[int], *, several: bool) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = _sampler(algorithm, seed)
    if several:
        return optuna.create_study(sampler=sampler, directions=["maximize", "minimize"])
    return optuna.create_study(sampler=sampler, direction="maximize")


def _sampler(algorithm: Algorithm, seed: Sequence[int]) -> BaseSampler:
    number = int(np.random.default_rng(seed).integers(2**31))
    if algorithm == "nsga2":
        return NSGAIISampler(population_size=_RANDOM_TRIALS, seed=number)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        # Groups are the fields that occur together; conditions divide them.
        return TPESampler(
            n_startup_trials=_RANDOM_TRIALS, multivariate=True, group=True, seed=number
        )


def _distribution(domain: Domain) -> BaseDistribution:
    if isinstance(domain, Choice):
        return CategoricalDistribution(domain.values)
    return FloatDistribution(domain.low, domain.high, log=domain.log)


def _suggested(trial: optuna.Trial, label: str, domain: Domain) -> Value:
    if isinstance(domain, Choice):
        value: Value = trial.suggest_categorical(label, domain.values)
        return value
    return _inside(trial.suggest_float(label, domain.low, domain.high, log=domain.log), domain)


def _random(random: np.random.Generator, domain: Domain) -> Value:
    if isinstance(domain, Choice):
        return domain.values[int(random.integers(len(domain.values)))]
    if domain.log:
        value = math.exp(random.uniform(math.log(domain.low), math.log(domain.high)))
    else:
        value = random.uniform(domain.low, domain.high)
    return _inside(value, domain)


def _middle(domain: Domain) -> Value:
    return domain.middle if isinstance(domain, Choice) else _inside(domain.middle, domain)


def _inside(value: float, domain: Uniform) -> float:
    """The value with three digits, within its range."""
    return min(max(float(f"{value:.2e}"), domain.low), domain.high)


def pareto_front(points: Mapping[int, tuple[float, float]]) -> list[int]:
    """The keys of the points (to maximize, to minimize) that no other point dominates, the highest
    first.
    """
    front: list[int] = []
    lowest = math.inf
    for key in sorted(points, key=lambda k: (-points[k][0], points[k][1])):
        if points[key][1] < lowest:
            lowest = points[key][1]
            front.append(key)
    return front


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
