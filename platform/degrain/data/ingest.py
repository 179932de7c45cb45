"""Ingest: a corpus becomes a patch set, through Ray Data.

The driver lists names and assigns splits. Each task takes a few pairs of one scene: it reads the files, hashes them, and
unless a shard of that content exists, decodes and cuts pair by pair into one. What comes back is only what was found, so
memory depends neither on the corpus nor on the length of a shard. The driver then names the version and publishes it.
"""

import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from degrain.data.catalog import CatalogRow, assign_splits
from degrain.data.corpora import Corpus, CorpusOptions, Pair, split_name
from degrain.data.patches import (
    CUTTER_VERSION,
    Manifest,
    PatchGeometry,
    PatchSet,
    Shard,
    covered_pixels,
    digest,
    open_catalog,
    pair_table,
    publish,
    read_pointer,
    set_version,
    shard_schema,
)
from degrain.errors import JobFailedError, UserError
from degrain.imaging.codecs import Photo, UnreadablePhotoError, decode
from degrain.storage import Location, Storage

_TASK_BYTES = 64 * 2**20
"""Encoded photos that one task takes; a single larger pair is a task of its own."""
_MOST_BLOCKS = 2000


@dataclass(frozen=True, kw_only=True)
class IngestConfig:
    """What to ingest, and how."""

    corpora: Sequence[str]
    """Each `NAME=URI`."""
    out: str
    """URI of the folder that patch sets go into."""
    geometry: PatchGeometry = field(default_factory=PatchGeometry)
    """Where patches lie on a photo."""
    options: CorpusOptions = field(default_factory=CorpusOptions)
    """How files of `pairs` corpora are named."""
    max_refused: float = 0.05
    """The job fails if more than this share of the pairs is refused."""
    val_scenes: Sequence[str] = ()
    """Scenes that go to the val split."""
    test_scenes: Sequence[str] = ()
    """Scenes that go to the test split."""

    def __post_init__(self) -> None:
        if not self.corpora:
            raise ValueError("name at least one corpus with --corpus NAME=URI")
        for text in self.corpora:
            split_name(text)
        if not 0 <= self.max_refused <= 1:
            raise ValueError(f"--max-refused is a share between 0 and 1, got {self.max_refused}")


@dataclass(frozen=True)
class Found:
    """What a task found out about one pair."""

    noisy_hash: str = ""
    clean_hash: str = ""
    height: int | None = None
    width: int | None = None
    refused: str | None = None
    patches: int = 0


@dataclass(frozen=True)
class Ingested:
    """The outcome of an ingest."""

    patch_set: PatchSet
    unplaced: list[str]
    """Photos that belong to no pair."""
    reused: bool
    """Whether the set was there already."""
    seconds: float


def ingest(
    config: IngestConfig, storage: Storage, progress: Callable[[int, int], None] = lambda _done, _all: None
) -> Ingested:
    """Make the patch set of the corpora, or find it. Needs a running Ray; `progress` gets (pairs done, pairs in all).

    Raises UserError for a missing folder, a corpus without pairs, or too many refused pairs. A set that exists stays as
    it is, but for what is damaged or says where photos were before they moved.
    """
    began = time.monotonic()
    root = storage.locate(config.out)
    root.check_writable()
    pairs, unplaced = _list_all(config, storage)
    splits = assign_splits(
        pairs,
        previous=_previous_splits(root),
        val_scenes=config.val_scenes,
        test_scenes=config.test_scenes,
    )
    rows: list[CatalogRow] = []
    shards: list[Shard] = []
    for chunk, found, shard in _run(_chunks(pairs), root, config.geometry):
        split = splits[chunk[0].scene]
        rows.extend(_row(pair, split, what) for pair, what in zip(chunk, found, strict=True))
        if shard is not None:
            shards.append(Shard(split=split, **shard))
        progress(len(rows), len(pairs))
    _check_refused(rows, config.max_refused)
    version = set_version(rows, config.geometry)
    patch_set, reused = publish(root, _manifest(version, config, rows, shards), rows)
    return Ingested(patch_set, unplaced, reused, time.monotonic() - began)


