"""Patch sets: aligned patch pairs in Parquet shards, made to exist by a manifest that is written last.

    OUT/current.json                names the newest version
    OUT/<version>/manifest.json     what is in the set; written last
    OUT/<version>/catalog.parquet   one row per pair
    OUT/shards/<key>.parquet        patches: columns noisy, clean (raw bytes), pair, y, x
    OUT/shards/<key>.json           what was found when the shard was cut; written after it

A shard holds pairs of one scene and is named by a hash of what went into it: the files' contents, the geometry and the
version of the cutter. Shards are therefore shared between versions: photos that were cut before are not cut again, and
what a crash leaves behind is found and used by the next run. A set's version is a hash of its pairs and shards.
Pixels are stored as raw bytes in a binary column because Arrow's list and tensor columns read more than ten times slower.
"""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from degrain.data.catalog import CatalogRow, read_catalog, write_catalog
from degrain.data.checks import CheckRules
from degrain.data.photos import PhotoSource
from degrain.errors import UserError
from degrain.imaging.pixels import Photo, sixteen_bits
from degrain.storage import Location, Storage, json_bytes, patiently

CUTTER_VERSION = 2
"""Raise it when the same photos and geometry would give other bytes."""
FORMAT_VERSION = 1
_CHANNELS = 3
_TABLE_BYTES = 8 * 2**20
"""Bytes of a photo's patches that are cut and written at once; larger pieces cost more in fresh memory than they save."""


@dataclass(frozen=True, kw_only=True)
class PatchGeometry:
    """Where patches lie on a photo."""

    patch_size: int = 128
    """Side of a patch in pixels."""
    stride: int = 128
    """Distance between neighbouring patches in pixels; equal to the size: no overlap but at the far borders."""

    def __post_init__(self) -> None:
        if self.patch_size < 16:
            raise ValueError(f"--patch-size must be at least 16 pixels, got {self.patch_size}")
        if not 1 <= self.stride <= self.patch_size:
            raise ValueError(
                f"--stride must be between 1 and the patch size ({self.patch_size}), so that every pixel is "
                f"covered, got {self.stride}"
            )

    def patch_bytes(self, bits: int) -> int:
        """Bytes of one RGB patch of 8 or 16 bits."""
        return self.patch_size**2 * _CHANNELS * bits // 8

    def starts(self, side: int) -> list[int]:
        """Where patches start along a side of `side` pixels.

        Multiples of the stride; one more flush with the far border where these leave pixels uncovered.
        """
        last = side - self.patch_size
        starts = list(range(0, last + 1, self.stride))
        if starts and starts[-1] != last:
            starts.append(last)
        return starts


def cut(photo: Photo, rows: Sequence[int], geometry: PatchGeometry) -> Photo:
    """The patches of a photo that start at `rows`, row by row: (H, W, 3) -> (N, P, P, 3), contiguous."""
    size, columns = geometry.patch_size, geometry.starts(photo.shape[1])
    patches: Photo = np.empty((len(rows), len(columns), size, size, _CHANNELS), dtype=photo.dtype)
    for i, y in enumerate(rows):
        for j, x in enumerate(columns):
            patches[i, j] = photo[y : y + size, x : x + size]
    return patches.reshape(-1, size, size, _CHANNELS)


def shard_schema(geometry: PatchGeometry, bits: int) -> pa.Schema:
    """The columns of a shard of 8 or 16 bits."""
    return pa.schema(
        [
            ("noisy", pa.binary(geometry.patch_bytes(bits))),
            ("clean", pa.binary(geometry.patch_bytes(bits))),
            ("pair", pa.dictionary(pa.int32(), pa.string())),
            ("y", pa.int32()),
            ("x", pa.int32()),
        ]
    )


def binary_column(patches: Photo) -> pa.Array:
    """(N, P, P, 3) as an Arrow column of raw bytes, little-endian, without copying."""
    count = len(patches)
    width = int(patches[0].nbytes)
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), count, [None, pa.py_buffer(patches)])


