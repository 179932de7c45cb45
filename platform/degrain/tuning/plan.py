"""The plan of a study's trials: their search spaces, and the order in which they start."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from degrain.domains import Choice
from degrain.errors import InvalidFieldError
from degrain.patchsets.manifest import Manifest
from degrain.presets import preset
from degrain.tuning.config import StudyConfig
from degrain.tuning.earlier import COLD, WarmStart
from degrain.tuning.search import outcome
from degrain.tuning.space import Draw, SearchSpace, search_space
from degrain.tuning.starts import Starts
from degrain.tuning.suggest import Suggester
from degrain.tuning.trial import ENDED, Trial
from denoisenets import count_parameters


def spaces_of(
    config: StudyConfig, manifest: Manifest, starts: Starts | None = None
) -> list[SearchSpace]:
    """The search spaces of a study on a patch set.

    Raises InvalidFieldError if a value that the user chose does not suit the patches.
    """
    assert config.scale is not None, "call fit_to_cluster first"
    side = manifest.geometry.patch_size
    pinned = {"batch_size": config.batch_size, "crop": config.crop, "balance": config.balance}
    spaces: list[SearchSpace] = []
    for model in config.tuned:
        space = search_space(model, config.scale, config.spaces)
        if starts is not None:
            space = starts.surround(space)
        fitted = space.fitting(side, manifest.patches("train"))
        for name in config.spaces.networks.get(model, {}):
            if name in space.fields and name not in fitted.fields:
                raise InvalidFieldError(
                    "spaces", f"have no {name} for {model} that suits the patches ({side} pixels)"
                )
        spaces.append(fitted.fixing(pinned))
        _check_crops(config, spaces[-1], side)
    return spaces


def _check_crops(config: StudyConfig, space: SearchSpace, side: int) -> None:
    draw = space.draw(lambda _, domain: domain.middle)
    crops: list[Any] = [
        v for d in space.fields.get("crop", ()) if isinstance(d, Choice) for v in d.values
    ]
    for crop in crops or [config.crop]:
        replace(config.training(**draw.to_dict()), crop=crop).crop_of(side)


def trial_length(
    config: StudyConfig, parallel: int, before: Sequence[Trial]
) -> Mapping[str, object]:
    """The fields that set the length of each trial; `parallel` run at a time.

    Trials of an earlier process keep theirs, and new ones get it, whatever the cluster is now: of
    unequal length they could not be compared.
    """
    if before and config.steps is None:
        return {"budget": before[0].config.budget}
    return config.trial_length(parallel)


def make_trial(config: StudyConfig, number: int, draw: Draw, length: Mapping[str, object]) -> Trial:
    """The trial of a configuration, with the fields that set its length."""
    settings = {"clean_share": preset(draw.model).recipe.clean_share, **draw.to_dict()}
    training = config.training(**length, **settings)
    return Trial(number, draw, training, count_parameters(draw.model, **draw.arguments))


def parallel_trials(config: StudyConfig) -> int:
    """Number of trials that the cluster runs at a time. Needs a running Ray."""
    import ray

    total = ray.cluster_resources()
    slots = total.get("GPU", 0) / config.gpus if config.gpus else total.get("CPU", 1)
    return max(int(slots / config.workers_per_trial), 1)


@dataclass
class TrialPlan:
    """The trials of a study, those of an interrupted process included."""

    config: StudyConfig
    spaces: Sequence[SearchSpace]
    length: Mapping[str, object]
    """See `trial_length`."""
    before: Sequence[Trial] = ()
    """Trials of an earlier process, ended or not."""
    warm_start: WarmStart = COLD

    def __post_init__(self) -> None:
        self.suggester = Suggester(
            self.spaces,
            algorithm=self.config.search,
            objective=self.config.objective,
            seed=self.config.seed,
            known=len(self.before),
            first=self.warm_start.first,
        )
        for known in self.warm_start.outcomes:
            self.suggester.learn(None, known)
        for trial in self.ended:
            self.suggester.learn(trial.number, outcome(trial, self.config.objective))

    @property
    def ended(self) -> list[Trial]:
        """Trials that have nothing left to do."""
        return [trial for trial in self.before if trial.status in ENDED]

    def queue(self) -> Iterator[Trial]:
        """Return the trials that were interrupted, then new ones, each suggested when it is
        taken.
        """
        yield from (trial for trial in self.before if trial.status not in ENDED)
        known = {trial.number for trial in self.before}
        for number in range(self.config.trials):
            if number not in known:
                draw = self.suggester.suggest(number)
                yield make_trial(self.config, number, draw, self.length)
