"""Corpora as they are distributed: from a listing of file names to pairs, touching no pixel.

An adapter knows one layout. It gets the names below the corpus folder and gives pairs with what the names tell of them, and
the photos that it could not place. Adding a corpus is one adapter here and one line in `ADAPTERS`.
"""

import difflib
import re
import string
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TypeAlias

from degrain.data import embedded
from degrain.errors import UserError
from degrain.imaging.codecs import is_photo
from degrain.storage import Location, Storage


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A noisy photo and its clean one, known by name only."""

    id: str
    """Unique over all corpora: `<corpus>/<...>`."""
    corpus: str
    scene: str
    """What was photographed, `<corpus>/<name>`; pairs of one scene stay in one split."""
    noisy: str
    """Where the noisy photo is: a name below the corpus folder, or a URI once the corpus is listed."""
    clean: str
    camera: str | None = None
    iso: int | None = None
    shutter: str | None = None
    brightness: str | None = None
    split: str | None = None
    """The split that the corpus itself prescribes, if it does."""
    encoded_bytes: int = 0
    """Size of both files."""


Listing: TypeAlias = tuple[list[Pair], list[str]]
"""Pairs, and the photos that belong to none."""


@dataclass(frozen=True, kw_only=True)
class CorpusOptions:
    """How files of a generic folder of pairs are named; only the `pairs` adapter reads it."""

    noisy_name: str = "noisy/{name}"
    """Template of noisy names; fields `{scene}`, `{name}`, `{camera}`, `{iso}`."""
    clean_name: str = "clean/{name}"
    """Template of clean names, with some of the same fields."""


def split_name(text: str) -> tuple[str, str]:
    """The adapter's name and the URI in `NAME=URI`. Raises UserError for another form or an unknown name."""
    name, separator, uri = text.partition("=")
    if not separator or not uri:
        raise UserError(f"cannot read corpus '{text}': write NAME=URI, e.g. sidd=s3://bucket/SIDD")
    if name not in ADAPTERS:
        near = difflib.get_close_matches(name, ADAPTERS, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else "."
        raise UserError(f"unknown corpus '{name}'{hint} Known corpora: {', '.join(sorted(ADAPTERS))}")
    return name, uri


@dataclass(frozen=True)
class Corpus:
    """A corpus the user named: `sidd=s3://bucket/SIDD`."""

    adapter: str
    folder: Location

    @classmethod
    def parse(cls, text: str, storage: Storage) -> "Corpus":
        """Read `NAME=URI`. Raises UserError for another form or an unknown name."""
        name, uri = split_name(text)
        return cls(name, storage.locate(uri))

    def list_pairs(self, options: CorpusOptions) -> Listing:
        """List the folder and pair its files, noisy and clean as URIs.

        Raises UserError if the folder is missing or holds no pair.
        """
        if self.adapter == "embedded":
            embedded.write_embedded(self.folder)
        self.folder.check_answers()
        if not self.folder.is_folder():
            raise UserError(f"there is no folder '{self.folder}'; check the path of corpus '{self.adapter}'")
        sizes = self.folder.files()
        pairs, unplaced = ADAPTERS[self.adapter]([name for name in sizes if is_photo(name)], options)
        if not pairs:
            raise UserError(
                f"no pairs in '{self.folder}' ({len(sizes)} files): its names are not those of corpus "
                f"'{self.adapter}'; check the path, or name the files with --corpus pairs=URI --noisy-name --clean-name"
            )
        located = [
            replace(
                pair,
                noisy=str(self.folder / pair.noisy),
                clean=str(self.folder / pair.clean),
                encoded_bytes=sizes[pair.noisy] + sizes[pair.clean],
            )
            for pair in pairs
        ]
        return located, [str(self.folder / name) for name in unplaced]


_SIDD_FILE = re.compile(
    r"(?:^|.*/)(?P<folder>[^/]+)/(?P<prefix>(?:\d+_)?)(?P<kind>NOISY|GT)(?P<rest>_SRGB_(?P<shot>\d+)\.png)$",
    re.IGNORECASE,
)
# <instance>_<scene>_<phone>_<ISO>_<shutter>_<illuminant>_<brightness>
_SIDD_FOLDER = re.compile(r"\d+_(?P<scene>\d+)_(?P<camera>[^_]+)_(?P<iso>\d+)_(?P<shutter>\d+)_\d+_(?P<light>[LNH])$")


def list_sidd(names: Iterable[str], _: CorpusOptions) -> Listing:
    """SIDD Small and Medium, sRGB: `Data/<scene folder>/[NNNN_]{NOISY,GT}_SRGB_NNN.PNG`."""
    known = set(names)
    pairs: list[Pair] = []
    placed: set[str] = set()
    for noisy in sorted(known):
        file = _SIDD_FILE.match(noisy)
        folder = _SIDD_FOLDER.match(file["folder"]) if file else None
        if file is None or folder is None or file["kind"].upper() != "NOISY":
            continue
        stem = noisy[: file.start("kind")]
        clean = f"{stem}{'GT' if file['kind'].isupper() else 'gt'}{file['rest']}"
        if clean not in known:
            continue
        placed |= {noisy, clean}
        pairs.append(
            Pair(
                id=f"sidd/{file['folder']}/{file['shot']}",
                corpus="sidd",
                scene=f"sidd/{folder['scene']}",
                noisy=noisy,
                clean=clean,
                camera=folder["camera"],
                iso=int(folder["iso"]),
                shutter=folder["shutter"],
                brightness=folder["light"],
            )
        )
    return pairs, sorted(known - placed)


_FIELDS = {"scene": r"[^/]+?", "name": r"[^/]+?", "camera": r"[^/]+?", "iso": r"\d+"}


def template_pattern(template: str) -> re.Pattern[str]:
    """A regular expression with named groups for a template such as `noisy/{scene}_ISO{iso}.png`.

    Raises UserError for an unknown field or a template without any.
    """
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
            raise UserError(f"field '{{{name}}}' in '{template}' has a format, which names do not take; write {{{name}}}")
        if name not in _FIELDS:
            raise UserError(f"unknown field '{{{name}}}' in '{template}'; known: {', '.join(sorted(_FIELDS))}")
        pattern += f"(?P={name})" if name in fields else f"(?P<{name}>{_FIELDS[name]})"
        fields.add(name)
    if not fields & {"scene", "name"}:
        raise UserError(f"name template '{template}' tells no photos apart; use {{scene}} or {{name}} in it")
    return re.compile(pattern)


def list_templates(names: Iterable[str], options: CorpusOptions, corpus: str = "pairs") -> Listing:
    """A generic folder of pairs: a noisy name is matched by one template and gives its clean name by the other.

    Several noisy photos may share a clean one. Without `{scene}` in the template each clean photo is a scene.
    """
    noisy_pattern = template_pattern(options.noisy_name)
    if foreign := set(template_pattern(options.clean_name).groupindex) - set(noisy_pattern.groupindex):
        raise UserError(
            f"the clean template '{options.clean_name}' has a field {{{foreign.pop()}}} that the noisy one, "
            f"'{options.noisy_name}', has not; use the same fields"
        )
    known = set(names)
    pairs: list[Pair] = []
    placed: set[str] = set()
    for noisy in sorted(known):
        match = noisy_pattern.fullmatch(noisy)
        if match is None:
            continue
        fields = match.groupdict()
        clean = options.clean_name.format(**fields)
        if clean == noisy or clean not in known:
            continue
        placed |= {noisy, clean}
        pairs.append(
            Pair(
                id=f"{corpus}/{noisy}",
                corpus=corpus,
                scene=f"{corpus}/{fields.get('scene') or clean}",
                noisy=noisy,
                clean=clean,
                camera=fields.get("camera"),
                iso=int(fields["iso"]) if fields.get("iso") else None,
            )
        )
    return pairs, sorted(known - placed)


def list_embedded(names: Iterable[str], options: CorpusOptions) -> Listing:
    """The embedded corpus: templates of its own, and a split fixed by photograph."""
    templates = replace(options, noisy_name=embedded.NOISY_TEMPLATE, clean_name=embedded.CLEAN_TEMPLATE)
    listed = list(names)
    pairs, _unplaced = list_templates(listed, templates, corpus="embedded")
    ours = [
        replace(p, split=embedded.SPLITS[photo])
        for p in pairs
        if (photo := p.scene.removeprefix("embedded/")) in embedded.SPLITS
    ]
    return ours, sorted(set(listed) - {name for p in ours for name in (p.noisy, p.clean)})


ADAPTERS: dict[str, Callable[[Iterable[str], CorpusOptions], Listing]] = {
    "embedded": list_embedded,
    "pairs": list_templates,
    "sidd": list_sidd,
}
"""Adapters by the name that `--corpus NAME=URI` uses."""
