"""File name patterns: templates such as `noisy/{scene}_ISO{iso}.png`, or regular expressions."""

import re
import string
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping

from degrain.corpora.listing import folded
from degrain.errors import UserError

REGEX = "regex:"
_FIELDS = {"scene": r"[^/]+?", "name": r"[^/]+?", "camera": r"[^/]+?", "iso": r"\d+"}


def compile_template(template: str) -> re.Pattern[str]:
    """Compile a template, or the regular expression after `regex:`, to a pattern with named groups.

    Raises UserError for an unknown field, or if neither `scene` nor `name` is a field.
    """
    if template.startswith(REGEX):
        return _check_fields(_compile_regex(template.removeprefix(REGEX)), template)
    pattern, fields = "", set[str]()
    try:
        parsed = list(string.Formatter().parse(template))
    except ValueError as error:
        raise UserError(f"cannot read name template '{template}': {error}") from None
    for literal, name, format_spec, conversion in parsed:
        pattern += re.escape(literal)
        if name is None:
            continue
        if format_spec or conversion:
            raise UserError(
                f"field '{{{name}}}' in '{template}' has a format, which is not supported; write "
                f"{{{name}}}"
            )
        if name not in _FIELDS:
            raise UserError(
                f"unknown field '{{{name}}}' in '{template}'; known: {', '.join(sorted(_FIELDS))}"
            )
        pattern += f"(?P={name})" if name in fields else f"(?P<{name}>{_FIELDS[name]})"
        fields.add(name)
    return _check_fields(re.compile(pattern), template)


def _compile_regex(expression: str) -> re.Pattern[str]:
    try:
        return re.compile(expression)
    except re.error as error:
        raise UserError(f"cannot read regular expression '{expression}': {error}") from None


def _check_fields(pattern: re.Pattern[str], template: str) -> re.Pattern[str]:
    if unknown := set(pattern.groupindex) - set(_FIELDS):
        raise UserError(
            f"unknown group '{min(unknown)}' in '{template}'; known: {', '.join(sorted(_FIELDS))}"
        )
    if not set(pattern.groupindex) & {"scene", "name"}:
        fields = "{scene} or {name}"
        if template.startswith(REGEX):
            fields = "(?P<scene>...) or (?P<name>...)"
        raise UserError(f"name template '{template}' does not identify photos; use {fields} in it")
    return pattern


def matching_names(
    names: Iterable[str], pattern: re.Pattern[str], values: Mapping[str, str | None]
) -> list[str]:
    """The names that a pattern reads as these values, whatever their case and accents."""
    wanted = {field: folded(values[field] or "") for field in pattern.groupindex}
    matches = map(pattern.fullmatch, names)
    return [m[0] for m in matches if m and {f: folded(m[f] or "") for f in wanted} == wanted]


def clean_name_finder(
    names: Iterable[str], template: str, noisy: re.Pattern[str]
) -> Callable[[Mapping[str, str | None]], str | None]:
    """Return a function that finds the clean name with the same field values as a noisy name.

    A name whose values differ in case, or in how accents are encoded, is found if it is the only
    one. Raises UserError if the clean template has a field that the noisy one lacks.
    """
    pattern = compile_template(template)
    if foreign := set(pattern.groupindex) - set(noisy.groupindex):
        raise UserError(
            f"the clean template '{template}' has a field {{{min(foreign)}}} that the noisy one "
            "lacks; use the same fields"
        )
    fields = sorted(pattern.groupindex)
    exact: dict[tuple[str, ...], list[str]] = defaultdict(list)
    alike: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for name in names:
        if match := pattern.fullmatch(name):
            key = tuple(match[f] or "" for f in fields)
            exact[key].append(name)
            alike[tuple(map(folded, key))].append(name)

    def find(values: Mapping[str, str | None]) -> str | None:
        key = tuple(values[f] or "" for f in fields)
        found = exact.get(key) or alike.get(tuple(map(folded, key)), [])
        return found[0] if len(found) == 1 else None

    return find
