"""Ingest: list the corpora, assign splits, reuse what is unchanged, cut the rest, publish."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from degrain.corpora.record import PairRecord
from degrain.patchsets.catalog import write_catalog
from degrain.patchsets.ingest.assign import split_by_look, split_by_name, with_splits
from degrain.patchsets.ingest.config import IngestConfig
from degrain.patchsets.ingest.cut import CutShard
from degrain.patchsets.ingest.duplicates import resolve_duplicates
from degrain.patchsets.ingest.memory import SplitMemory
from degrain.patchsets.ingest.parallel import cut_in_parallel, make_chunks
from degrain.patchsets.ingest.previous import Previous
from degrain.patchsets.ingest.publish import (
    check_refused,
    check_splits,
    make_manifest,
    publish,
    remove_leftovers,
)
from degrain.patchsets.listing import check_apart, list_corpora
from degrain.patchsets.packed import columns
from degrain.patchsets.patch_set import PatchSet
from degrain.storage.lease import exclusive
from degrain.storage.location import Location, Storage
from degrain.storage.retry import retry


@dataclass(frozen=True)
class IngestResult:
    """The outcome of an ingest."""

    patch_set: PatchSet
    unplaced: list[str]
    """Photos that belong to no pair."""
    reused: bool
    """Whether the set existed already, with all its files whole."""
    cut: int
    """Pairs that were read; the others were known."""
    alike: int
    """Scenes that show what another scene shows."""
    moves: list[str]
    """Scenes that are in another split than is remembered, in words."""
    seconds: float


def ingest(
    config: IngestConfig,
    storage: Storage,
    *,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
    before_publishing: Callable[[], None] = lambda: None,
) -> IngestResult:
    """Make the patch set of the corpora, or find it; starts Ray if there is something to cut.

    `progress` gets (pairs done, pairs in all); `before_publishing` may raise, and nothing is
    published then. Raises UserError for a missing folder, a corpus without pairs, or too many
    refused pairs, and JobFailedError if another ingest into the folder is running. A set that
    exists is left as it is, except for damaged files and photos that moved.
    """
    root = storage.locate(config.out)
    root.check_writable()
    check_apart(config.corpus, root)
    with exclusive(root / "ingest.lock", "ingest") as lease:

        def check() -> None:
            lease.check()
            before_publishing()

        return _ingest(config, root, progress, check)


def _ingest(
    config: IngestConfig,
    root: Location,
    progress: Callable[[int, int], None],
    before_publishing: Callable[[], None],
) -> IngestResult:
    began = time.monotonic()
    remove_leftovers(root)
    pairs, unplaced = retry(lambda: list_corpora(config.corpus, config.options, root.storage))
    previous = retry(lambda: Previous.read(root))
    prescribed = dict(columns(pairs, "scene", "split"))
    memory = retry(lambda: SplitMemory.read(root))
    # For what is wrong with names of scenes; what photos show is not known yet.
    pairs = with_splits(pairs, split_by_name(pairs, config, memory))
    reuse = retry(lambda: previous.find_reuse(pairs, config, root))
    shards = reuse.shards()
    done = len(pairs) - len(reuse.pending)
    chunks = make_chunks(reuse.pending, reuse.together)
    for cut in cut_in_parallel(chunks, root, config.geometry, config.rules):
        shards.append(cut)
        done += len(cut.records)
        progress(done, len(pairs))
    resolved = resolve_duplicates(shards, previous.records)
    again = cut_in_parallel(resolved.chunks, root, config.geometry, config.rules)
    shards = [*resolved.shards, *again]
    splits = split_by_look(_records(shards), config, memory, prescribed)
    shards = [shard.with_split(splits.of) for shard in shards]
    records = _records(shards)
    check_refused(records, config.max_refused)
    check_splits(records)
    catalog = write_catalog(records)
    made = [s.shard for s in shards if s.shard is not None]
    manifest = make_manifest(config, records, made, catalog)
    before_publishing()
    if (remembered := memory.with_splits(splits.of, splits.photos)) != memory:
        retry(lambda: remembered.write(root))
    patch_set, existed = retry(lambda: publish(root, manifest, catalog))
    return IngestResult(
        patch_set,
        unplaced,
        existed and not any(shard.written for shard in shards),
        len(reuse.pending),
        splits.alike,
        splits.moves,
        time.monotonic() - began,
    )


def _records(shards: Iterable[CutShard]) -> list[PairRecord]:
    """The pairs of all shards, by id."""
    return sorted((r for shard in shards for r in shard.records), key=lambda r: r.id)
