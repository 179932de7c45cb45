"""The fields of a command as options: their types by name, and their flags."""

import dataclasses
from collections.abc import Mapping
from typing import Any, get_type_hints

import tyro


def flag(field: str) -> str:
    """The option of a field: `batch_size` is `--batch-size`."""
    return f"--{field.replace('_', '-')}"


def with_flags(message: str, fields: Mapping[str, Any]) -> str:
    """A message with options in place of fields: at its start, and between backticks."""
    first, space, rest = message.partition(" ")
    if first in fields:
        message = f"{flag(first)}{space}{rest}"
    for name in fields:
        message = message.replace(f"`{name}`", flag(name))
    return message


def option_types(command: type) -> dict[str, Any]:
    """Type of each option by field name; nested configs are flattened."""
    found: dict[str, Any] = {}
    for name, kind in field_types(command).items():
        found |= option_types(kind) if is_nested(kind) else {name: kind}
    return found


def field_types(owner: type) -> dict[str, Any]:
    """Type of each field by name, without positional arguments, which are not options."""
    hints = get_type_hints(owner, include_extras=True)
    types = get_type_hints(owner)
    return {
        field.name: types[field.name]
        for field in dataclasses.fields(owner)
        if tyro.conf.Positional not in getattr(hints[field.name], "__metadata__", ())
    }


def is_nested(kind: Any) -> bool:  # noqa: ANN401 - any type hint
    """Whether a field's type is a config, whose fields are options in its place."""
    return dataclasses.is_dataclass(kind) and not hasattr(kind, "METAVAR")
