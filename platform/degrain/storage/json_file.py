"""Encoding of JSON files."""

import json
import math
from collections.abc import Mapping


def json_bytes(content: object) -> bytes:
    """Encode content as indented JSON; infinities and NaN, which JSON lacks, become null."""
    return json.dumps(_finite(content), indent=1, allow_nan=False).encode() + b"\n"


def json_line(content: object) -> str:
    """Encode content as JSON on one line, in the same way."""
    return json.dumps(_finite(content), allow_nan=False)


def _finite(content: object) -> object:
    if isinstance(content, Mapping):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
