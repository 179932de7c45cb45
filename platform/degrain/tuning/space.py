"""Search spaces: which hyperparameters of a network a study draws, and from which domains.

A space begins as the preset of its network; users change it by a YAML file or a JSON object. Only
the standard library is imported here: the command line reads changes from its options.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

from degrain.domains import Choice, Domain, LogUniform, Uniform, Value
from degrain.errors import UserError
from degrain.inference.config import STARTER
from degrain.presets import STARTER_NETWORK, Fields, Scale, preset
from degrain.training.config import TrainingConfig
from denoisenets.catalog import NETWORKS
from denoisenets.suggestions import unknown_name

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
            if model not in NETWORKS:
                raise UserError(f"spaces: {unknown_name('model', str(model), NETWORKS)}")
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


def search_space(model: str, scale: Scale, changes: SpaceChanges | None = None) -> SearchSpace:
    """The search space of a network, with `changes`.

    Raises ValueError for an unknown name, UserError for changes that the network does not accept.
    """
    from denoisenets import full_arguments

    found: Fields = getattr(preset(model), scale)
    fields = {n: d if isinstance(d, tuple) else (d,) for n, d in found.items()}
    changed = (changes or SpaceChanges()).of(model, full_arguments(model, {}))
    space = SearchSpace(model, {**fields, **changed})
    _check_changes(space, changed)
    return space


def _check_changes(space: SearchSpace, changed: Mapping[str, tuple[Domain, ...]]) -> None:
    """Raise UserError for a value that no training accepts."""
    for name, domains in changed.items():
        for domain in domains:
            _check_condition(space, name, domain)
            values = domain.values if isinstance(domain, Choice) else (domain.low, domain.high)
            for value in values:
                _check_value(space, name, value)


def _check_condition(space: SearchSpace, name: str, domain: Domain) -> None:
    for key in domain.when:
        if key != "start" or name == "start":
            text = unknown_name("condition", key, ["start"])
            raise UserError(f"spaces: {space.model}.{name}: {text}")


def _check_value(space: SearchSpace, name: str, value: object) -> None:
    if name == "start" and value not in (None, STARTER):
        raise UserError(f"spaces: {space.model}.start: must be {STARTER} or null, got '{value}'")
    if name == "start" and value is not None and space.model != STARTER_NETWORK:
        raise UserError(
            f"spaces: {space.model}.start: the starter is a {STARTER_NETWORK}; only that network "
            "can start from it"
        )
    if name in ("batch_size", "crop", "warmup_steps") and not isinstance(value, int):
        raise UserError(f"spaces: {space.model}.{name}: must be a whole number, got {value!r}")
    from denoisenets import full_arguments

    own = full_arguments(space.model, {})
    fields: dict[str, Any] = {"arguments": {name: value}} if name in own else {name: value}
    try:
        TrainingConfig(model=space.model, **fields)
    except (UserError, TypeError) as error:
        raise UserError(f"spaces: {space.model}.{name}: {error}") from None


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