def _list_all(config: IngestConfig, storage: Storage) -> tuple[list[Pair], list[str]]:
    pairs: list[Pair] = []
    unplaced: list[str] = []
    for text in config.corpora:
        found, left = Corpus.parse(text, storage).list_pairs(config.options)
        pairs.extend(found)
        unplaced.extend(left)
    ids = [p.id for p in pairs]
    if len(set(ids)) != len(ids):
        twice = next(i for i in ids if ids.count(i) > 1)
        raise UserError(f"pair '{twice}' is in two of the corpora; name each corpus folder once")
    return sorted(pairs, key=lambda p: p.id), unplaced


def _previous_splits(root: Location) -> dict[str, str]:
    pointer = root / "current.json"
    if not pointer.exists():
        return {}
    return {row.scene: row.split for row in open_catalog(root, read_pointer(pointer))}


def _chunks(pairs: Sequence[Pair]) -> list[list[Pair]]:
    """Pairs of one scene, in order, in runs of at most `_TASK_BYTES`."""
    chunks: dict[str, list[list[Pair]]] = {}
    for pair in pairs:
        runs = chunks.setdefault(pair.scene, [[]])
        if runs[-1] and sum(p.encoded_bytes for p in runs[-1]) + pair.encoded_bytes > _TASK_BYTES:
            runs.append([])
        runs[-1].append(pair)
    return [run for runs in chunks.values() for run in runs]


def _run(
    chunks: Sequence[Sequence[Pair]], root: Location, geometry: PatchGeometry
) -> Iterator[tuple[Sequence[Pair], list[Found], dict[str, Any] | None]]:
    """Run the tasks on Ray Data and give what each found, as they finish."""
    import ray.data

    def task(row: Mapping[str, object]) -> dict[str, object]:
        chunk = [Pair(**p) for p in json.loads(str(row["pairs"]))]
        try:
            found, shard = cut_chunk(chunk, root, geometry)
        except OSError as error:
            # Ray Data keeps of an exception only its text; as a value it stays whole.
            return {"number": row["number"], "error": str(error), "found": "[]", "shard": "null"}
        result = json.dumps([asdict(f) for f in found])
        return {"number": row["number"], "error": "", "found": result, "shard": json.dumps(shard)}

    items = [{"number": n, "pairs": json.dumps([asdict(p) for p in c])} for n, c in enumerate(chunks)]
    dataset = ray.data.from_items(items, override_num_blocks=min(len(items), _MOST_BLOCKS)).map(task)
    for row in dataset.iter_rows():
        if row["error"]:
            raise JobFailedError(
                f"reading the corpus or writing to '{root}' failed: {row['error']}; what was cut is kept, run it again"
            )
        found = [Found(**f) for f in json.loads(row["found"])]
        yield chunks[row["number"]], found, json.loads(row["shard"])


def cut_chunk(chunk: Sequence[Pair], root: Location, geometry: PatchGeometry) -> tuple[list[Found], dict[str, Any] | None]:
    """Read and cut pairs of one scene into a shard, or find the shard of the same content.

    Gives what was found for each pair and the shard's entry (None if every pair was refused).
    """
    files = [(_read(p.noisy, root.storage), _read(p.clean, root.storage)) for p in chunk]
    hashes = [(_hash(noisy), _hash(clean)) for noisy, clean in files]
    key = digest([CUTTER_VERSION, asdict(geometry), [[p.id, *h] for p, h in zip(chunk, hashes, strict=True)]])
    note, target = (root / "shards" / f"{key}.{kind}" for kind in ("json", "parquet"))
    if (kept := _kept(note, target)) is not None:
        return kept

    found: list[Found] = []
    with target.replacing() as path, target.filesystem.open_output_stream(path) as stream:
        with pq.ParquetWriter(
            stream,
            shard_schema(geometry),
            compression="none",
            use_dictionary=["pair"],
            write_statistics=False,
        ) as writer:
            for pair, (noisy, clean), (noisy_hash, clean_hash) in zip(chunk, files, hashes, strict=True):
                try:
                    photos = _decode_pair(pair, noisy, clean, geometry)
                except UnreadablePhotoError as error:
                    found.append(Found(noisy_hash, clean_hash, refused=str(error)))
                    continue
                table = pair_table(pair.id, *photos, geometry)
                writer.write_table(table)
                height, width = photos[0].shape[:2]
                found.append(Found(noisy_hash, clean_hash, height, width, None, table.num_rows))
        size = stream.tell()
    patches = sum(f.patches for f in found)
    shard = {"key": key, "patches": patches, "bytes": size} if patches else None
    note.write_bytes(json.dumps({"found": [asdict(f) for f in found], "shard": shard}).encode())
    return found, shard


