"""Options out of dataclasses: every field of a command is an option, its docstring the help text.

tyro parses; this module adds the forms that this project uses (comma-separated names, JSON objects,
ranges of workers), YAML files of the same shape, and errors of one line.
"""

import dataclasses
import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar, get_args, get_origin, get_type_hints

import tyro
from tyro import _errors as tyro_errors
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from degrain.errors import UserError
from denoisenets.suggestions import unknown_name

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CommonOptions:
    """Options that every command has."""

    config: Path | None = None
    """YAML file with values of these options, in the shape of the command's fields; options on the
    command line win. None: no file."""
    summary: Path | None = None
    """File to write the result to as JSON. None: no file."""
    verbose: Annotated[bool, tyro.conf.arg(aliases=["-v"])] = False
    """Show the messages of Ray and MLflow too."""


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
    fields = _leaf_fields(command)
    argv = _merge_repeated(_with_config_file(list(argv), command), fields)

    def fail(event: tyro_errors.ParseErrorEvent) -> NoReturn:
        raise UserError(_error_line(event, fields, prog))

    with tyro_errors.on_parse_error(fail):
        parsed = tyro.cli(
            command,
            prog=prog,
            args=argv,
            default=default,
            registry=_registry,
            config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff),
        )
    assert parsed is not None
    return parsed


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
            return f"argument {argument.display_name()}: {unknown_name('value', value, choices)}"
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
    """Tyro's message for a value of the wrong type in one line; others as they are."""
    value = re.search(r"\\['(.*?)'\\]|base 10: '(.*)'|to float: '(.*)'", message)
    if value is None or message.startswith("'"):
        return " ".join(message.split())
    return f"'{next(group for group in value.groups() if group is not None)}' is no number"


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


def option_names(command: type) -> Mapping[str, Any]:
    """The fields of a command that are options, those of its nested configs included."""
    return _leaf_fields(command)


def _leaf_fields(owner: type) -> dict[str, Any]:
    """Type of each option by field name; nested configs are flattened."""
    found: dict[str, Any] = {}
    hints = get_type_hints(owner)
    for field in dataclasses.fields(owner):
        kind = hints[field.name]
        if _is_nested(kind):
            found |= _leaf_fields(kind)
        else:
            found[field.name] = kind
    return found


def _is_nested(kind: Any) -> bool:  # noqa: ANN401 - any type hint
    return dataclasses.is_dataclass(kind) and not hasattr(kind, "METAVAR")


def _merge_repeated(argv: list[str], fields: Mapping[str, Any]) -> list[str]:
    """Gather the values of an option that may be repeated behind its first occurrence.

    tyro would keep the last ones only, without a word.
    """
    repeatable = {flag(name) for name, kind in fields.items() if get_origin(kind) is Sequence}
    values: dict[str, list[str]] = {}
    rest: list[str] = []
    place = 0
    while place < len(argv):
        name, equals, value = argv[place].partition("=")
        place += 1
        if name not in repeatable:
            rest.append(argv[place - 1])
            continue
        gathered = values.setdefault(name, [])
        if equals:
            gathered.append(value)
            continue
        while place < len(argv) and not argv[place].startswith("-"):
            gathered.append(argv[place])
            place += 1
    for name, gathered in values.items():
        rest += [name, *gathered]
    return rest


def _with_config_file(argv: list[str], command: type) -> list[str]:
    """The arguments with those of the YAML file that `--config` names before them."""
    for place, argument in enumerate(argv):
        name, equals, value = argument.partition("=")
        if name != "--config":
            continue
        if not equals:
            value = argv[place + 1] if place + 1 < len(argv) else ""
        if not value:
            return argv
        from_file = list(_yaml_arguments(Path(value), command))
        given = {a.partition("=")[0] for a in argv}
        return [
            a for name, *values in from_file if name not in given for a in (name, *values)
        ] + argv
    return argv


def _yaml_arguments(file: Path, command: type) -> Iterator[list[str]]:
    """The options that a YAML file sets. Raises UserError for what is no YAML, or unknown keys."""
    import yaml

    try:
        text = file.read_text()
        values = yaml.safe_load(text) or {}
        # YAML takes 2:8 for a number of base 60; options are read from the text itself.
        texts = yaml.load(text, yaml.BaseLoader) or {}
    except OSError as error:
        raise UserError(f"cannot read '{file}': {error.strerror}; check `config`") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read '{file}': {' '.join(str(error).split())}") from None
    yield from _arguments_of(values, texts, command, str(file))


def _arguments_of(
    values: object,
    texts: Any,  # noqa: ANN401 - the same YAML as text
    owner: type,
    file: str,
    prefix: str = "",
) -> Iterator[list[str]]:
    if not isinstance(values, Mapping):
        where = f"'{prefix.rstrip('.')}' in '{file}'" if prefix else f"'{file}'"
        raise UserError(f"{where} must be a mapping of keys to values")
    hints = get_type_hints(owner)
    names = [f.name for f in dataclasses.fields(owner) if f.name != "config"]
    for key, value in values.items():
        if key not in names:
            raise UserError(f"{file}: {unknown_name('key', str(key), names, prefix=prefix)}")
        if _is_nested(hints[key]):
            yield from _arguments_of(value, texts[key], hints[key], file, f"{prefix}{key}.")
        else:
            yield from _argument(key, value, texts[key], hints[key])


def _argument(
    name: str,
    value: object,
    text: Any,  # noqa: ANN401 - the value as text
    kind: Any,  # noqa: ANN401 - YAML as text, and a type
) -> Iterator[list[str]]:
    """One option and its values as the command line has them; an unset switch is left out."""
    if isinstance(value, bool):
        if value:
            yield [flag(name)]
    elif value is None:
        yield [flag(name), "None"]
    elif isinstance(value, Mapping):
        yield [flag(name), json.dumps(value)]
    elif isinstance(value, list):
        yield [flag(name), ",".join(text)] if kind == tuple[str, ...] else [flag(name), *text]
    else:
        yield [flag(name), text]
