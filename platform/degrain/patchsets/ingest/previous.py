"""The previous patch set: pairs whose files have not changed keep their patches, unread."""

import contextlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from degrain.corpora.record import PairRecord
from degrain.patchsets.ingest.config import IngestConfig
from degrain.patchsets.ingest.cut import CutShard
from degrain.patchsets.manifest import Manifest, Shard
from degrain.patchsets.patch_set import open_catalog, read_pointer
from degrain.storage.location import Location


@dataclass(frozen=True)
class Previous:
    """The newest patch set below the output folder, as far as it can be read."""

    records: Mapping[str, PairRecord] = field(default_factory=dict)
    """By id."""
    manifest: Manifest | None = None

    @classmethod
    def read(cls, root: Location) -> "Previous":
        """Read it. Raises UserError if its catalog is damaged, because that holds the splits."""
        pointer = root / "current.json"
        if not pointer.exists():
            return cls()
        version = read_pointer(pointer)
        records = {record.id: record for record in open_catalog(root, version)}
        with contextlib.suppress(FileNotFoundError, ValueError, KeyError, TypeError):
            manifest = Manifest.from_json((root / version / "manifest.json").read_bytes())
            return cls(records, manifest)
        return cls(records)

    @property
    def splits(self) -> dict[str, str]:
        """The split of each scene."""
        return {record.scene: record.split for record in self.records.values()}

    def reuse(
        self, pairs: Sequence[PairRecord], config: IngestConfig, root: Location
    ) -> tuple[list[CutShard], list[PairRecord]]:
        """The shards that stay, and the pairs that have to be read.

        A shard stays if all its pairs have unchanged files and its own file has the recorded size.
        """
        known = self.manifest
        if known is None or (known.geometry, known.rules) != (config.geometry, config.rules):
            return [], list(pairs)
        shards = _existing(known.shards, root)
        unchanged = {pair.id for pair in pairs if self._unchanged(pair)}
        members: dict[str, set[str]] = defaultdict(set)
        for record in self.records.values():
            if record.shard is not None:
                members[record.shard].add(record.id)
        kept = {key for key, ids in members.items() if key in shards and ids <= unchanged}
        reused: dict[str | None, list[PairRecord]] = defaultdict(list)
        pending: list[PairRecord] = []
        for pair in pairs:
            before = self.records.get(pair.id)
            if (
                before is None
                or pair.id not in unchanged
                or (before.shard not in kept and before.refused is None)
            ):
                pending.append(pair)
            else:
                reused[before.shard].append(pair.with_measurements_of(before))
        return [
            CutShard(records, None if key is None else replace(shards[key], split=records[0].split))
            for key, records in reused.items()
        ], pending

    def _unchanged(self, pair: PairRecord) -> bool:
        before = self.records.get(pair.id)
        if before is None or not pair.has_files_of(before):
            return False
        return (before.scene, before.noise) == (pair.scene, pair.noise)


def _existing(shards: Sequence[Shard], root: Location) -> dict[str, Shard]:
    """The shards whose file has the recorded size, by key."""
    folder = root / "shards"
    files = folder.files() if folder.exists() else {}
    sizes = {name: stamp.size for name, stamp in files.items()}
    return {s.key: s for s in shards if sizes.get(f"{s.key}.parquet") == s.bytes}
