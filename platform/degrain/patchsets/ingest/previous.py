"""The previous patch set: pairs whose files have not changed keep their patches, unread."""

import contextlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from degrain.corpora.record import PairRecord
from degrain.patchsets.ingest.config import IngestConfig
from degrain.patchsets.ingest.cut import CutShard
from degrain.patchsets.manifest import Manifest, Shard
from degrain.patchsets.packed import columns, select
from degrain.patchsets.patch_set import pack_catalog, read_pointer
from degrain.storage.location import Location


@dataclass(frozen=True)
class Previous:
    """The newest patch set below the output folder, as far as it can be read."""

    catalog: Sequence[PairRecord] = ()
    """By id."""
    manifest: Manifest | None = None

    @classmethod
    def read(cls, root: Location) -> "Previous":
        """Read it. Raises UserError if its catalog is damaged, because that holds the splits."""
        pointer = root / "current.json"
        if not pointer.exists():
            return cls()
        version = read_pointer(pointer)
        catalog = pack_catalog(root, version)
        with contextlib.suppress(FileNotFoundError, ValueError, KeyError, TypeError):
            manifest = Manifest.from_json((root / version / "manifest.json").read_bytes())
            return cls(catalog, manifest)
        return cls(catalog)

    @cached_property
    def records(self) -> Mapping[str, PairRecord]:
        """The catalog as Python objects, by id."""
        return {record.id: record for record in self.catalog}

    def reuse(
        self, pairs: Sequence[PairRecord], config: IngestConfig, root: Location
    ) -> tuple[list[CutShard], Sequence[PairRecord]]:
        """The shards that stay, and the pairs that have to be read; both by id.

        A shard stays if all its pairs have unchanged files and its own file has the recorded size.
        """
        found = self.find_reuse(pairs, config, root)
        return found.shards(), found.pending

    def find_reuse(
        self, pairs: Sequence[PairRecord], config: IngestConfig, root: Location
    ) -> "Reuse":
        """See `reuse`; nothing but the pairs that have to be read is unpacked."""
        known = self.manifest
        if known is None or (known.geometry, known.rules) != (config.geometry, config.rules):
            return Reuse((), (), {}, pairs)
        shards = _existing(known.shards, root)
        whole, of_pair = _compare(pairs, self.catalog)
        kept = np.array([shard in shards and whole[shard] for shard in whole], bool)
        # The last entry stands for refused pairs, whose number is -1.
        stays = (of_pair != _READ) & np.append(kept, True)[np.maximum(of_pair, _NO_SHARD)]
        return Reuse(select(pairs, stays), self.catalog, shards, select(pairs, ~stays))


_READ, _NO_SHARD = -2, -1


def _compare(
    pairs: Sequence[PairRecord], catalog: Sequence[PairRecord]
) -> tuple[dict[str, bool], NDArray[np.int32]]:
    """Compare pairs with an earlier catalog, both by id, in one pass over each.

    Returns whether the files of all pairs of a shard are unchanged, by shard, and for each pair the
    place of its shard in that: `_NO_SHARD` if it was refused, `_READ` if its files must be read.
    """
    members: dict[str, list[int]] = {}
    """Place, pairs and unchanged pairs of each shard."""
    of_pair = np.full(len(pairs), _READ, np.int32)
    rows = columns(pairs, "id", "stamp", "scene", "noise")
    pair, place = next(rows, None), 0
    for id_, stamp, scene, noise, shard, refused in columns(
        catalog, "id", "stamp", "scene", "noise", "shard", "refused"
    ):
        while pair is not None and pair[0] < id_:
            pair, place = next(rows, None), place + 1
        counts = [_NO_SHARD, 0, 0]
        if shard is not None:
            counts = members.setdefault(shard, [len(members), 0, 0])
            counts[1] += 1
        if pair is not None and stamp and pair == (id_, stamp, scene, noise):
            counts[2] += 1
            if shard is not None or refused is not None:
                of_pair[place] = counts[0]
    return {shard: every == same for shard, (_, every, same) in members.items()}, of_pair


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


def _existing(shards: Sequence[Shard], root: Location) -> dict[str, Shard]:
    """The shards whose file has the recorded size, by key."""
    folder = root / "shards"
    files = folder.files() if folder.exists() else {}
    sizes = {name: stamp.size for name, stamp in files.items()}
    return {s.key: s for s in shards if sizes.get(f"{s.key}.parquet") == s.bytes}