def column_patches(column: pa.ChunkedArray, side: int, bits: int) -> Photo:
    """The inverse of `binary_column`, read-only: without copying where the column is one chunk."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks)
    flat = np.frombuffer(array.buffers()[1], dtype=np.uint16 if bits == 16 else np.uint8)
    flat.flags.writeable = False
    size = side * side * _CHANNELS
    start = array.offset * size
    return flat[start : start + len(array) * size].reshape(len(array), side, side, _CHANNELS)


def pair_tables(pair_id: str, noisy: Photo, clean: Photo, geometry: PatchGeometry, bits: int) -> Iterator[pa.Table]:
    """The patches of one pair as rows of a shard of `bits`; noisy and clean ones come from the same places.

    They come a few rows of patches at a time, so that a large photo is not held twice.
    """
    rows, columns = geometry.starts(noisy.shape[0]), geometry.starts(noisy.shape[1])
    at_once = max(1, _TABLE_BYTES // (len(columns) * geometry.patch_bytes(bits)))
    for first in range(0, len(rows), at_once):
        some = rows[first : first + at_once]
        places = np.array([(y, x) for y in some for x in columns], dtype=np.int32)
        yield pa.table(
            [
                binary_column(_in_bits(cut(noisy, some, geometry), bits)),
                binary_column(_in_bits(cut(clean, some, geometry), bits)),
                pa.array([pair_id] * len(places)).dictionary_encode(),
                pa.array(places[:, 0]),
                pa.array(places[:, 1]),
            ],
            schema=shard_schema(geometry, bits),
        )


def _in_bits(patches: Photo, bits: int) -> Photo:
    assert bits >= 8 * patches.dtype.itemsize, "a shard has the bits of its deepest photo"
    return sixteen_bits(patches) if bits == 16 else patches


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One Parquet file of patches, as the manifest names it."""

    key: str
    split: str
    patches: int
    bits: int
    """8 or 16 per channel; a shard with a 16-bit photo is 16-bit throughout."""
    bytes: int
    """Size of the file."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """The pairs of a split that one camera of one corpus took at one ISO."""

    split: str
    corpus: str
    camera: str | None
    iso: int | None
    pairs: int
    patches: int
    weight: float
    """How often to draw each of its patches so that all groups of the split count the same; 1 on average over patches."""


def groups_of(rows: Iterable[CatalogRow]) -> list[Group]:
    """The groups of a catalog, with the weights that balance them."""
    counts: dict[tuple[str, str, str | None, int | None], list[int]] = defaultdict(lambda: [0, 0])
    for row in rows:
        if row.refused is None:
            count = counts[row.split, row.corpus, row.camera, row.iso]
            count[0] += 1
            count[1] += row.patches
    patches, groups = Counter[str](), Counter[str]()
    for (split, *_), (_, number) in counts.items():
        patches[split] += number
        groups[split] += 1
    return [
        Group(
            split=split,
            corpus=corpus,
            camera=camera,
            iso=iso,
            pairs=pairs,
            patches=number,
            weight=patches[split] / groups[split] / number,
        )
        for (split, corpus, camera, iso), (pairs, number) in sorted(counts.items(), key=lambda kv: str(kv[0]))
    ]


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a patch set holds."""

    version: str
    geometry: PatchGeometry
    rules: CheckRules
    """What made a pair be refused."""
    corpora: Sequence[Sequence[str]]
    """Adapter and folder of each corpus, as the user named them."""
    shards: Sequence[Shard]
    pairs: int
    """Pairs seen, refused ones included."""
    refused: int
    covered: float
    """Share of the photos' pixels that lies in at least one patch."""
    overlap: float
    """Patches' pixels over those of the photos: 1 where every pixel lies in one patch."""
    groups: Sequence[Group] = ()

    @property
    def border(self) -> str:
        """How photos end whose sides are no multiple of the stride."""
        return "the last row and column of patches lie flush with the photo's far border"

    def patches(self, split: str | None = None) -> int:
        """Number of patch pairs, in one split or in all."""
        return sum(s.patches for s in self.shards if split in (None, s.split))

    def to_json(self) -> bytes:
        """The manifest as a file."""
        content = {
            "format": FORMAT_VERSION,
            "cutter": CUTTER_VERSION,
            "channels": _CHANNELS,
            "border": self.border,
            "patches": {s: self.patches(s) for s in sorted({shard.split for shard in self.shards})},
            **asdict(self),
        }
        return json_bytes(content)

    @classmethod
    def from_json(cls, content: bytes) -> "Manifest":
        """Read a manifest file. Raises ValueError for a format that this version does not know."""
        raw: dict[str, Any] = json.loads(content)
        if not isinstance(raw, dict):
            raise ValueError("it is not a manifest")
        if raw.get("format") != FORMAT_VERSION:
            raise ValueError(f"format {raw.get('format')}, but this version of degrain reads {FORMAT_VERSION}")
        return cls(
            version=raw["version"],
            geometry=PatchGeometry(**raw["geometry"]),
            rules=CheckRules(**raw["rules"]),
            corpora=raw["corpora"],
            shards=[Shard(**s) for s in raw["shards"]],
            pairs=raw["pairs"],
            refused=raw["refused"],
            covered=raw["covered"],
            overlap=raw["overlap"],
            groups=[Group(**g) for g in raw["groups"]],
        )


def digest(content: object) -> str:
    """A short hash of anything that JSON can say: 128 bits in hexadecimal."""
    return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=16).hexdigest()


def set_version(rows: Iterable[CatalogRow], geometry: PatchGeometry, rules: CheckRules) -> str:
    """The version of a patch set: a hash of its pairs' contents and splits, the geometry, the checks and the cutter."""
    pairs = sorted([r.id, r.scene, r.split, r.noisy_hash, r.clean_hash, r.refused is None] for r in rows)
    return digest([pairs, asdict(geometry), asdict(rules), CUTTER_VERSION])[:12]


