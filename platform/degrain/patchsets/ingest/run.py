"""Ingest: list the corpora, assign splits, reuse what is unchanged, cut the rest, publish."""

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from degrain.corpora.base import Corpus
from degrain.corpora.config import LIKE, CorpusOptions
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
from degrain.patchsets.noise import fit_noises, noise_values
from degrain.patchsets.patch_set import PatchSet
from degrain.patchsets.splits import assign_splits
from degrain.storage.location import Location, Storage
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
    _check_folders(config, root, storage)
    pairs, unplaced = retry(lambda: list_corpora(config, storage))
    previous = retry(lambda: Previous.read(root))
    pairs = _with_splits(pairs, config, previous.splits)
    shards, pending = list[CutShard](), pairs
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


def list_corpora(config: IngestConfig, storage: Storage) -> tuple[list[PairRecord], list[str]]:
    """All pairs of the corpora by id, and the photos that belong to none.

    Raises UserError if two pairs have one id.
    """
    pairs: list[PairRecord] = []
    unplaced: list[str] = []
    options = _with_fitted_noise(config.options, storage)
    for text in config.corpus:
        found, left = Corpus.parse(text, storage).list_pairs(options)
        pairs.extend(found)
        unplaced.extend(left)
    pairs.sort(key=lambda p: p.id)
    for one, other in itertools.pairwise(pairs):
        if one.id == other.id:
            raise UserError(
                f"pair '{one.id}' exists twice; name a corpus once, and two of one kind apart with "
                "`corpus` NAME:LABEL=URI"
            )
    return pairs, unplaced


def _with_fitted_noise(options: CorpusOptions, storage: Storage) -> CorpusOptions:
    """Replace the noise `like:PATCHSET` by noise fitted to that set: a fit per camera and ISO."""
    if not options.noise.startswith(LIKE):
        return options
    measured = PatchSet.open(options.noise.removeprefix(LIKE), storage)
    fits = fit_noises(measured)
    if not fits:
        raise UserError(
            f"patch set {measured.uri} has no real pairs whose noise could be measured; name "
            "another"
        )
    return replace(options, noise=f"fitted:{';'.join(map(noise_values, fits))}")


def _with_splits(
    pairs: Sequence[PairRecord], config: IngestConfig, previous: Mapping[str, str]
) -> list[PairRecord]:
    splits = assign_splits(
        pairs,
        previous=previous,
        val_scenes=config.val_scenes,
        test_scenes=config.test_scenes,
    )
    found = [replace(pair, split=splits[pair.scene]) for pair in pairs]
    for pair in found:
        if pair.unpaired and pair.split != "train":
            raise UserError(
                f"scene '{pair.scene}' cannot be in {pair.split}: its photo has no clean partner "
                "to score by; name another with `val_scenes` and `test_scenes`"
            )
    return found


def _check_folders(config: IngestConfig, root: Location, storage: Storage) -> None:
    """Raise UserError if the output folder is inside a corpus, or a corpus inside of it."""
    for text in config.corpus:
        corpus = Corpus.parse(text, storage)
        if corpus.is_table:
            continue
        if _inside(root, corpus.folder):
            raise UserError(
                f"`out` '{root}' is inside the corpus '{corpus.folder}'; name a folder outside it"
            )
        if _inside(corpus.folder, root):
            raise UserError(
                f"the corpus '{corpus.folder}' is inside `out` '{root}'; name another folder for "
                "patch sets"
            )


def _inside(place: Location, folder: Location) -> bool:
    inner, outer = place.identity.rstrip("/") + "/", folder.identity.rstrip("/") + "/"
    return inner.startswith(outer)
