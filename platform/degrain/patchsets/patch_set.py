"""Patch sets: aligned patch pairs in Parquet shards; a set exists once its manifest is written.

    OUT/current.json                names the newest version
    OUT/<version>/manifest.json     geometry, rules, shards, groups; written last
    OUT/<version>/catalog.parquet   one row per pair
    OUT/shards/<key>.parquet        patches: columns noisy, clean (raw bytes), pair, y, x
    OUT/shards/<key>.json           measurements of the pairs of the shard; written after it

A shard holds pairs of one scene and is named by a hash of the files' contents, the geometry and the
version of the cutter. Versions share shards: photos that were cut before are not cut again, and the
next run uses the shards of a run that crashed. A set's version is a hash of its pairs. Pixels are
stored as raw bytes in a binary column because Arrow's list and tensor columns read more than ten
times slower.
"""

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa
import pyarrow.parquet as pq

from degrain.corpora.record import PairRecord
from degrain.errors import UserError
from degrain.imaging.pixels import Photo
from degrain.patchsets.catalog import catalog_tables
from degrain.patchsets.manifest import Manifest, Shard
from degrain.patchsets.packed import pack
from degrain.patchsets.photos import PhotoSource
from degrain.patchsets.shards import column_patches
from degrain.patchsets.splits import SPLITS
from degrain.storage.location import Location, Storage
from degrain.storage.retry import retry


@dataclass(frozen=True)
class PatchSet:
    """A finished patch set, opened for reading."""

    root: Location
    """The output folder of the ingest; shards are below it."""
    manifest: Manifest

    @classmethod
    def open(cls, uri: str, storage: Storage) -> "PatchSet":
        """Open a version's folder, or the newest version below the folder that ingest wrote to.

        Raises UserError if there is no finished set.
        """
        folder = storage.locate(uri)
        folder.check_answers()
        pointer = folder / "current.json"
        if pointer.exists():
            folder = folder / read_pointer(pointer)
        file = folder / "manifest.json"
        if not file.exists():
            raise UserError(
                f"'{uri}' is not a patch set: it has no manifest.json; ingest has not finished "
                "there, or the path is wrong. Make one with degrain ingest"
            )
        try:
            manifest = Manifest.from_json(file.read_bytes())
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"cannot read '{file}': {error}; ingest the corpus again") from None
        root = folder.uri.rpartition("/")[0]
        return cls(Location(root, storage), manifest)

    @property
    def uri(self) -> str:
        """The folder of this version."""
        return str(self.root / self.manifest.version)

    @cached_property
    def catalog(self) -> list[PairRecord]:
        """All pairs of the set, refused ones included.

        Raises UserError if the file is missing or damaged.
        """
        return open_catalog(self.root, self.manifest.version)

    @cached_property
    def counts(self) -> dict[str, tuple[int, int]]:
        """Pairs that were not refused, and their scenes, by split."""
        found = {}
        for split in SPLITS:
            rows = self.photos(split)
            found[split] = len(rows), len({row.scene for row in rows})
        return found

    def photos(self, split: str) -> list[PairRecord]:
        """The pairs of a split that were not refused, by id."""
        return [row for row in self.catalog if row.split == split and row.refused is None]

    def shards(self, split: str) -> list[Shard]:
        """The shards of a split. Raises UserError if it has none."""
        found = [s for s in self.manifest.shards if s.split == split]
        if not found:
            raise UserError(
                f"patch set {self.uri} has no patches in its {split} split; ingest more scenes"
            )
        return found

    @property
    def source(self) -> PhotoSource:
        """Reader of the whole photos of the catalog's rows."""
        return PhotoSource(self.root.storage, self.manifest.rules)

    def read_shard(self, shard: Shard) -> tuple[Photo, Photo]:
        """Noisy and clean patches of one shard, each (N, P, P, 3) uint8 or uint16.

        Raises UserError if it is missing or damaged.
        """
        place = self.root / "shards" / f"{shard.key}.parquet"
        try:
            table = retry(lambda: _read_patches(place))
        except (OSError, pa.ArrowException) as error:
            if (
                place.remote
                and isinstance(error, OSError)
                and not isinstance(error, FileNotFoundError)
            ):
                # The bucket does not answer; the shard may be intact.
                raise
            raise UserError(
                f"cannot read shard '{place}': {str(error).splitlines()[0]}; remove it and ingest "
                "the corpus again"
            ) from None
        side = self.manifest.geometry.patch_size
        return column_patches(table["noisy"], side, shard.bits), column_patches(
            table["clean"], side, shard.bits
        )


def _read_patches(shard: Location) -> pa.Table:
    """The pixels of a shard: the columns noisy and clean."""
    columns = ["noisy", "clean"]
    if shard.remote:
        # From a bucket, `read_table` would request the footer first, and then the columns.
        return pq.read_table(pa.BufferReader(shard.read_bytes()), columns=columns)
    # Mapped, a local file is copied once, from the system's cache into Arrow's buffers.
    return pq.read_table(shard.path, columns=columns, memory_map=True, pre_buffer=False)


def read_pointer(pointer: Location) -> str:
    """The version that `current.json` names. Raises UserError if it is damaged."""
    try:
        return str(json.loads(pointer.read_bytes())["version"])
    except (ValueError, KeyError, TypeError):
        raise UserError(
            f"'{pointer}' is damaged; remove it and ingest the corpus again, which reuses shards"
        ) from None


def open_catalog(root: Location, version: str) -> list[PairRecord]:
    """The catalog of a version below `root`. Raises UserError if it is missing or damaged."""
    return list(pack_catalog(root, version))


def pack_catalog(root: Location, version: str) -> Sequence[PairRecord]:
    """The same, packed if it is long."""
    file = root / version / "catalog.parquet"
    try:
        # Of a file on disk, only the rows that are being packed are in memory.
        source = io.BytesIO(file.read_bytes()) if file.remote else pa.OSFile(file.path)
        return pack(catalog_tables(source))
    except (OSError, pa.ArrowException, TypeError) as error:
        raise UserError(
            f"cannot read '{file}': {str(error).splitlines()[0]}; remove '{root}/current.json' and "
            "ingest the corpus again, which reuses shards"
        ) from None
