"""Corpora as they are distributed: a listing of file names becomes pairs; no pixel is read.

An adapter knows one layout: it takes the names below the corpus folder and returns pairs, with the
metadata that the names contain, and the photos that belong to none. To add a corpus, write an
adapter in a file of its own and add one line to `ADAPTERS`.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from degrain.corpora.clean import list_clean
from degrain.corpora.config import Adapter, CorpusOptions, split_name
from degrain.corpora.embedded import list_embedded, write_embedded
from degrain.corpora.listing import FolderNames, Listing
from degrain.corpora.nind import list_nind
from degrain.corpora.noisy import list_noisy
from degrain.corpora.pair_table import TABLE_SUFFIXES, read_pair_table
from degrain.corpora.pairs import describe_unpaired, list_templates
from degrain.corpora.polyu import list_polyu
from degrain.corpora.record import PairRecord
from degrain.corpora.renoir import list_renoir
from degrain.corpora.sidd import list_sidd
from degrain.errors import UserError
from degrain.imaging.codecs import is_photo
from degrain.storage.listing import FileStamp, is_hidden, is_utf8, printable
from degrain.storage.location import Location, Storage

ADAPTERS: dict[Adapter, Callable[[FolderNames], Listing]] = {
    "clean": list_clean,
    "embedded": list_embedded,
    "nind": list_nind,
    "noisy": list_noisy,
    "pairs": list_templates,
    "polyu": list_polyu,
    "renoir": list_renoir,
    "sidd": list_sidd,
}

PUBLISHED: frozenset[Adapter] = frozenset({"embedded", "nind", "polyu", "renoir", "sidd"})
"""Corpora whose names of scenes mean the same under every label."""

ONE_FOLDER: frozenset[Adapter] = frozenset({"renoir", "sidd"})
"""Layouts in which all photos of a pair are in one folder."""


@dataclass(frozen=True)
class Corpus:
    """A corpus the user named: `sidd=s3://bucket/SIDD`."""

    adapter: Adapter
    name: str
    """First part of its pairs' ids and scenes."""
    folder: Location

    @classmethod
    def parse(cls, text: str, storage: Storage) -> "Corpus":
        """Read `ADAPTER=URI` or `ADAPTER:LABEL=URI`. Raises UserError for anything else."""
        adapter, label, uri = split_name(text)
        return cls(adapter, label, storage.locate(uri))

    @property
    def is_table(self) -> bool:
        """Whether a table names the pairs; `folder` is the table then."""
        return self.adapter == "pairs" and self.folder.path.lower().endswith(TABLE_SUFFIXES)

    def list_pairs(self, options: CorpusOptions) -> Listing:
        """List the folder and pair its files, noisy and clean as URIs; photos that belong to none
        begin with examples that are explained.

        Raises UserError if the folder is missing or holds no pair.
        """
        pairs: list[PairRecord] = []
        unplaced: list[str] = []
        for found, left in self.list_parts(options):
            pairs += found
            unplaced += left
        return pairs, unplaced

    def list_parts(self, options: CorpusOptions) -> Iterator[Listing]:
        """The same in parts: by folder where the layout has both photos of a pair in one."""
        if not is_utf8(self.folder.uri):
            raise UserError(
                f"the path '{printable(self.folder.uri)}' is not valid UTF-8; rename it"
            )
        if self.adapter == "embedded":
            write_embedded(self.folder)
        self.folder.check_answers()
        if self.is_table:
            yield self._list_table(), []
            return
        if not self.folder.is_folder():
            raise UserError(
                f"there is no folder '{self.folder}'; check the path of corpus '{self.name}'"
            )
        files, pairs = 0, 0
        examples: list[str] = []
        by_folder = self.adapter in ONE_FOLDER
        for part in self.folder.files_by_folder() if by_folder else [self.folder.files()]:
            found, left = self._list_part(part, options)
            files, pairs = files + len(part), pairs + len(found)
            examples = left[:2]
            yield found, left
        if not pairs and self.adapter == "pairs" and examples:
            raise UserError(
                f"no pairs in '{self.folder}' ({files} files), e.g. {' and '.join(examples)}; "
                "check `noisy_name` and `clean_name`"
            )
        if not pairs:
            raise UserError(
                f"no pairs in '{self.folder}' ({files} files): its names are not those of "
                f"corpus '{self.adapter}'; check the path, or name the files with `corpus` "
                "pairs=URI, `noisy_name` and `clean_name`"
            )

    def _list_part(self, files: Mapping[str, FileStamp], options: CorpusOptions) -> Listing:
        """The pairs among files below the folder."""
        root = self.folder.path.rpartition("/")[2]
        names = [name for name in files if is_photo(name) and not is_hidden(name)]
        readable = [name for name in names if is_utf8(name)]
        pairs, unplaced = ADAPTERS[self.adapter](FolderNames(readable, options, root))
        located = [self._located(pair, files) for pair in pairs]
        left = [*unplaced, *(printable(name) for name in names if not is_utf8(name))]
        if self.adapter == "pairs":
            described = describe_unpaired(unplaced, readable, options)
            examples = [f"{name} ({how})" for name, how in described.items()]
            left = [*examples, *(name for name in left if name not in described)]
        return located, [str(self.folder / name) for name in left]

    def _located(self, pair: PairRecord, files: Mapping[str, FileStamp]) -> PairRecord:
        """The pair with the URIs of its files, with their sizes and times."""
        noisy, clean, uri = files[pair.noisy], files[pair.clean], self.folder.uri
        pair = self._named(pair)
        pair.fill(
            noisy=f"{uri}/{pair.noisy}",
            clean=f"{uri}/{pair.clean}",
            encoded_bytes=noisy.size + clean.size,
            stamp=f"{noisy.stamp} {clean.stamp}",
        )
        return pair

    def _list_table(self) -> list[PairRecord]:
        """The pairs that a table names."""
        rows = read_pair_table(self.folder)
        pairs = [self._named(PairRecord(corpus="pairs", **row)) for row in rows]
        files = self.folder.storage.stamps(
            [uri for pair in pairs for uri in (pair.noisy, pair.clean)]
        )
        return [
            _stamped(pair, files) if pair.noisy in files and pair.clean in files else pair
            for pair in pairs
        ]

    def _named(self, pair: PairRecord) -> PairRecord:
        """The pair with this corpus' label in its id, and in a scene of the user's own."""
        pair.fill(own=self.adapter not in PUBLISHED)
        if self.name == pair.corpus:
            return pair
        id_, scene = (f"{self.name}/{text.split('/', 1)[1]}" for text in (pair.id, pair.scene))
        if self.adapter in PUBLISHED:
            # Parts of a published corpus show the same scenes.
            scene = pair.scene
        return replace(pair, corpus=self.name, id=id_, scene=scene)


def _stamped(pair: PairRecord, files: Mapping[str, FileStamp]) -> PairRecord:
    """The pair with sizes and times of its files, by the names that it has."""
    noisy, clean = files[pair.noisy], files[pair.clean]
    return replace(
        pair, encoded_bytes=noisy.size + clean.size, stamp=f"{noisy.stamp} {clean.stamp}"
    )
