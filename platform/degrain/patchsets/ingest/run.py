"""Ingest: list the corpora, assign splits, reuse what is unchanged, cut the rest, publish."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from degrain.corpora.record import PairRecord
from degrain.errors import UserError
from degrain.patchsets.ingest.config import IngestConfig
from degrain.patchsets.ingest.cut import CutShard
from degrain.patchsets.ingest.duplicates import resolve_duplicates
from degrain.patchsets.ingest.parallel import cut_in_parallel, make_chunks
from degrain.patchsets.ingest.previous import Previous
from degrain.patchsets.ingest.publish import (
    check_refused,
    check_splits,
    make_manifest,
    publish,
)
from degrain.patchsets.listing import check_apart, list_corpora
from degrain.patchsets.packed import transform
from degrain.patchsets.patch_set import PatchSet
from degrain.patchsets.splits import assign_splits
from degrain.storage.location import Storage
from degrain.storage.retry import retry


@dataclass(frozen=True)
class IngestResult:
    """The outcome of an ingest."""

    patch_set: PatchSet
    unplaced: list[str]
    """Photos that belong to no pair."""
    reused: bool
    """Whether the set existed already."""
    cut: int
    """Pairs that were read; the others were known."""
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
    refused pairs. A set that exists is left as it is, except for damaged files and photos that
    moved.
    """
    began = time.monotonic()
    root = storage.locate(config.out)
    root.check_writable()
    check_apart(config.corpus, root)
    pairs, unplaced = retry(lambda: list_corpora(config.corpus, config.options, storage))
    previous = retry(lambda: Previous.read(root))
    pairs = with_splits(pairs, config, previous.splits)
    shards: list[CutShard] = []
    pending = pairs
    if not config.reread:
        shards, pending = retry(lambda: previous.reuse(pairs, config, root))
    done = len(pairs) - len(pending)
    for cut in cut_in_parallel(make_chunks(pending), root, config.geometry, config.rules):
        shards.append(cut)
        done += len(cut.records)
        progress(done, len(pairs))
    resolved = resolve_duplicates(shards, previous.records)
    again = cut_in_parallel(resolved.chunks, root, config.geometry, config.rules)
    shards = [*resolved.shards, *again]
    records = sorted((r for shard in shards for r in shard.records), key=lambda r: r.id)
    check_refused(records, config.max_refused)
    check_splits(records)
    manifest = make_manifest(config, records, [s.shard for s in shards if s.shard is not None])
    before_publishing()
    patch_set, reused = retry(lambda: publish(root, manifest, records))
    return IngestResult(patch_set, unplaced, reused, len(pending), time.monotonic() - began)


def with_splits(
    pairs: Sequence[PairRecord], config: IngestConfig, previous: Mapping[str, str]
) -> Sequence[PairRecord]:
    """The pairs with their splits. Raises UserError for a scene that cannot be in its split."""
    splits = assign_splits(
        pairs,
        previous=previous,
        val_scenes=config.val_scenes,
        test_scenes=config.test_scenes,
    )
    return transform(pairs, partial(_set_split, splits=splits))


def _set_split(table: pa.Table, splits: Mapping[str, str]) -> pa.Table:
    place = table.schema.get_field_index("split")
    values = [splits[scene] for scene in table["scene"].to_pylist()]
    table = table.set_column(place, table.schema.field(place), pa.array(values, pa.string()))
    # `PairRecord.unpaired`, but not in train.
    unpaired = pc.and_(pc.equal(table["noisy"], table["clean"]), pc.is_null(table["noise"]))
    wrong = table.filter(pc.and_(unpaired, pc.not_equal(table["split"], "train")))
    for pair in wrong.slice(0, 1).to_pylist():
        raise UserError(
            f"scene '{pair['scene']}' cannot be in {pair['split']}: its photo has no clean partner "
            "to score by; name another with `val_scenes` and `test_scenes`"
        )
    return table