@dataclass(frozen=True)
class PatchSet:
    """A finished patch set, opened for reading."""

    root: Location
    """The folder that `--out` named; shards lie below it."""
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
                f"'{uri}' is not a patch set: it has no manifest.json; ingest has not finished there, or the path is "
                "wrong. Make one with pipelines/ingest.py --corpus NAME=URI --out URI"
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
    def catalog(self) -> list[CatalogRow]:
        """All pairs of the set, refused ones included. Raises UserError if the file is gone or damaged."""
        return open_catalog(self.root, self.manifest.version)

    def photos(self, split: str) -> list[CatalogRow]:
        """The pairs of a split that were not refused, by id."""
        return [row for row in self.catalog if row.split == split and row.refused is None]

    def shards(self, split: str) -> list[Shard]:
        """The shards of a split. Raises UserError if it has none."""
        found = [s for s in self.manifest.shards if s.split == split]
        if not found:
            raise UserError(f"patch set {self.uri} has no patches in its {split} split; ingest more scenes")
        return found

    @property
    def source(self) -> PhotoSource:
        """Reads the whole photos of the catalog's rows."""
        return PhotoSource(self.root.storage, self.manifest.rules)

    def read_shard(self, shard: Shard) -> tuple[Photo, Photo]:
        """Noisy and clean patches of one shard, each (N, P, P, 3) uint8 or uint16.

        Raises UserError if it is gone or damaged.
        """
        place = self.root / "shards" / f"{shard.key}.parquet"
        try:
            # Mapped, a local file is copied once, from the system's cache into Arrow's buffers.
            how = {"filesystem": place.filesystem} if place.remote else {"memory_map": True, "pre_buffer": False}
            table = patiently(lambda: pq.read_table(place.path, columns=["noisy", "clean"], **how))
        except (OSError, pa.ArrowException) as error:
            if place.remote and isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
                # The bucket is away, which is no fault of the shard.
                raise
            raise UserError(
                f"cannot read shard '{place}': {str(error).splitlines()[0]}; remove it and ingest the corpus again"
            ) from None
        side = self.manifest.geometry.patch_size
        return column_patches(table["noisy"], side, shard.bits), column_patches(table["clean"], side, shard.bits)


def read_pointer(pointer: Location) -> str:
    """The version that `current.json` names. Raises UserError if it is damaged."""
    try:
        return str(json.loads(pointer.read_bytes())["version"])
    except (ValueError, KeyError, TypeError):
        raise UserError(f"'{pointer}' is damaged; remove it and ingest the corpus again, which cuts nothing anew") from None


def open_catalog(root: Location, version: str) -> list[CatalogRow]:
    """The catalog of a version below `root`. Raises UserError if it is gone or damaged."""
    file = root / version / "catalog.parquet"
    try:
        return read_catalog(file.read_bytes())
    except (OSError, pa.ArrowException, TypeError) as error:
        raise UserError(
            f"cannot read '{file}': {str(error).splitlines()[0]}; remove '{root}/current.json' and ingest the corpus "
            "again, which cuts nothing anew"
        ) from None


def publish(root: Location, manifest: Manifest, rows: Sequence[CatalogRow]) -> tuple[PatchSet, bool]:
    """Make a set exist: catalog, then manifest, then the pointer to the newest version.

    Gives the set and whether it was there already, just so. What was there otherwise, because it was damaged or because the
    photos have moved since, is written over.
    """
    folder = root / manifest.version
    contents = {"catalog.parquet": write_catalog(rows), "manifest.json": manifest.to_json()}
    stale = [name for name, content in contents.items() if not _holds(folder / name, content)]
    for name in stale:
        (folder / name).write_bytes(contents[name])
    point_to(root, manifest.version)
    return PatchSet(root, manifest), not stale


def _holds(file: Location, content: bytes) -> bool:
    try:
        return file.read_bytes() == content
    except FileNotFoundError:
        return False


def point_to(root: Location, version: str) -> None:
    """Name the version that `PatchSet.open` finds when it is given the root."""
    (root / "current.json").write_bytes(json.dumps({"version": version}).encode())


def covered_pixels(height: int, width: int, geometry: PatchGeometry) -> int:
    """Pixels of a photo that lie in at least one patch."""
    return _covered(height, geometry) * _covered(width, geometry)


def patched_pixels(height: int, width: int, geometry: PatchGeometry) -> int:
    """Pixels of all patches of a photo; those in several patches count several times."""
    return len(geometry.starts(height)) * len(geometry.starts(width)) * geometry.patch_size**2


def _covered(side: int, geometry: PatchGeometry) -> int:
    covered = np.zeros(side, dtype=bool)
    for start in geometry.starts(side):
        covered[start : start + geometry.patch_size] = True
    return int(covered.sum())


def split_chunks(shards: Sequence[Shard], most_bytes: int) -> Iterator[list[Shard]]:
    """Shards in runs of at most `most_bytes`, at least one each, in order."""
    run: list[Shard] = []
    for shard in shards:
        if run and sum(s.bytes for s in run) + shard.bytes > most_bytes:
            yield run
            run = []
        run.append(shard)
    if run:
        yield run
