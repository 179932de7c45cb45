"""What is new in the corpora: pairs that an earlier patch set does not have.

Only names, sizes and times are compared, so that it takes seconds and reads no photo.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from degrain.corpora.record import PairRecord
from degrain.errors import UserError
from degrain.patchsets.ingest.config import IngestConfig
from degrain.patchsets.listing import list_corpora
from degrain.patchsets.patch_set import open_catalog
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
    known = {} if since is None else _catalog(storage.locate(config.out), since)
    if known is None:
        return News(pairs, None)
    return News([pair for pair in pairs if _is_new(pair, known.get(pair.id))], since)


def _catalog(root: Location, version: str) -> Mapping[str, PairRecord] | None:
    """The pairs of a patch set by id; None if it is not there any more."""
    try:
        return {record.id: record for record in open_catalog(root, version)}
    except UserError:
        return None


def _is_new(pair: PairRecord, before: PairRecord | None) -> bool:
    return before is None or not pair.has_files_of(before)
