"""Command-line options from dataclasses: each field is an option, its docstring the help text.

tyro parses; this module adds the forms that this project uses (comma-separated names, JSON objects,
ranges of workers) and errors of one line; `config_file` reads YAML files of the same shape.
"""

import dataclasses
import difflib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar, get_args, get_origin

import tyro
from tyro import _errors as tyro_errors
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from degrain.cli.config_file import with_config_file
from degrain.cli.option_types import flag, option_types, with_flags
from degrain.errors import UserError
from denoisenets.suggestions import unknown_name

if TYPE_CHECKING:
    from degrain.storage.location import Location
    from degrain.tracking.config import TrackingConfig

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CommonOptions:
    """Options that every command has."""

    config: Path | None = None
    """YAML file with values of these options, in the shape of the command's fields; options on the
    command line win. None: no file."""
    summary: Path | None = None
    """File to write the result to as JSON. None: no file."""
    print_config: bool = False
    """Print all options as the YAML file that `config` reads, and do nothing else."""
    verbose: Annotated[bool, tyro.conf.arg(aliases=["-v"])] = False
    """Show the messages of Ray and MLflow too."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrackingOptions(CommonOptions):
    """Options of a command that uses MLflow."""

    mlflow: Path | None = None
    """File that names the tracking server and the registered model. None: mlflow.yaml in the
    working folder, or the defaults if there is none."""

    def open_output(self, out: str) -> "tuple[Location, TrackingConfig]":
        """The folder of the results, whose storage reads the input too, and the configuration of
        MLflow. Raises UserError if one of them cannot be used.
        """
        from degrain.storage.location import Storage
        from degrain.tracking.config import load_tracking_config

        tracking = load_tracking_config(self.mlflow)
        folder = Storage.from_environment().locate(out)
        folder.check_writable()
        if tracking.embedded:
            folder.storage.locate(tracking.artifacts).check_writable()
        return folder, tracking


_registry = ConstructorRegistry()


@_registry.primitive_rule
def _comma_separated(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """`tuple[str, ...]` is one argument: names separated by commas."""
    if info.type_origin is not tuple or set(get_args(info.type)) - {str, Ellipsis}:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="NAME,...",
        instance_from_str=lambda args: tuple(n.strip() for n in args[0].split(",") if n.strip()),
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda value: [",".join(value)],
    )


@_registry.primitive_rule
def _json_object(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """A mapping is one argument: a JSON object."""
    if info.type_origin is not Mapping:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="JSON",
        instance_from_str=lambda args: _read_object(args[0]),
        is_instance=lambda value: isinstance(value, Mapping),
        str_from_instance=lambda value: [json.dumps(dict(value))],
    )


@_registry.primitive_rule
def _from_text(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """A type with the class method `parse` is one argument, and prints as it is parsed."""
    kind = info.type
    if not (isinstance(kind, type) and hasattr(kind, "parse") and hasattr(kind, "METAVAR")):
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=kind.METAVAR,
        instance_from_str=lambda args: kind.parse(args[0]),
        is_instance=lambda value: isinstance(value, kind),
        str_from_instance=lambda value: [str(value)],
    )


def _read_object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ValueError(
            f"'{text}' is not JSON ({error}); write e.g. '{{\"width\": 32}}'"
        ) from None
    if not isinstance(value, dict):
        raise ValueError(f"'{text}' is not a JSON object; write e.g. '{{\"width\": 32}}'")
    return value


def parse(command: type[T], argv: Sequence[str], *, prog: str, default: T | None = None) -> T:
    """Build a command from its options; those not given are the fields of `default`.

    Prints the help and exits with 0 where asked to; raises UserError for what cannot be parsed.
    """
    fields = option_types(command)
    argv = _merge_repeated(with_config_file(list(argv), command), fields)

    def fail(event: tyro_errors.ParseErrorEvent) -> NoReturn:
        raise UserError(_error_line(event, fields, prog))

    with tyro_errors.on_parse_error(fail):
        parsed = tyro.cli(
            command,
            prog=prog,
            args=argv,
            default=default,
            registry=_registry,
            config=(tyro.conf.OmitArgPrefixes,),
        )
    assert parsed is not None
    return parsed


def given_options(command: type, argv: Sequence[str]) -> frozenset[str]:
    """Names of the fields that the command line or its YAML file sets."""
    names = (text.partition("=")[0] for text in with_config_file(list(argv), command))
    return frozenset(name[2:].replace("-", "_") for name in names if name.startswith("--"))


def _error_line(event: tyro_errors.ParseErrorEvent, fields: Mapping[str, Any], prog: str) -> str:
    """Describe a parse error in one line."""
    match event:
        case tyro_errors.UnrecognizedArgs(tokens=tokens):
            near = difflib.get_close_matches(tokens[0], [flag(n) for n in fields], n=1, cutoff=0.75)
            hint = f" (did you mean {near[0]}?)" if near else ""
            return f"unrecognized arguments: {' '.join(tokens)}{hint}; see {prog} --help"
        case tyro_errors.MissingArgs(missing_arguments=missing):
            names = ", ".join(m.arg.display_name() for m in missing)
            return f"the following arguments are required: {names}; see {prog} --help"
        case tyro_errors.InvalidChoice(argument=argument, value=value, choices=choices):
            known = sorted(set(choices) - {"None"})
            return f"argument {argument.display_name()}: {unknown_name('value', value, known)}"
        case tyro_errors.InstantiationFailure(message=message, argument=None):
            # Raised by a config's own check, which names the field.
            return with_flags(message, fields)
        case tyro_errors.InstantiationFailure(message=message, argument=argument):
            assert argument is not None
            if message.partition(" ")[0] in fields:
                return with_flags(message, fields)
            return f"argument {argument.display_name()}: {_short(message)}; see {prog} --help"
        case tyro_errors.BadValue(argument=argument, offending_value=value):
            what = "a value is missing" if value is None else f"'{value}' cannot be read"
            return f"argument {argument.display_name()}: {what}; see {prog} --help"
    return f"the options cannot be read ({type(event).__name__}); see {prog} --help"


def _short(message: str) -> str:
    """Python's message for a text that is not a number in plain words; for an option that may be
    None the message of its other type; others with whitespace collapsed.
    """
    value = re.search(r"(?:with base 10|string to float): (['\"])(.*)\1$", message)
    if value:
        return f"'{value[2]}' is not a number"
    line = " ".join(message.split())
    optional = re.search(
        r"'NoneType'>: .* does not match choices .* - <class '[^']*'>: (.*)$", line
    )
    return optional[1] if optional else line


def _merge_repeated(argv: list[str], fields: Mapping[str, Any]) -> list[str]:
    """Move the values of options that may be repeated to the end, each behind one flag.

    tyro keeps only the last occurrence of a flag.
    """
    repeatable = {flag(name) for name, kind in fields.items() if get_origin(kind) is Sequence}
    values: dict[str, list[str]] = {}
    rest: list[str] = []
    index = 0
    while index < len(argv):
        name, equals, value = argv[index].partition("=")
        index += 1
        if name not in repeatable:
            rest.append(argv[index - 1])
            continue
        gathered = values.setdefault(name, [])
        if equals:
            gathered.append(value)
            continue
        while index < len(argv) and not argv[index].startswith("-"):
            gathered.append(argv[index])
            index += 1
    for name, gathered in values.items():
        rest += [name, *gathered]
    return rest
