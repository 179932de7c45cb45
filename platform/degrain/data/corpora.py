"""Corpora as they are distributed: from a listing of file names to pairs, touching no pixel.

An adapter knows one layout. It gets the names below the corpus folder and gives pairs with what the names tell of them, and
the photos that it could not place. Adding a corpus is one adapter here and one line in `ADAPTERS`.
"""

import difflib
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from sys import intern
from typing import TypeAlias

from degrain.data import embedded
from degrain.data.tables import TABLE_SUFFIXES, read_pair_table
from degrain.data.templates import clean_names, template_pattern
from degrain.errors import UserError
from degrain.imaging.codecs import is_photo
from degrain.imaging.synthesis import expand_noise
from degrain.storage import FileStamp, Location, Storage

LIKE = "like:"
"""Begins a noise that is fitted to the pairs of the patch set whose URI follows."""


@dataclass(frozen=True, kw_only=True, slots=True)
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
    """The same for the clean photo."""
    camera: str | None = None
    iso: int | None = None
    shutter: str | None = None
    brightness: str | None = None
    split: str | None = None
    """The split that the corpus itself prescribes, if it does."""
    noise: str | None = None
    """The noise that makes the noisy photo of the clean one, see `imaging.synthesis`; None for a real pair."""
    encoded_bytes: int = 0
    """Size of both files."""
    stamp: str = ""
    """Sizes and times of both files: while it stays the same they are not read again. Empty if unknown."""


Listing: TypeAlias = tuple[list[Pair], list[str]]
"""Pairs, and the photos that belong to none."""


@dataclass(frozen=True, kw_only=True)
class CorpusOptions:
    """How files of a corpus of one's own are named, and what noise a corpus of clean photos gets."""

    noisy_name: str = "noisy/{name}"
    """Template of noisy names, fields `{scene}`, `{name}`, `{camera}`, `{iso}`; or `regex:` and named groups."""
    clean_name: str = "clean/{name}"
    """The same for clean names, with some of the same fields."""
    noise: str = "camera:800,3200,12800"
    """Noise for clean photos, see `imaging.synthesis`; or `like:PATCHSET`."""

    def __post_init__(self) -> None:
        if not self.noise.startswith(LIKE):
            list(expand_noise(self.noise, "any"))


