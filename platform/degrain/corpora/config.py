"""Corpora as the user names them, and how the files of one's own are named.

Only the standard library is imported here: the command line builds its options from these fields.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from degrain.errors import InvalidFieldError, UserError
from denoisenets.suggestions import unknown_name

Adapter: TypeAlias = Literal[
    "clean", "embedded", "nind", "noisy", "pairs", "polyu", "renoir", "sidd"
]
LIKE = "like:"
"""Prefix of a noise that is fitted to the pairs of a patch set, whose URI follows."""


@dataclass(frozen=True, kw_only=True)
class CorpusOptions:
    """How files of a `pairs` corpus are named, and the noise of a `clean` corpus."""

    noisy_name: str = "noisy/{name}"
    """Names of noisy photos in a `pairs` corpus: a template with {scene}, {name}, {camera}, {iso},
    or regex: and named groups."""
    clean_name: str = "clean/{name}"
    """Names of clean photos, with some of the same fields."""
    noise: str = "camera:800,3200,12800"
    """Noise of a `clean` corpus: camera:ISO[,ISO...], gaussian:SIGMA, gaussian:LOW-HIGH,
    poisson:GAIN,READ or like:PATCHSET."""

    def __post_init__(self) -> None:
        if self.noise.startswith(LIKE) or self.noise == CorpusOptions.noise:
            return
        from degrain.imaging.noise_synthesis import expand_noise

        try:
            list(expand_noise(self.noise, "any"))
        except ValueError as error:
            raise InvalidFieldError("noise", str(error).removeprefix("noise ")) from None


def split_name(text: str) -> tuple[Adapter, str, str]:
    """Adapter, label and URI of `ADAPTER=URI` or `ADAPTER:LABEL=URI`.

    Raises UserError for another form or an unknown adapter.
    """
    name, separator, uri = text.partition("=")
    adapter, _, label = name.partition(":")
    if not separator or not uri or "/" in label:
        raise UserError(f"cannot read corpus '{text}': write NAME=URI, e.g. sidd=s3://bucket/SIDD")
    known: tuple[Adapter, ...] = get_args(Adapter)
    for kind in known:
        if kind == adapter:
            return kind, label or adapter, uri
    raise UserError(unknown_name("corpus", adapter, known, plural="corpora"))
