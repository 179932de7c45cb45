"""The YAML file of `--config`: the options that it sets, and the file of given options."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

from degrain.cli.option_types import field_types, flag, is_nested
from degrain.errors import UserError
from denoisenets.suggestions import unknown_name


def with_config_file(argv: list[str], command: type) -> list[str]:
    """Prepend the options from the `--config` file; options in `argv` win."""
    for index, argument in enumerate(argv):
        name, equals, value = argument.partition("=")
        if name != "--config":
            continue
        if not equals:
            value = argv[index + 1] if index + 1 < len(argv) else ""
        if not value:
            return argv
        from_file = list(_yaml_arguments(Path(value), command))
        given = {a.partition("=")[0] for a in argv}
        return [
            a for name, *values in from_file if name not in given for a in (name, *values)
        ] + argv
    return argv


def _yaml_arguments(file: Path, command: type) -> Iterator[list[str]]:
    """The options that a YAML file sets. Raises UserError for what is not YAML, or unknown keys."""
    import yaml

    from degrain.storage.yaml_file import Loader, read_yaml

    class TextLoader(Loader):
        """PyYAML reads 2:8 as a base-60 number, so options use the unparsed scalars."""

    for tag in ("bool", "float", "int", "null", "timestamp"):
        TextLoader.add_constructor(f"tag:yaml.org,2002:{tag}", lambda _, node: node.value)
    try:
        content = file.read_text()
        values = read_yaml(content) or {}
        texts = yaml.load(content, TextLoader) or {}
    except OSError as error:
        raise UserError(f"cannot read '{file}': {error.strerror}; check `config`") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(
            f"cannot read '{file}': {' '.join(str(error).split())}; name a YAML file with `config`"
        ) from None
    yield from _arguments_of(values, texts, command, str(file))


def _arguments_of(
    values: object,
    texts: Any,  # noqa: ANN401 - the same YAML with unparsed scalars
    owner: type,
    file: str,
    prefix: str = "",
) -> Iterator[list[str]]:
    if not isinstance(values, Mapping):
        where = f"'{prefix.rstrip('.')}' in '{file}'" if prefix else f"'{file}'"
        raise UserError(f"{where} must be a mapping of keys to values")
    types = field_types(owner)
    names = [name for name in types if name != "config"]
    for key, value in values.items():
        if key not in names:
            raise UserError(f"{file}: {unknown_name('key', str(key), names, prefix=prefix)}")
        if is_nested(types[key]):
            yield from _arguments_of(value, texts[key], types[key], file, f"{prefix}{key}.")
        elif types[key] is bool:
            yield from _switch(key, value, texts[key], file, prefix)
        else:
            yield _argument(key, value, texts[key], types[key])


def _switch(name: str, value: object, text: object, file: str, prefix: str) -> Iterator[list[str]]:
    """The flag that turns a switch on or off."""
    if not isinstance(value, bool):
        raise UserError(f"{file}: '{prefix}{name}' must be true or false, got '{text}'")
    yield [flag(name) if value else flag(f"no_{name}")]


def _argument(
    name: str,
    value: object,
    text: Any,  # noqa: ANN401 - the value with unparsed scalars
    kind: Any,  # noqa: ANN401 - any type hint
) -> list[str]:
    """An option and its values, as they are written on the command line."""
    if value is None:
        return [flag(name), "None"]
    if isinstance(value, Mapping):
        return [flag(name), json.dumps(value)]
    if isinstance(value, list):
        one_word = tuple[str, ...] in (kind, *get_args(kind))
        return [flag(name), ",".join(text)] if one_word else [flag(name), *text]
    return [flag(name), text]


_OF_ONE_CALL = frozenset({"config", "print_config", "summary", "verbose"})
"""Options that say how one call is made, not what is done."""


def config_text(command: object) -> str:
    """The YAML file that sets the options of a command as they are."""
    import yaml

    text: str = yaml.safe_dump(
        _plain(command), sort_keys=False, allow_unicode=True, default_flow_style=False, width=100
    )
    return text


def _plain(owner: object) -> dict[str, object]:
    """The fields of a config as values of YAML; those of nested configs are mappings."""
    return {
        name: _plain(getattr(owner, name)) if is_nested(kind) else _value(getattr(owner, name))
        for name, kind in field_types(type(owner)).items()
        if name not in _OF_ONE_CALL
    }


def _value(value: Any) -> object:  # noqa: ANN401 - any option's value
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, list | tuple):
        return [_value(item) for item in value]
    # Paths, and types that are read from text and print as it.
    return str(value)
