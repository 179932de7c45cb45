"""Checks for fields of config dataclasses; they raise InvalidFieldError with the field's name."""

import math
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from degrain.errors import InvalidFieldError


def check_choices(config: object) -> None:
    """Check every field whose type is a `Literal`, or a `Literal` or None."""
    for name, hint in get_type_hints(type(config)).items():
        value, choices = getattr(config, name), _choices(hint)
        if choices and value not in choices:
            known = ", ".join(str(choice) for choice in choices if choice is not None)
            raise InvalidFieldError(name, f"must be one of {known}, got '{value}'")


def _choices(hint: Any) -> tuple[Any, ...]:  # noqa: ANN401 - any type hint
    """The values of a `Literal`, with None where the hint allows it; () for other types."""
    if get_origin(hint) is Literal:
        return get_args(hint)
    if get_origin(hint) not in (Union, UnionType):
        return ()
    parts = [part for part in get_args(hint) if part is not NoneType]
    choices = _choices(parts[0]) if len(parts) == 1 else ()
    return (*choices, None) if choices else ()


def check_minimum(config: object, minimum: int, *names: str) -> None:
    """Check that fields are at least `minimum`; a field that is None passes."""
    for name in names:
        value = getattr(config, name)
        if value is not None and value < minimum:
            raise InvalidFieldError(name, f"must be at least {minimum}, got {value}")


def check_positive(config: object, *names: str) -> None:
    """Check that fields are finite and above zero; a field that is None passes."""
    for name in names:
        value = getattr(config, name)
        if value is not None and not (value > 0 and math.isfinite(value)):
            raise InvalidFieldError(name, f"must be a positive number, got {value}")


def check_not_negative(config: object, *names: str) -> None:
    """Check that fields are finite and not below zero; a field that is None passes."""
    for name in names:
        value = getattr(config, name)
        if value is not None and not (value >= 0 and math.isfinite(value)):
            raise InvalidFieldError(name, f"must be a number that is not negative, got {value}")


def check_share(config: object, *names: str) -> None:
    """Check that fields are between 0 and 1."""
    for name in names:
        value: Any = getattr(config, name)
        if not 0 <= value <= 1:
            raise InvalidFieldError(name, f"must be a share between 0 and 1, got {value}")