def _kept(note: Location, target: Location) -> tuple[list[Found], dict[str, Any] | None] | None:
    """What was found when the shard `target` was cut; None if it never was, or if a failing disk damaged either file."""
    with contextlib.suppress(FileNotFoundError, ValueError, TypeError, KeyError, pa.ArrowException):
        said = json.loads(note.read_bytes())
        found, shard = [Found(**f) for f in said["found"]], said["shard"]
        if shard is not None:
            with target.filesystem.open_input_file(target.path) as file:
                if file.size() != shard["bytes"] or pq.read_metadata(file).num_rows != shard["patches"]:
                    return None
        return found, shard
    return None


def _read(uri: str, storage: Storage) -> bytes | None:
    """The file's bytes, or None if it went away after it was listed."""
    try:
        return storage.locate(uri).read_bytes()
    except FileNotFoundError:
        return None


def _hash(content: bytes | None) -> str:
    return "" if content is None else hashlib.blake2b(content, digest_size=16).hexdigest()


def _decode_pair(pair: Pair, noisy: bytes | None, clean: bytes | None, geometry: PatchGeometry) -> tuple[Photo, Photo]:
    """Both photos. Raises UnreadablePhotoError, naming the file, if the pair cannot be used."""
    a, b = _decode_named(pair.noisy, noisy), _decode_named(pair.clean, clean)
    if a.shape != b.shape:
        sizes = " and ".join(f"{p.shape[1]}x{p.shape[0]}" for p in (a, b))
        raise UnreadablePhotoError(f"{pair.noisy} and its clean photo have unequal sizes, {sizes}")
    if min(a.shape[:2]) < geometry.patch_size:
        raise UnreadablePhotoError(
            f"{pair.noisy} is {a.shape[1]}x{a.shape[0]}, smaller than a patch of {geometry.patch_size}; lower --patch-size"
        )
    return a, b


def _decode_named(uri: str, content: bytes | None) -> Photo:
    if content is None:
        raise UnreadablePhotoError(f"{uri}: the file went away after it was listed")
    try:
        return decode(content)
    except UnreadablePhotoError as error:
        raise UnreadablePhotoError(f"{uri}: {error}") from None


def _row(pair: Pair, split: str, found: Found) -> CatalogRow:
    return CatalogRow(
        id=pair.id,
        corpus=pair.corpus,
        scene=pair.scene,
        split=split,
        noisy=pair.noisy,
        clean=pair.clean,
        noisy_hash=found.noisy_hash,
        clean_hash=found.clean_hash,
        height=found.height,
        width=found.width,
        bit_depth=None if found.height is None else 8,
        camera=pair.camera,
        iso=pair.iso,
        shutter=pair.shutter,
        brightness=pair.brightness,
        refused=found.refused,
        patches=found.patches,
    )


def _check_refused(rows: Sequence[CatalogRow], limit: float) -> None:
    refused = [r.refused for r in rows if r.refused is not None]
    if len(refused) > limit * len(rows) or len(refused) == len(rows):
        raise UserError(
            f"{len(refused)} of {len(rows)} pairs were refused, over the limit of {limit:.0%} (--max-refused); "
            f"the first: {min(refused)}"
        )


def _manifest(version: str, config: IngestConfig, rows: Iterable[CatalogRow], shards: Iterable[Shard]) -> Manifest:
    listed = list(rows)
    used = [(r.height, r.width) for r in listed if r.height is not None and r.width is not None]
    return Manifest(
        version=version,
        geometry=config.geometry,
        corpora=[list(split_name(text)) for text in config.corpora],
        shards=sorted(shards, key=lambda s: s.key),
        pairs=len(listed),
        refused=len(listed) - len(used),
        covered=sum(covered_pixels(h, w, config.geometry) for h, w in used) / sum(h * w for h, w in used),
    )
