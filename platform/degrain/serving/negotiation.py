"""Content negotiation: the format of the answer by the header `Accept` (RFC 9110, 12.5.1)."""

from typing import get_args

from degrain.imaging.writers import MEDIA_TYPES
from degrain.inference.config import OutputFormat
from degrain.serving.uploads import ALIASES, RefusedError

FORMATS: dict[str, OutputFormat] = {MEDIA_TYPES[name]: name for name in get_args(OutputFormat)}
"""Media type to the name of the output format."""
_WHATEVER = ("*/*", "image/*")


def choose_format(accept: str | None) -> OutputFormat | None:
    """The name of the format that the client prefers; None: that of its photo.

    Of equally preferred types the first counts. Raises RefusedError if none can be written.
    """
    if accept is None or not accept.strip():
        return None
    offers = [_parse(part) for part in accept.split(",")]
    for media_type, quality in sorted(offers, key=lambda offer: -offer[1]):
        if quality <= 0:
            continue
        if media_type in _WHATEVER:
            return None
        if (known := ALIASES.get(media_type, media_type)) in FORMATS:
            return FORMATS[known]
    raise RefusedError(
        406, f"Accept names no type that can be written; name one of {', '.join(FORMATS)}, or */*"
    )


def _parse(part: str) -> tuple[str, float]:
    """Media type and quality; parameters other than `q` do not matter, a broken `q` counts as 0."""
    media_type, *parameters = (text.strip().lower() for text in part.split(";"))
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return media_type, float(value)
            except ValueError:
                return media_type, 0.0
    return media_type, 1.0
