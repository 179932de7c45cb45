"""The previous patch set: pairs whose files have not changed keep their patches, unread."""

import contextlib
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from degrain.corpora.record import PairRecord
from degrain.patchsets.ingest.config import IngestConfig
from degrain.patchsets.ingest.cut import CutShard
from degrain.patchsets.manifest import Manifest, Shard, cutter
from degrain.patchsets.packed import columns, select
from degrain.patchsets.reading import (
    DamagedSetError,
    ShardReader,
    open_catalog,
    pointer_file,
    read_manifest,
    read_pointer,
)
from degrain.storage.location import Location
from degrain.storage.sealed import FileDigest

_MANIFEST_NAME = re.compile(r"([^/]+)/manifest\.json")
_CATALOG_NAME = re.compile(r"catalog-([0-9a-f]+)\.parquet")


@dataclass(frozen=True)
class Previous:
    """The newest patch set below the output folder, as far as it can be read."""

    catalog: Sequence[PairRecord] = ()
    """By id. Where the file is damaged, the pairs have no more than their ids and shards."""
    manifest: Manifest | None = None
    """None if it is damaged."""
    since: int = 0
    """When the set was current last, nanoseconds since 1970; 0 if that is unknown."""

    @classmethod
    def read(cls, root: Location) -> "Previous":
        """Read it; what is damaged of it will be written again."""
        version, since = _newest(root)
        if version is None:
            return cls()
        manifest = _read_manifest(root / version)
        if manifest is None:
            return cls(_catalog_by_name(root / version))
        try:
            return cls(open_catalog(root / version, manifest.catalog), manifest, since)
        except DamagedSetError:
            return cls(_pairs_of_shards(root, manifest), manifest)

    @cached_property
    def records(self) -> Mapping[str, PairRecord]:
        """The catalog as Python objects, by id."""
        return {record.id: record for record in self.catalog}

    def find_reuse(
        self, pairs: Sequence[PairRecord], config: IngestConfig, root: Location
    ) -> "Reuse":
        """What stays of the set, and the pairs that have to be read; nothing else is unpacked.

        A shard stays if all its pairs have unchanged files and names, its own file has the recorded
        size and has not changed since the set was current, and the same cutter would cut it by the
        same geometry and checks. A refused pair is read again: another version of degrain may
        accept it, and its file may have been away for a moment.
        """
        known, nowhere = self.manifest, np.full(len(pairs), -1, np.int32)
        wanted = (cutter(), config.geometry, config.rules)
        if known is not None and (known.cutter, known.geometry, known.rules) != wanted:
            return Reuse((), (), {}, pairs, nowhere)
        found = _compare(pairs, self.catalog)
        trusted: dict[str, Shard] = {}
        stays = np.zeros(len(pairs), bool)
        if known is not None and not config.reread:
            trusted = _unchanged(known.shards, root, self.since)
            kept = [m.unchanged == m.pairs and key in trusted for key, m in found.members.items()]
            # The last entry stands for pairs without a shard, whose number is -1.
            stays = np.array([*kept, False])[found.shard] | found.duplicate
        complete = [m.present == m.pairs for m in found.members.values()]
        together = np.where(np.array([*complete, False])[found.shard], found.shard, nowhere)
        return Reuse(
            select(pairs, stays), self.catalog, trusted, select(pairs, ~stays), together[~stays]
        )


def _newest(root: Location) -> tuple[str | None, int]:
    """The newest version, None without one, and when it was current last.

    Where the pointer is damaged that is the one whose manifest was written last.
    """
    pointer = pointer_file(root)
    try:
        version = read_pointer(root)
    except DamagedSetError:
        return _newest_manifest(root), 0
    found = root.storage.stamps([pointer.uri])
    return version, found[pointer.uri].changed if pointer.uri in found else 0


def _newest_manifest(root: Location) -> str | None:
    """The version whose manifest was written last; None if none is whole."""
    found = ((_MANIFEST_NAME.fullmatch(name), file) for name, file in root.files().items())
    versions = {match[1]: file.changed for match, file in found if match}
    for version in sorted(versions, key=versions.__getitem__, reverse=True):
        if _read_manifest(root / version) is not None:
            return version
    return None


def _read_manifest(folder: Location) -> Manifest | None:
    """The manifest of a version; None if it is missing or damaged."""
    with contextlib.suppress(DamagedSetError):
        return read_manifest(folder)
    return None


