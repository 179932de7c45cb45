"""The error text for an unknown name."""

import difflib
from collections.abc import Iterable


def unknown_name(
    kind: str, name: str, known: Iterable[str], *, plural: str | None = None, prefix: str = ""
) -> str:
    """Return `unknown KIND 'NAME'` with the nearest known name, if any, and all known names.

    `known` is listed in the order given. `plural` is the plural of `kind`, by default with an s;
    `prefix` goes before the name and the nearest one.
    """
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1)
    suggestion = f"; did you mean '{prefix}{near[0]}'?" if near else "."
    listed = f"Known {plural or kind + 's'}: {', '.join(names)}"
    return f"unknown {kind} '{prefix}{name}'{suggestion} {listed}"
