"""Duplicates: photos that are in the corpora more than once, by their pixels.

A noisy photo counts once. A photo in two scenes would leak from one split to another, so only the
first scene keeps it. Of equals, pairs stay before noisy photos without a clean one, then the one
that was in the previous set, then the first by id.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from degrain.corpora.record import PairRecord
from degrain.patchsets.ingest.cut import CutShard
from degrain.patchsets.ingest.parallel import make_chunks


@dataclass(frozen=True)
class Duplicate:
    """A pair to refuse: the pair whose photo it repeats, and the reason in words."""

    of: str
    reason: str


@dataclass(frozen=True)
class Resolved:
    """Shards whose pairs are no duplicates, refused pairs, and chunks that must be cut again."""

    shards: Sequence[CutShard]
    chunks: Sequence[Sequence[PairRecord]]


def resolve_duplicates(shards: Sequence[CutShard], before: Mapping[str, PairRecord]) -> Resolved:
    """Refuse duplicates, and release pairs that are duplicates no longer.

    A shard that holds such a pair is dropped; its other pairs are to be cut again.
    """
    duplicates = find_duplicates([r for shard in shards for r in shard.records], before)
    kept: list[CutShard] = []
    chunks: list[list[PairRecord]] = []
    for shard in shards:
        if all((r.id in duplicates) == (r.duplicate_of is not None) for r in shard.records):
            kept.append(shard)
            continue
        refused, others = _separate(shard.records, duplicates)
        kept.append(CutShard(refused, None))
        chunks += make_chunks(others)
    return Resolved(kept, chunks)


def _separate(
    records: Iterable[PairRecord], duplicates: Mapping[str, Duplicate]
) -> tuple[list[PairRecord], list[PairRecord]]:
    """The records to refuse, and those to cut."""
    refused: list[PairRecord] = []
    others: list[PairRecord] = []
    for record in records:
        duplicate = duplicates.get(record.id)
        if duplicate is not None:
            refused.append(
                replace(
                    record,
                    shard=None,
                    patches=0,
                    refused=duplicate.reason,
                    duplicate_of=duplicate.of,
                )
            )
        elif record.refused is not None and record.duplicate_of is None:
            refused.append(replace(record, shard=None, patches=0))
        else:
            others.append(record.listing())
    return refused, others


def find_duplicates(
    records: Iterable[PairRecord], before: Mapping[str, PairRecord]
) -> dict[str, Duplicate]:
    """The duplicates among records, by id; `before` are the records of the previous set."""

    def rank(record: PairRecord) -> tuple[bool, bool, str]:
        known = before.get(record.id)
        return record.unpaired, known is None or known.refused is not None, record.id

    noisy: dict[str, PairRecord] = {}
    owner: dict[str, PairRecord] = {}
    duplicates: list[PairRecord] = []
    usable = (r for r in records if r.refused is None or r.duplicate_of is not None)
    for record in sorted(usable, key=rank):
        digests = (record.noisy_pixels, record.clean_pixels)
        if record.noisy_pixels in noisy or any(
            digest in owner and owner[digest].scene != record.scene for digest in digests
        ):
            duplicates.append(record)
            continue
        noisy[record.noisy_pixels] = record
        for digest in digests:
            owner.setdefault(digest, record)
    # Reasons are worded when all owners are known, so that the next ingest words them the same.
    return {record.id: _duplicate(record, noisy, owner) for record in duplicates}


def _duplicate(
    record: PairRecord, noisy: Mapping[str, PairRecord], owner: Mapping[str, PairRecord]
) -> Duplicate:
    if (same := noisy.get(record.noisy_pixels)) is not None:
        reason = f"{record.noisy}: it has the pixels of {same.noisy}, which is in the set"
        return Duplicate(same.id, reason)
    photos = ((record.noisy, record.noisy_pixels), (record.clean, record.clean_pixels))
    owners = ((uri, owner.get(digest)) for uri, digest in photos)
    uri, other = next((u, o) for u, o in owners if o is not None and o.scene != record.scene)
    reason = f"{uri}: it has the pixels of a photo of another scene, {other.scene}"
    return Duplicate(other.id, reason)
