"""Changes of search spaces that a user writes: a YAML file or a JSON object.

Only the standard library is imported here: the command line reads spaces from its options.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from degrain.errors import UserError
from degrain.tuning.space import TRAINING_FIELDS, Choice, Domain, LogUniform, Uniform
from denoisenets.names import MODEL_NAMES
from denoisenets.suggestions import unknown_name


@dataclass(frozen=True)
class SpaceChanges:
    """Changes of search spaces, by network and field: a YAML file or a JSON object."""

    METAVAR: ClassVar[str] = "FILE|JSON"

    networks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> "SpaceChanges":
        """Read a JSON object, or else the YAML file of that name. Raises UserError."""
        content = _read_json(text) if text.lstrip().startswith("{") else _read_yaml(Path(text))
        return cls(content)

    def __post_init__(self) -> None:
        if not isinstance(self.networks, Mapping):
            raise UserError("`spaces` must be a mapping of networks to fields")
        for model, fields in self.networks.items():
            if model not in MODEL_NAMES:
                raise UserError(f"spaces: {unknown_name('model', str(model), MODEL_NAMES)}")
            if not isinstance(fields, Mapping):
                raise UserError(f"spaces: '{model}' must be a mapping of fields to values")

    def __str__(self) -> str:
        return json.dumps(self.networks)

    def of(self, model: str, arguments: Iterable[str]) -> dict[str, tuple[Domain, ...]]:
        """The changed domains of a network, which has these arguments.

        Raises UserError for unknown fields and keys.
        """
        known = [*arguments, *TRAINING_FIELDS]
        found = {}
        for name, value in self.networks.get(model, {}).items():
            if name not in known:
                unknown = unknown_name("field", str(name), known, prefix=f"{model}.")
                raise UserError(f"spaces: {unknown}")
            try:
                found[name] = _domains(value)
            except (UserError, TypeError, ValueError) as error:
                raise UserError(f"spaces: {model}.{name}: {error}") from None
        return found


def _read_json(text: str) -> Any:  # noqa: ANN401 - any JSON
    try:
        return json.loads(text)
    except ValueError as error:
        raise UserError(f"spaces: this is not JSON ({error})") from None


def _read_yaml(file: Path) -> Any:  # noqa: ANN401 - any YAML
    import yaml

    from degrain.storage.yaml_file import read_yaml

    try:
        return read_yaml(file.read_text()) or {}
    except OSError as error:
        raise UserError(f"cannot read '{file}': {error.strerror}; check `spaces`") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read '{file}': {' '.join(str(error).split())}") from None


_KINDS = {"choice": Choice, "uniform": Uniform, "log_uniform": LogUniform}
_KEYS = (*_KINDS, "default", "when")


def _domains(value: object) -> tuple[Domain, ...]:
    """One value, a list of values, a mapping with a kind, or a list of such mappings."""
    if isinstance(value, Mapping):
        return (_domain(value),)
    if isinstance(value, list) and value and all(isinstance(v, Mapping) for v in value):
        return tuple(_domain(v) for v in value)
    return (Choice(tuple(map(_plain, value if isinstance(value, list) else [value]))),)


def _domain(content: Mapping[str, Any]) -> Domain:
    for key in content:
        if key not in _KEYS:
            raise UserError(unknown_name("key", str(key), _KEYS))
    kinds = [key for key in content if key in _KINDS]
    if len(kinds) != 1:
        raise UserError(f"name one of {', '.join(_KINDS)}, got {', '.join(content) or 'nothing'}")
    (kind,), given = kinds, content[kinds[0]]
    if not isinstance(given, list) or (kind != "choice" and len(given) != 2):
        wanted = "values" if kind == "choice" else "two numbers"
        raise UserError(f"`{kind}` needs a list of {wanted}")
    default, when = _plain(content.get("default")), content.get("when", {})
    if not isinstance(when, Mapping):
        raise UserError("`when` must be a mapping of fields to values")
    if kind == "choice":
        return Choice(tuple(map(_plain, given)), default, when)
    low, high = (float(_plain(v)) for v in given)
    middle = None if default is None else float(default)
    return (LogUniform if kind == "log_uniform" else Uniform)(low, high, middle, when)


def _plain(value: Any) -> Any:  # noqa: ANN401 - a scalar of YAML
    """The scalar; YAML 1.1 reads `1e-3`, which has no point, as a text."""
    if isinstance(value, list | Mapping):
        raise UserError(f"a value must be a number, a text or null, got {value}")
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value