def _catalog_by_name(folder: Location) -> Sequence[PairRecord]:
    """The newest whole catalog of a version, by the digest in its name; empty without one."""
    files = folder.files_inside()
    for name in sorted(files, key=lambda n: files[n].changed, reverse=True):
        if match := _CATALOG_NAME.fullmatch(name):
            with contextlib.suppress(DamagedSetError):
                return open_catalog(folder, FileDigest(digest=match[1], size=files[name].size))
    return ()


def _pairs_of_shards(root: Location, manifest: Manifest) -> list[PairRecord]:
    """The pairs of a set by id, as its shards name them: with no more than ids and shards."""
    reader = ShardReader(root, manifest.geometry.patch_size)
    found: dict[str, str] = {}
    for shard in manifest.shards:
        with contextlib.suppress(DamagedSetError):
            found |= dict.fromkeys(reader.pairs(shard), shard.key)
    return [
        PairRecord(id=name, corpus="", scene="", noisy="", clean="", shard=found[name])
        for name in sorted(found)
    ]


@dataclass
class _Members:
    """The pairs of a shard: all, those still there, and those of unchanged files and names."""

    place: int
    pairs: int = 0
    present: int = 0
    unchanged: int = 0


@dataclass(frozen=True)
class _Comparison:
    """Pairs and an earlier catalog."""

    members: Mapping[str, _Members]
    """By shard, in the order of their places."""
    shard: NDArray[np.int32]
    """Of each pair, the place of its former shard; -1 without one."""
    duplicate: NDArray[np.bool_]
    """Of each pair, whether it was a duplicate and its files are unchanged."""


def _compare(pairs: Sequence[PairRecord], catalog: Sequence[PairRecord]) -> _Comparison:
    """Compare pairs with an earlier catalog, both by id, in one pass over each."""
    names = ("id", "stamp", "noisy", "clean", "scene", "noise", "own")
    members: dict[str, _Members] = {}
    former = np.full(len(pairs), -1, np.int32)
    duplicate = np.zeros(len(pairs), bool)
    rows = columns(pairs, *names)
    pair, place = next(rows, None), 0
    for *before, shard, duplicate_of in columns(catalog, *names, "shard", "duplicate_of"):
        while pair is not None and pair[0] < before[0]:
            pair, place = next(rows, None), place + 1
        present = pair is not None and pair[0] == before[0]
        unchanged = present and bool(before[1]) and pair == tuple(before)
        if shard is not None:
            counts = members.setdefault(shard, _Members(len(members)))
            counts.pairs += 1
            counts.present += present
            counts.unchanged += unchanged
        if present:
            former[place] = -1 if shard is None else members[shard].place
            duplicate[place] = unchanged and duplicate_of is not None
    return _Comparison(members, former, duplicate)


@dataclass(frozen=True)
class Reuse:
    """What an ingest takes over from the previous set."""

    pairs: Sequence[PairRecord]
    """Pairs whose measurements and patches stay, by id."""
    catalog: Sequence[PairRecord]
    """The previous set's, by id."""
    known: Mapping[str, Shard]
    pending: Sequence[PairRecord]
    """Pairs that have to be read, by id."""
    together: NDArray[np.int32]
    """Of each of these, a number of the shard that it shares with others, so that what was cut
    before is found; -1 for a pair whose former shard, if any, has lost a pair."""

    def shards(self) -> list[CutShard]:
        """The pairs that stay, by the shard that has their patches."""
        by_shard: dict[str | None, list[PairRecord]] = defaultdict(list)
        earlier = iter(self.catalog)
        for pair in self.pairs:
            before = next(record for record in earlier if record.id == pair.id)
            by_shard[before.shard].append(pair.with_measurements_of(before))
        return [
            CutShard(
                records, None if key is None else replace(self.known[key], split=records[0].split)
            )
            for key, records in by_shard.items()
        ]


def _unchanged(shards: Sequence[Shard], root: Location, since: int) -> dict[str, Shard]:
    """The shards whose file has the recorded size and was not changed later than `since`, by key.

    Of what has changed since, the photos and the file itself are read.
    """
    folder = root / "shards"
    files = folder.files() if folder.exists() else {}
    found = ((shard, files.get(f"{shard.key}.parquet")) for shard in shards)
    return {
        shard.key: shard
        for shard, file in found
        if file is not None and file.size == shard.bytes and file.changed <= since
    }
