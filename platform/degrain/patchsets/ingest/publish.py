"""Publish a patch set: catalog, then manifest, then the pointer to the newest version."""

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from degrain.corpora.config import split_name
from degrain.corpora.record import PairRecord
from degrain.errors import UserError
from degrain.patchsets.catalog import write_catalog
from degrain.patchsets.ingest.config import IngestConfig
from degrain.patchsets.manifest import Manifest, Shard, groups_of, set_version
from degrain.patchsets.patch_set import PatchSet
from degrain.patchsets.splits import SPLITS
from degrain.storage.atomic import remove_abandoned
from degrain.storage.location import Location

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
    config: IngestConfig, records: Sequence[PairRecord], shards: Iterable[Shard]
) -> Manifest:
    """The manifest of the set that these records and shards make up."""
    geometry = config.geometry
    used = [
        (r.height, r.width)
        for r in records
        if r.height is not None and r.width is not None and r.refused is None
    ]
    pixels = sum(h * w for h, w in used)
    return Manifest(
        version=set_version(records, geometry, config.rules),
        geometry=geometry,
        rules=config.rules,
        corpora=[list(split_name(text)) for text in config.corpus],
        shards=sorted(shards, key=lambda s: s.key),
        pairs=len(records),
        refused=len(records) - len(used),
        covered=sum(geometry.covered_pixels(h, w) for h, w in used) / pixels,
        overlap=sum(geometry.patched_pixels(h, w) for h, w in used) / pixels,
        groups=groups_of(records),
    )


def publish(
    root: Location, manifest: Manifest, records: Sequence[PairRecord]
) -> tuple[PatchSet, bool]:
    """Write a set; returns it, and whether the same one existed already.

    A file that differs, because it is damaged or because the photos have moved since, is replaced.
    """
    folder = root / manifest.version
    contents = {"catalog.parquet": write_catalog(records), "manifest.json": manifest.to_json()}
    stale = [name for name, content in contents.items() if not _holds(folder / name, content)]
    for name in stale:
        (folder / name).write_bytes(contents[name])
    point_to(root, manifest.version)
    return PatchSet(root, manifest), not stale


def point_to(root: Location, version: str) -> None:
    """Name the version that `PatchSet.open` finds below the root."""
    (root / "current.json").write_bytes(json.dumps({"version": version}).encode())


def remove_leftovers(root: Location) -> None:
    """Remove the partial files of ingests that were killed; uploads to a bucket leave none."""
    folder = Path(root.path)
    if root.remote or not folder.is_dir():
        return
    remove_abandoned(folder)
    for below in folder.iterdir():
        if below.is_dir() and _FOLDER_NAME.fullmatch(below.name):
            remove_abandoned(below)


def _holds(file: Location, content: bytes) -> bool:
    try:
        return file.read_bytes() == content
    except FileNotFoundError:
        return False
