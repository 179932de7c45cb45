"""What is new in the corpora: pairs that an earlier patch set does not have.

Only names, sizes and times are compared, so that it takes seconds. No photo is read but those whose
noise is measured for `like:` noise.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from degrain.corpora.record import PairRecord
from degrain.patchsets.ingest.config import IngestConfig
from degrain.patchsets.listing import list_corpora
from degrain.patchsets.reading import open_catalog, read_manifest
from degrain.storage.location import Location, Storage
from degrain.storage.retry import retry

_CAMERAS = 4
"""Cameras that a description names."""


@dataclass(frozen=True)
class News:
    """The pairs that were added or changed since a patch set."""

    pairs: Sequence[PairRecord]
    since: str | None
    """Version of that patch set; None if there is none, so that all pairs are new."""
    known: Mapping[str, PairRecord] | None
    """The pairs of that patch set by id."""

    def describe(self) -> str:
        """One line: how many, since when, and of which cameras."""
        if not self.pairs:
            return f"no new pairs since patch set {self.since}"
        counts = Counter(pair.camera or "unknown camera" for pair in self.pairs)
        named = [f"{count} of {camera}" for camera, count in counts.most_common(_CAMERAS)]
        if len(counts) > _CAMERAS:
            named.append("other cameras")
        since = "" if self.since is None else f" since patch set {self.since}"
        return f"{len(self.pairs)} new pairs{since}: {', '.join(named)}"


def find_news(config: IngestConfig, storage: Storage, since: str | None) -> News:
    """Compare the corpora with the catalog of version `since` below the folder of patch sets.

    Raises UserError for a missing folder or a corpus without pairs.
    """
    pairs, _ = retry(lambda: list_corpora(config.corpus, config.options, storage))
    known = read_catalog(storage.locate(config.out), since)
    return News(new_pairs(pairs, known), None if known is None else since, known)


def read_catalog(root: Location, version: str | None) -> Mapping[str, PairRecord] | None:
    """The pairs of a version by id; None if there is none, or if it is not there any more.

    Raises UserError if its files are damaged.
    """
    manifest = None if version is None else read_manifest(root / version)
    if manifest is None:
        return None
    catalog = open_catalog(root / manifest.version, manifest.catalog)
    return {record.id: record for record in catalog}


def new_pairs(
    pairs: Sequence[PairRecord], known: Mapping[str, PairRecord] | None
) -> list[PairRecord]:
    """The pairs that are not among the known ones, or whose files are others."""
    known = known or {}
    return [p for p in pairs if p.id not in known or not p.has_files_of(known[p.id])]