def split_name(text: str) -> tuple[str, str, str]:
    """The adapter's name, the corpus' own name and the URI in `ADAPTER=URI` or `ADAPTER:NAME=URI`.

    Raises UserError for another form or an unknown adapter.
    """
    name, separator, uri = text.partition("=")
    adapter, _, label = name.partition(":")
    if not separator or not uri or "/" in label:
        raise UserError(f"cannot read corpus '{text}': write NAME=URI, e.g. sidd=s3://bucket/SIDD")
    if adapter not in ADAPTERS:
        near = difflib.get_close_matches(adapter, ADAPTERS, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else "."
        raise UserError(f"unknown corpus '{adapter}'{hint} Known corpora: {', '.join(sorted(ADAPTERS))}")
    return adapter, label or adapter, uri


@dataclass(frozen=True)
class Corpus:
    """A corpus the user named: `sidd=s3://bucket/SIDD`."""

    adapter: str
    name: str
    """First part of its pairs' ids and scenes."""
    folder: Location

    @classmethod
    def parse(cls, text: str, storage: Storage) -> "Corpus":
        """Read `ADAPTER=URI` or `ADAPTER:NAME=URI`. Raises UserError for another form or an unknown adapter."""
        adapter, name, uri = split_name(text)
        return cls(adapter, name, storage.locate(uri))

    def list_pairs(self, options: CorpusOptions) -> Listing:
        """List the folder and pair its files, noisy and clean as URIs.

        Raises UserError if the folder is missing or holds no pair.
        """
        if self.adapter == "embedded":
            embedded.write_embedded(self.folder)
        self.folder.check_answers()
        if self.adapter == "pairs" and self.folder.path.lower().endswith(TABLE_SUFFIXES):
            return self._list_table(), []
        if not self.folder.is_folder():
            raise UserError(f"there is no folder '{self.folder}'; check the path of corpus '{self.name}'")
        files = self.folder.files()
        root = self.folder.path.rpartition("/")[2]
        pairs, unplaced = ADAPTERS[self.adapter]([name for name in files if is_photo(name)], options, root)
        if not pairs:
            raise UserError(
                f"no pairs in '{self.folder}' ({len(files)} files): its names are not those of corpus "
                f"'{self.adapter}'; check the path, or name the files with --corpus pairs=URI --noisy-name --clean-name"
            )
        located = [
            replace(
                self._named(_stamped(pair, files)), noisy=str(self.folder / pair.noisy), clean=str(self.folder / pair.clean)
            )
            for pair in pairs
        ]
        return located, [str(self.folder / name) for name in unplaced]

    def _list_table(self) -> list[Pair]:
        """The pairs that a table names."""
        rows = read_pair_table(self.folder)
        pairs = [self._named(Pair(corpus="pairs", **row)) for row in rows]
        files = self.folder.storage.stamps([uri for pair in pairs for uri in (pair.noisy, pair.clean)])
        return [_stamped(pair, files) if pair.noisy in files and pair.clean in files else pair for pair in pairs]

    def _named(self, pair: Pair) -> Pair:
        """The pair with this corpus' own name in its id and scene."""
        if self.name == pair.corpus:
            return pair
        id_, scene = (f"{self.name}/{text.split('/', 1)[1]}" for text in (pair.id, pair.scene))
        return replace(pair, corpus=self.name, id=id_, scene=scene)


def _stamped(pair: Pair, files: Mapping[str, FileStamp]) -> Pair:
    """The pair with sizes and times of its files, which are looked up by the names that it has."""
    noisy, clean = files[pair.noisy], files[pair.clean]
    return replace(pair, encoded_bytes=noisy.size + clean.size, stamp=f"{noisy.stamp} {clean.stamp}")


class _Names:
    """Photo names of a listing; a name that differs in case only is found too, where there is but one."""

    def __init__(self, names: Iterable[str]) -> None:
        self._known = {name: name for name in names}
        self._placed: set[str] = set()

    @cached_property
    def _folded(self) -> dict[str, list[str]]:
        """Names by what is left when case is ignored; made when first needed, because a listing can be very long."""
        folded: dict[str, list[str]] = defaultdict(list)
        for name in self._known:
            folded[name.casefold()].append(name)
        return folded

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._known))

    def find(self, name: str) -> str | None:
        if name in self._known:
            return self._known[name]
        alike = self._folded.get(name.casefold(), [])
        return alike[0] if len(alike) == 1 else None

    def place(self, *names: str) -> None:
        self._placed.update(names)

    def unplaced(self) -> list[str]:
        return sorted(self._known.keys() - self._placed)


_SIDD_FILE = re.compile(
    r"(?:^|.*/)(?P<folder>[^/]+)/(?P<prefix>(?:\d+_)?)(?P<kind>NOISY|GT)(?P<rest>_SRGB_(?P<shot>\d+)\.png)$",
    re.IGNORECASE,
)
# <instance>_<scene>_<phone>_<ISO>_<shutter>_<illuminant>_<brightness>
_SIDD_FOLDER = re.compile(r"\d+_(?P<scene>\d+)_(?P<camera>[^_]+)_(?P<iso>\d+)_(?P<shutter>\d+)_\d+_(?P<light>[LNH])$")


