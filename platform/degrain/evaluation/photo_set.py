"""The photos of an evaluation: a split of a patch set, or the pairs of corpora.

A patch set has refused bad pairs before. Of corpora every pair is read, hashed and checked by the
same rules here, and a pair that cannot be scored is an error: a mean over the others would look
like the mean over the corpus.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import ray
from mlflow.entities import DatasetInput

from degrain import cluster
from degrain.corpora.config import CorpusOptions, split_name
from degrain.corpora.record import PairRecord
from degrain.errors import JobFailedError, UserError
from degrain.imaging.metrics import WINDOW
from degrain.imaging.stored_photo import UnreadablePhotoError
from degrain.patchsets.check_rules import CheckRules
from degrain.patchsets.ingest.duplicates import find_duplicates
from degrain.patchsets.listing import list_corpora
from degrain.patchsets.pair_files import check_pair, read_files
from degrain.patchsets.patch_set import PatchSet
from degrain.patchsets.photos import PhotoSource
from degrain.spacing import evenly_spaced
from degrain.storage.location import Storage
from degrain.storage.retry import retry
from degrain.tracking.datasets import pair_inputs, patch_set_inputs


@dataclass(frozen=True, kw_only=True)
class PhotoSet:
    """Pairs to score, the reader of their photos, and how pages and runs name them."""

    pairs: Sequence[PairRecord]
    source: PhotoSource
    title: str
    """`test photos of patch set 1a2b`."""
    name: str
    """Last part of the run's name."""
    metrics: str
    """First part of the metrics' names: the split, or `pairs`."""
    tags: Mapping[str, str]
    """Tags of the run."""
    datasets: Sequence[DatasetInput]
    """Inputs of the run."""
    left_out: Sequence[str] = field(default_factory=list)
    """Reasons why pairs are not scored."""


def split_photos(patch_set: PatchSet, split: str, most: int) -> PhotoSet:
    """At most `most` photos of a split, evenly spaced.

    Raises UserError if there is none, or if a file is missing or changed.
    """
    rows = patch_set.photos(split)
    if not rows:
        raise UserError(
            f"patch set {patch_set.uri} has no photos in its {split} split; ingest more scenes, or "
            "name another `split`"
        )
    pairs = [rows[i] for i in evenly_spaced(len(rows), most)]
    patch_set.source.check(pairs)
    version = patch_set.manifest.version
    return PhotoSet(
        pairs=pairs,
        source=patch_set.source,
        title=f"{split} photos of patch set {version}",
        name=version,
        metrics=split,
        tags={"patch_set": version},
        datasets=patch_set_inputs(patch_set, (split,)),
    )


def corpus_photos(
    corpora: Sequence[str],
    options: CorpusOptions,
    rules: CheckRules,
    storage: Storage,
    *,
    most: int,
    progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> PhotoSet:
    """At most `most` pairs of the corpora NAME=URI, evenly spaced, without duplicates.

    Starts Ray to read them. Raises UserError if a folder is missing or has no pairs, or if a pair
    cannot be scored.
    """
    listed, unplaced = retry(lambda: list_corpora(corpora, options, storage))
    for pair in listed:
        if pair.unpaired:
            raise UserError(
                f"corpus '{pair.corpus}' has no clean photos to score by; name a corpus of pairs"
            )
    chosen = [listed[i] for i in evenly_spaced(len(listed), most)]
    pairs = _read_pairs(chosen, storage, rules, progress)
    duplicates = find_duplicates(pairs, {})
    left_out = [duplicate.reason for duplicate in duplicates.values()]
    if unplaced:
        examples = " and ".join(unplaced[:2])
        left_out.append(f"{len(unplaced)} photos that belong to no pair, e.g. {examples}")
    scored = [pair for pair in pairs if pair.id not in duplicates]
    labels = list(dict.fromkeys(split_name(text)[1] for text in corpora))
    return PhotoSet(
        pairs=scored,
        source=PhotoSource(storage, rules, remedy="run it again"),
        title=f"pairs of {', '.join(labels)}",
        name="-".join(labels),
        metrics="pairs",
        tags={"pairs": ", ".join(corpora)},
        datasets=pair_inputs(scored, corpora),
        left_out=left_out,
    )


def _read_pairs(
    pairs: Sequence[PairRecord],
    storage: Storage,
    rules: CheckRules,
    progress: Callable[[int, int], None],
) -> list[PairRecord]:
    """The records of pairs with what was measured on their photos.

    Starts Ray. Raises UserError if one cannot be scored.
    """
    cluster.start_ray()
    task = ray.remote(num_cpus=1)(_read)
    pending = {task.remote(pair, storage, rules): pair.id for pair in pairs}
    found: dict[str, PairRecord] = dict(cluster.collect(pending, progress))
    read = [found[pair.id] for pair in pairs]
    if bad := [pair.refused for pair in read if pair.refused is not None]:
        raise UserError(
            f"{len(bad)} of {len(read)} pairs cannot be scored, the first: {bad[0]}; name the "
            "others with `pairs` pairs=TABLE.csv"
        )
    return read


def _read(pair: PairRecord, storage: Storage, rules: CheckRules) -> PairRecord:
    """Read, hash and check one pair; the record is refused if it cannot be scored."""
    try:
        files = retry(lambda: read_files(pair, storage))
    except OSError as error:
        raise JobFailedError(f"reading pair '{pair.id}' failed: {error}; run it again") from error
    pair = files.described(pair)
    try:
        _, checked = check_pair(pair, files, rules)
    except UnreadablePhotoError as error:
        return replace(pair, refused=str(error))
    assert checked.height is not None
    assert checked.width is not None
    if min(checked.height, checked.width) < WINDOW:
        size = f"{checked.width}x{checked.height}"
        return replace(
            pair, refused=f"{pair.noisy} is {size}, smaller than the window of SSIM, {WINDOW}"
        )
    return checked
