"""The models that trials may start from: the starter, and the one that a study is around."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from degrain.domains import Choice, Domain, LogUniform, Value
from degrain.inference.config import STARTER
from degrain.presets import preset
from degrain.registry.resolver import Resolver
from degrain.registry.versions import load_registered
from degrain.storage.location import Storage
from degrain.tracking.runs import Tracker
from degrain.training.distributed.plan import StartingModel
from degrain.tuning.config import FittedStudy
from degrain.tuning.space import SearchSpace


@dataclass(frozen=True)
class Starts:
    """The starting models of a study."""

    starter: StartingModel
    around: StartingModel | None = None
    """The model that `FittedStudy.start` names."""

    @classmethod
    def load(cls, config: FittedStudy, tracker: Tracker, storage: Storage) -> "Starts":
        """Load the models. Raises UserError if `config.start` does not exist."""
        starter = StartingModel(STARTER, *Resolver(None, storage).load(STARTER))
        if config.start is None:
            return cls(starter)
        if config.start.startswith("models:"):
            loaded = load_registered(tracker.client, config.start)
        else:
            loaded = Resolver(None, storage).load(config.start)
        return cls(starter, StartingModel(config.start, *loaded))

    def of(self, name: str) -> StartingModel:
        """The model that a training configuration names."""
        if self.around is not None and self.around.name == name:
            return self.around
        assert name == STARTER, name
        return self.starter

    @property
    def weights(self) -> dict[str, Mapping[str, Tensor]]:
        """The weights of each model, by name."""
        return {model.name: model.weights for model in self.models}

    @property
    def models(self) -> list[StartingModel]:
        """All of them."""
        return [self.starter] if self.around is None else [self.starter, self.around]

    def include_network(self, config: FittedStudy) -> FittedStudy:
        """Return the study with the network of `around` among those that are tuned."""
        if self.around is None or self.around.card.model in config.tuned:
            return config
        models = (self.around.card.model, *config.tuned)
        return replace(config, models=models, trials=max(config.trials, len(models)))

    def surround(self, space: SearchSpace) -> SearchSpace:
        """Return the space of the network of `around` with that model as the first start, and its
        training as the first trial's; other spaces as they are.
        """
        model = self.around
        if model is None or model.card.model != space.model:
            return space
        fields: dict[str, tuple[Domain, ...]] = {
            name: tuple(_first(domain, model.card.training.get(name)) for domain in domains)
            for name, domains in space.fields.items()
        }
        # Not of `fields`: what the model itself started from is not loaded, and may be gone.
        before = space.fields.get("start", ())
        others = [v for d in before if isinstance(d, Choice) for v in d.values]
        starts = dict.fromkeys([model.name, *(others or [None])])
        fields["start"] = (Choice(tuple(starts), default=model.name),)
        rate = preset(space.model).recipe.fine_tuning_rate
        fine_tuning = LogUniform(rate / 4, 2 * rate, default=rate, when={"start": model.name})
        fields["learning_rate"] = (fine_tuning, *fields["learning_rate"])
        arguments = {**space.starts, model.name: dict(model.card.arguments)}
        return replace(space, fields=fields, starts=arguments)


def _first(domain: Domain, value: Any) -> Domain:  # noqa: ANN401 - of a card
    """The domain with `value` for the first trial, if it is a choice of such values."""
    if not isinstance(domain, Choice) or value is None:
        return domain
    first: Value = value
    values = domain.values if first in domain.values else (first, *domain.values)
    return replace(domain, values=values, default=first)