def list_sidd(names: Iterable[str], _: CorpusOptions, __: str = "") -> Listing:
    """SIDD Small and Medium, sRGB: `Data/<scene folder>/[NNNN_]{NOISY,GT}_SRGB_NNN.PNG`."""
    known = _Names(names)
    pairs: list[Pair] = []
    for noisy in known:
        file = _SIDD_FILE.match(noisy)
        folder = _SIDD_FOLDER.match(file["folder"]) if file else None
        if file is None or folder is None or file["kind"].upper() != "NOISY":
            continue
        clean = known.find(f"{noisy[: file.start('kind')]}GT{file['rest']}")
        if clean is None:
            continue
        known.place(noisy, clean)
        pairs.append(
            Pair(
                id=f"sidd/{file['folder']}/{file['shot']}",
                corpus="sidd",
                scene=intern(f"sidd/{folder['scene']}"),
                noisy=noisy,
                clean=clean,
                camera=intern(folder["camera"]),
                iso=int(folder["iso"]),
                shutter=intern(folder["shutter"]),
                brightness=folder["light"],
            )
        )
    return pairs, known.unplaced()


_RENOIR_FILE = re.compile(r"(?P<folder>(?:.*/)?[^/]+)/[^/]*(?P<kind>Noisy|Reference|Mask)\d*\.\w+$", re.IGNORECASE)
_RENOIR_CAMERA = re.compile(r"(?:^|/)(?P<camera>[^/]+)_Aligned/", re.IGNORECASE)


def list_renoir(names: Iterable[str], _: CorpusOptions, root: str = "") -> Listing:
    """RENOIR: `<camera>_Aligned/Batch_NNN/` with one `*Reference.bmp`, one or more `*Noisy.bmp`, and masks, left aside."""
    known = _Names(names)
    folders: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for name in known:
        if file := _RENOIR_FILE.match(name):
            folders[file["folder"]][file["kind"].lower()].append(name)
    pairs: list[Pair] = []
    for folder, kinds in folders.items():
        known.place(*kinds["mask"])
        if len(kinds["reference"]) != 1 or not kinds["noisy"]:
            continue
        camera = _RENOIR_CAMERA.search(f"{root}/{folder}/")
        where = f"renoir/{camera['camera']}/" if camera else "renoir/"
        batch = folder.rpartition("/")[2]
        known.place(*kinds["reference"], *kinds["noisy"])
        pairs.extend(
            Pair(
                id=f"{where}{batch}/{noisy.rpartition('/')[2].rpartition('.')[0]}",
                corpus="renoir",
                scene=f"{where}{batch}",
                noisy=noisy,
                clean=kinds["reference"][0],
                camera=camera["camera"] if camera else None,
            )
            for noisy in kinds["noisy"]
        )
    return pairs, known.unplaced()


_NIND_FILE = re.compile(
    r"(?P<folder>(?:.*/)?)NIND_(?P<scene>[^/]+)_ISO(?P<high>H?)(?P<iso>\d+)(?:-(?P<shot>\d+))?\.\w+$", re.IGNORECASE
)


def list_nind(names: Iterable[str], _: CorpusOptions, __: str = "") -> Listing:
    """NIND: `NIND_<scene>_ISO<value>[-<shot>].{png,jpg,tif}`; the lowest ISO of a scene is the clean photo of all others.

    Of several shots at the lowest ISO the first is taken and the others are left. `H1` and `H2` lie above the numbers and
    stand for no known ISO.
    """
    known = _Names(names)
    scenes: dict[str, list[tuple[tuple[bool, int], int, str]]] = defaultdict(list)
    for name in known:
        if file := _NIND_FILE.match(name):
            level = (bool(file["high"]), int(file["iso"]))
            scenes[f"{file['folder']}{file['scene']}"].append((level, int(file["shot"] or 0), name))
    pairs: list[Pair] = []
    for scene, shots in scenes.items():
        shots.sort()
        lowest, _shot, clean = shots[0]
        for level, _shot, noisy in shots:
            if level == lowest:
                continue
            known.place(noisy, clean)
            pairs.append(
                Pair(
                    id=f"nind/{noisy}",
                    corpus="nind",
                    scene=f"nind/{scene}",
                    noisy=noisy,
                    clean=clean,
                    iso=None if level[0] else level[1],
                )
            )
    return pairs, known.unplaced()


