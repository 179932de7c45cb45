"""Publish a patch set: catalog, then manifest, then the pointer to the newest version."""

import contextlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from degrain.corpora.config import split_name
from degrain.corpora.record import PairRecord
from degrain.errors import UserError
from degrain.patchsets.ingest.config import IngestConfig
from degrain.patchsets.manifest import Manifest, Shard, cutter, groups_of, set_version
from degrain.patchsets.patch_set import PatchSet
from degrain.patchsets.reading import (
    DamagedSetError,
    catalog_file,
    manifest_file,
    pointer_file,
    read_manifest,
)
from degrain.patchsets.splits import SPLITS
from degrain.storage.atomic import remove_abandoned
from degrain.storage.location import Location
from degrain.storage.sealed import DamagedFileError, FileDigest, seal

_FOLDER_NAME = re.compile(r"shards|[0-9a-f]{12}")
"""Folders of patch sets below the output folder."""


def check_refused(records: Sequence[PairRecord], limit: float) -> None:
    """Raise UserError if more than the share `limit` of the pairs is refused, or all are.

    Duplicates are no bad photos, and do not count.
    """
    refused = [r.refused for r in records if r.refused is not None and r.duplicate_of is None]
    if len(refused) > limit * len(records) or len(refused) == len(records):
        raise UserError(
            f"{len(refused)} of {len(records)} pairs were refused, over the limit of {limit:.0%} "
            f"(`max_refused`); the first: {min(refused)}"
        )


def check_splits(records: Sequence[PairRecord]) -> None:
    """Raise UserError if a split has no pair left: each of the three is needed."""
    for split in SPLITS:
        ours = [record for record in records if record.split == split]
        if all(record.refused is not None for record in ours):
            raise UserError(
                f"all {len(ours)} pairs of the {split} split were refused, the first: "
                f"{ours[0].refused}; mend them, remove them, or name other scenes with "
                "`val_scenes` and `test_scenes`"
            )


def make_manifest(
    config: IngestConfig, records: Sequence[PairRecord], shards: Iterable[Shard], catalog: bytes
) -> Manifest:
    """The manifest of the set that these records, by id, and shards make up."""
    geometry = config.geometry
    used = [
        (r.height, r.width)
        for r in records
        if r.height is not None and r.width is not None and r.refused is None
    ]
    pixels = sum(h * w for h, w in used)
    ordered = sorted(shards, key=lambda s: s.key)
    return Manifest(
        version=set_version(records, ordered, geometry, config.rules),
        cutter=cutter(),
        geometry=geometry,
        rules=config.rules,
        corpora=[list(split_name(text)) for text in config.corpus],
        shards=ordered,
        catalog=FileDigest.of(catalog),
        pairs=len(records),
        refused=len(records) - len(used),
        covered=sum(geometry.covered_pixels(h, w) for h, w in used) / pixels,
        overlap=sum(geometry.patched_pixels(h, w) for h, w in used) / pixels,
        groups=groups_of(records),
    )


def publish(root: Location, manifest: Manifest, catalog: bytes) -> tuple[PatchSet, bool]:
    """Write a set; returns it, and whether it existed already.

    Nothing is written if the same set exists and is whole, and a damaged file is written again. Of
    a set whose photos have moved since, a new catalog gets a name of its own, and the manifest that
    names it takes the place of the former one; shards, pairs and their order stay.
    """
    folder = root / manifest.version
    known: Manifest | None = None
    with contextlib.suppress(DamagedSetError):
        known = read_manifest(folder)
    moved = known is not None and known.catalog != manifest.catalog
    if known is not None and not moved:
        manifest = known
    file = catalog_file(folder, manifest.catalog.digest)
    whole = _is_whole(file, manifest.catalog)
    if not whole:
        file.write_bytes(catalog)
    if manifest is not known:
        manifest_file(folder).write_bytes(manifest.to_json())
    if known is not None and moved:
        _remove_catalogs(folder, keep={known.catalog.digest, manifest.catalog.digest})
    point_to(root, manifest.version)
    return PatchSet(root, manifest), whole and manifest is known


def point_to(root: Location, version: str) -> None:
    """Name the version that `PatchSet.open` finds below the root."""
    pointer_file(root).write_bytes(seal({"version": version}))


def _is_whole(file: Location, expected: FileDigest) -> bool:
    try:
        expected.check(FileDigest.read(file))
    except (FileNotFoundError, DamagedFileError):
        return False
    return True


def _remove_catalogs(folder: Location, keep: set[str]) -> None:
    """Remove all catalogs of a version but two: a job may have opened the last one but one."""
    kept = {catalog_file(folder, digest).uri for digest in keep}
    for name in folder.files_inside():
        if name.startswith("catalog-") and (folder / name).uri not in kept:
            (folder / name).remove()


def remove_leftovers(root: Location) -> None:
    """Remove the partial files of ingests that were killed; uploads to a bucket leave none."""
    folder = Path(root.path)
    if root.remote or not folder.is_dir():
        return
    remove_abandoned(folder)
    for below in folder.iterdir():
        if below.is_dir() and _FOLDER_NAME.fullmatch(below.name):
            remove_abandoned(below)
