"""The form of a search space: the domains of its fields, and conditions between them.

Only the standard library is imported here: the command line reads spaces from its options.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, TypeAlias

from degrain.errors import UserError

Value: TypeAlias = int | float | str | None
When: TypeAlias = Mapping[str, Value]

TRAINING_FIELDS = (
    "start",
    "batch_size",
    "crop",
    "loss",
    "learning_rate",
    "balance",
    "clean_share",
    "synthetic_share",
    "optimizer",
    "schedule",
    "warmup_steps",
    "weight_decay",
    "ema_decay",
)
"""Fields of a TrainingConfig that a space may set; all others of its fields are arguments of the
network."""


@dataclass(frozen=True)
class Choice:
    """One of several values."""

    values: tuple[Value, ...]
    default: Value = None
    """Value of the first trial. None: the first of `values`."""
    when: When = field(default_factory=dict)
    """Values that earlier fields must have."""

    def __post_init__(self) -> None:
        if not self.values:
            raise UserError("a choice needs at least one value")
        if self.default is not None and self.default not in self.values:
            raise UserError(f"the default {self.default} is none of the values {self.values}")

    @property
    def middle(self) -> Value:
        """Value of the first trial."""
        return self.values[0] if self.default is None else self.default

    def has(self, value: Value) -> bool:
        """Whether it is one of the values."""
        return value in self.values


@dataclass(frozen=True)
class Uniform:
    """A number between `low` and `high`, all equally likely."""

    low: float
    high: float
    default: float | None = None
    """Value of the first trial. None: the middle."""
    when: When = field(default_factory=dict)
    """Values that earlier fields must have."""
    log: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and self.low < self.high < math.inf):
            raise UserError(f"a range needs low < high, got {self.low} and {self.high}")
        if self.log and self.low <= 0:
            raise UserError(f"a logarithmic range must be positive, got {self.low}")
        if self.default is not None and not self.low <= self.default <= self.high:
            raise UserError(f"the default {self.default} is not in [{self.low}, {self.high}]")

    @property
    def middle(self) -> float:
        """Value of the first trial."""
        return (self.low + self.high) / 2 if self.default is None else self.default

    def has(self, value: Value) -> bool:
        """Whether it is a number of the range."""
        return isinstance(value, int | float) and self.low <= value <= self.high


@dataclass(frozen=True)
class LogUniform(Uniform):
    """A positive number between `low` and `high`, whose logarithms are equally likely."""

    log: ClassVar[bool] = True

    @property
    def middle(self) -> float:
        """Value of the first trial."""
        return math.sqrt(self.low * self.high) if self.default is None else self.default


Domain: TypeAlias = Choice | Uniform
Pick: TypeAlias = Callable[[str, Domain], Value]
"""Chooses the value of a field; the label names the field and its condition."""


@dataclass(frozen=True)
class Draw:
    """The hyperparameters of one trial."""

    model: str
    arguments: Mapping[str, Any]
    training: Mapping[str, Any]
    """Other fields of the trial's TrainingConfig."""
    labelled: Mapping[str, Value]
    """Values by label: the field, with its condition where it has one."""

    def to_dict(self) -> dict[str, Any]:
        """The fields of a TrainingConfig that the trial sets."""
        return {"model": self.model, "arguments": dict(self.arguments), **self.training}


@dataclass(frozen=True)
class SearchSpace:
    """The search space of one architecture: the domains of each field."""

    model: str
    fields: Mapping[str, tuple[Domain, ...]]
    """Of several domains of a field the first one counts whose condition holds."""
    starts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Arguments of the models that trials may start from, by name; of others the default ones."""

    def draw(self, pick: Pick) -> Draw:
        """Choose the values of a trial, field by field.

        A trial that starts from a model has that model's arguments.
        """
        values: dict[str, Value] = {}
        labelled: dict[str, Value] = {}
        for name in sorted(self.fields, key=lambda n: n != "start"):
            if values.get("start") is not None and name not in TRAINING_FIELDS:
                continue
            for domain in self.fields[name]:
                if all(k in values and values[k] == v for k, v in domain.when.items()):
                    label = label_of(name, domain)
                    values[name] = labelled[label] = pick(label, domain)
                    break
        arguments = {n: v for n, v in values.items() if n not in TRAINING_FIELDS}
        arguments |= self.starts.get(str(values.get("start")), {})
        training = {n: v for n, v in values.items() if n in TRAINING_FIELDS}
        return Draw(self.model, arguments, training, labelled)

    def domains(self) -> dict[str, Domain]:
        """All domains by label."""
        return {label_of(n, d): d for n, domains in self.fields.items() for d in domains}

    def has(self, draw: Draw) -> bool:
        """Whether the space could have given this draw."""
        domains = self.domains()
        if not all(k in domains and domains[k].has(v) for k, v in draw.labelled.items()):
            return False
        try:
            return self.draw(lambda label, _: draw.labelled[label]) == draw
        except KeyError:
            return False

    def fixing(self, values: Mapping[str, Value]) -> "SearchSpace":
        """Return the space with fields that have one value each; those of None stay as they are."""
        fixed = {n: (Choice((v,)),) for n, v in values.items() if v is not None}
        return replace(self, fields={**self.fields, **fixed})

    def fitting(self, patch_side: int, patches: int) -> "SearchSpace":
        """Return the space without crops larger than a patch and batches larger than the split.

        A crop of which no value is left is not searched: training then uses its own default.
        """
        fields = dict(self.fields)
        for name, most in (("crop", patch_side), ("batch_size", patches)):
            kept = [d for domain in fields.pop(name, ()) if (d := _at_most(domain, most))]
            if kept:
                fields[name] = tuple(kept)
        return replace(self, fields=fields)


def label_of(name: str, domain: Domain) -> str:
    """The name of a field with its condition, e.g. `learning_rate[start=starter]`."""
    condition = ",".join(f"{k}={v}" for k, v in domain.when.items())
    return f"{name}[{condition}]" if condition else name


def _at_most(domain: Domain, most: int) -> Domain | None:
    if not isinstance(domain, Choice):
        return domain
    values = tuple(v for v in domain.values if isinstance(v, int) and v <= most)
    default = domain.default if domain.default in values else None
    return replace(domain, values=values, default=default) if values else None
