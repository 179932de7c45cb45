"""Patch sets: aligned patch pairs in Parquet shards; a set exists once its manifest is written.

    OUT/current.json                         names the newest version
    OUT/<version>/manifest.json              geometry, rules, shards, groups; written last
    OUT/<version>/catalog-<digest>.parquet   one row per pair
    OUT/shards/<digest>.parquet              patches: columns noisy, clean (raw bytes), pair, y, x
    OUT/shards/<key>.json                    measurements of the pairs of a shard

A shard holds pairs of one scene. Shards and catalogs are named by their content, JSON files hold
their own digest, and a set's version is a hash of what a training reads of it and of the order of
that. So files of one name are equal, what was published is never changed, and damage is found when
a file is read. Versions share shards: photos that were cut before are not cut again, and the next
run uses the shards of a run that crashed. Pixels are stored as raw bytes in a binary column because
Arrow's list and tensor columns read more than ten times slower.
"""

from dataclasses import dataclass
from functools import cached_property

from degrain.corpora.record import PairRecord
from degrain.errors import InvalidFieldError, UserError
from degrain.imaging.pixels import Photo
from degrain.patchsets.manifest import Manifest, Shard
from degrain.patchsets.photos import PhotoSource
from degrain.patchsets.reading import ShardReader, open_catalog, read_manifest, read_pointer
from degrain.patchsets.splits import SPLITS
from degrain.storage.location import Location, Storage


@dataclass(frozen=True)
class PatchSet:
    """A finished patch set, opened for reading."""

    root: Location
    """The output folder of the ingest; shards are below it."""
    manifest: Manifest

    @classmethod
    def open(cls, uri: str, storage: Storage) -> "PatchSet":
        """Open a version's folder, or the newest version below the folder that ingest wrote to.

        Raises UserError if there is no finished set, or if its manifest is damaged.
        """
        folder = storage.locate(uri)
        folder.check_answers()
        newest = read_pointer(folder)
        if newest is not None:
            folder = folder / newest
        manifest = read_manifest(folder)
        if manifest is None:
            raise UserError(
                f"'{uri}' is not a patch set: it has no manifest.json; ingest has not finished "
                "there, or the path is wrong. Make one with degrain ingest"
            )
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
        return list(open_catalog(self.root / self.manifest.version, self.manifest.catalog))

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

    @property
    def reader(self) -> ShardReader:
        """Reader of the shards."""
        return ShardReader(self.root, self.manifest.geometry.patch_size)

    def read_shard(self, shard: Shard) -> tuple[Photo, Photo]:
        """See `ShardReader.read`."""
        return self.reader.read(shard)


def check_moved(data: str, before: str, storage: Storage) -> None:
    """Raise InvalidFieldError unless the patch set `data` is the version that was at `before`, the
    `PatchSet.uri` that an interrupted job has recorded.
    """
    version = before.rpartition("/")[2]
    found = PatchSet.open(data, storage)
    if found.manifest.version != version:
        raise InvalidFieldError(
            "data",
            f"names version {found.manifest.version} of a patch set, but what is resumed has seen "
            f"version {version}; leave it out, or name the folder '{version}' where it is now",
        )
