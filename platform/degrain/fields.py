"""Checks for fields of config dataclasses; they raise InvalidFieldError with the field's name."""

import math
from typing import Any, Literal, get_args, get_origin, get_type_hints

from degrain.errors import InvalidFieldError, UserError


def check_choices(config: object) -> None:
    """Check every field of a `Literal` type. Raises UserError that lists the known values."""
    for name, hint in get_type_hints(type(config)).items():
        value = getattr(config, name)
        if get_origin(hint) is Literal and value not in get_args(hint):
            known = ", ".join(map(str, get_args(hint)))
            raise UserError(f"unknown {name} '{value}'; known: {known}")


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
