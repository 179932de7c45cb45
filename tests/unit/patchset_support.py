"""Values that the tests of patch sets share."""

from collections.abc import Sequence
from dataclasses import replace

from unit.support import pair_record

from degrain.corpora.record import PairRecord
from degrain.imaging.pixels import Photo
from degrain.patchsets.catalog import write_catalog
from degrain.patchsets.check_rules import CheckRules
from degrain.patchsets.geometry import PatchGeometry
from degrain.patchsets.ingest.publish import publish
from degrain.patchsets.manifest import Manifest, Shard, cutter, groups_of
from degrain.patchsets.patch_set import PatchSet
from degrain.patchsets.shards import cut
from degrain.storage.location import Location, Storage
from degrain.storage.sealed import FileDigest

STORAGE = Storage()
GEOMETRY = PatchGeometry(patch_size=16, stride=16)
RULES = CheckRules(alignment="ignore")
"""Alignment has tests of its own."""


def cut_all(photo: Photo, geometry: PatchGeometry = GEOMETRY) -> Photo:
    return cut(photo, geometry.starts(photo.shape[0]), geometry)


def shard(
    key: str = "k", split: str = "train", patches: int = 4, size: int = 100, bits: int = 8
) -> Shard:
    return Shard(key=key, split=split, patches=patches, bits=bits, bytes=size)


MANIFEST = Manifest(
    version="v1",
    cutter=cutter(),
    geometry=PatchGeometry(patch_size=32, stride=16),
    rules=CheckRules(alignment="refuse", max_shift=1.5, largest_megapixels=100),
    corpora=[["sidd", "sidd", "s3://b/SIDD ü"], ["pairs", "lab", "/a=b"]],
    shards=[shard("a"), shard("b", "val", 3), shard("c", patches=5, bits=16)],
    catalog=FileDigest.of(b""),
    pairs=9,
    refused=1,
    covered=0.75,
    overlap=1.25,
    groups=groups_of(
        [pair_record(patches=9, camera="S6", iso=100), pair_record(split="val", patches=3)]
    ),
)
ROW = pair_record(id="c/a", corpus="c", scene="c/a")


def publish_rows(
    root: Location, rows: Sequence[PairRecord], manifest: Manifest = MANIFEST
) -> tuple[PatchSet, bool]:
    """Publish a set with a catalog of these rows."""
    catalog = write_catalog(rows)
    return publish(root, replace(manifest, catalog=FileDigest.of(catalog)), catalog)
