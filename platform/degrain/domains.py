"""The domains of hyperparameters. Only the standard library is imported here."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, TypeAlias

from degrain.errors import UserError

Value: TypeAlias = int | float | str | None
When: TypeAlias = Mapping[str, Value]


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