_POLYU_FILE = re.compile(
    r"(?:^|.*/)(?P<camera>[^/]+?)_(?P<aperture>[\d-]+)_(?P<shutter>\d+)_(?P<iso>\d+)_(?P<scene>[^/]+?)_+(?P<shot>\d+)_"
    r"(?P<kind>real|mean)\.\w+$",
    re.IGNORECASE,
)


def list_polyu(names: Iterable[str], _: CorpusOptions, __: str = "") -> Listing:
    """PolyU: `<camera>_<aperture>_<shutter>_<ISO>_<scene>_<shot>_{real,mean}.JPG`; `real` is noisy, `mean` clean.

    Several cameras photographed the same things, so that a scene is what its name says, whatever the camera.
    """
    known = _Names(names)
    pairs: list[Pair] = []
    for noisy in known:
        file = _POLYU_FILE.match(noisy)
        if file is None or file["kind"].lower() != "real":
            continue
        clean = known.find(f"{noisy[: file.start('kind')]}mean{noisy[file.end('kind') :]}")
        if clean is None:
            continue
        known.place(noisy, clean)
        pairs.append(
            Pair(
                id=f"polyu/{noisy.rpartition('_')[0]}",
                corpus="polyu",
                scene=f"polyu/{file['scene'].lower()}",
                noisy=noisy,
                clean=clean,
                camera=file["camera"],
                iso=int(file["iso"]),
                shutter=file["shutter"],
            )
        )
    return pairs, known.unplaced()


def list_templates(names: Iterable[str], options: CorpusOptions, _: str = "", corpus: str = "pairs") -> Listing:
    """A generic folder of pairs: a noisy name is matched by one template and finds its clean name by the other.

    Several noisy photos may share a clean one. Without `{scene}` in the template each clean photo is a scene.
    """
    known = _Names(names)
    pattern = template_pattern(options.noisy_name)
    find_clean = clean_names(known, options.clean_name, pattern)
    pairs: list[Pair] = []
    for noisy in known:
        match = pattern.fullmatch(noisy)
        clean = find_clean(match.groupdict()) if match else None
        if match is None or clean is None or clean == noisy:
            continue
        known.place(noisy, clean)
        fields: Mapping[str, str | None] = match.groupdict()
        pairs.append(
            Pair(
                id=f"{corpus}/{noisy}",
                corpus=corpus,
                scene=f"{corpus}/{fields.get('scene') or clean}",
                noisy=noisy,
                clean=clean,
                camera=fields.get("camera"),
                iso=int(iso) if (iso := fields.get("iso")) and iso.isdecimal() else None,
            )
        )
    return pairs, known.unplaced()


def list_clean(names: Iterable[str], options: CorpusOptions, _: str = "") -> Listing:
    """Clean photos alone, each a scene, made noisy by `options.noise`: one pair for each of its levels."""
    pairs = [
        Pair(
            id=f"clean/{name}#{noise}",
            corpus="clean",
            scene=f"clean/{name}",
            noisy=name,
            clean=name,
            camera="synthetic",
            iso=iso,
            noise=noise,
        )
        for name in sorted(names)
        for noise, iso in expand_noise(options.noise, name)
    ]
    return pairs, []


def list_embedded(names: Iterable[str], options: CorpusOptions, _: str = "") -> Listing:
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


Adapter: TypeAlias = Callable[[Sequence[str], CorpusOptions, str], Listing]

ADAPTERS: dict[str, Adapter] = {
    "clean": list_clean,
    "embedded": list_embedded,
    "nind": list_nind,
    "pairs": list_templates,
    "polyu": list_polyu,
    "renoir": list_renoir,
    "sidd": list_sidd,
}
"""By the name that `--corpus NAME=URI` uses; each gets the photos' names below the folder, and the folder's name."""
