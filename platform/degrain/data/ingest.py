"""Ingest: a corpus becomes a patch set, through Ray Data.

The driver lists names, assigns splits and looks up what the previous patch set knows: pairs whose files have the size and
time of before keep their shard, unread. The others go to tasks, each of a few pairs of one scene: it reads the files,
hashes them, and unless a shard of that content exists, decodes, checks and cuts pair by pair into one. What comes back is
only what was found, so memory depends neither on the corpus nor on the length of a shard. The driver refuses what is
there twice, names the version and publishes it.
"""

import contextlib
import ctypes
import itertools
import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from degrain.data.catalog import CatalogRow
from degrain.data.checks import CheckRules, aligned, decode_pair, measure
from degrain.data.corpora import LIKE, Corpus, CorpusOptions, Pair, split_name
from degrain.data.patches import (
    CUTTER_VERSION,
    Manifest,
    PatchGeometry,
    PatchSet,
    Shard,
    covered_pixels,
    digest,
    groups_of,
    open_catalog,
    pair_tables,
    patched_pixels,
    publish,
    read_pointer,
    set_version,
    shard_schema,
)
from degrain.data.photos import content_hash, made_hash
from degrain.data.splits import SPLITS, assign_splits
from degrain.errors import JobFailedError, UserError
from degrain.imaging.codecs import UnreadablePhotoError, is_deep
from degrain.imaging.pixels import Photo
from degrain.imaging.statistics import fit_noise
from degrain.storage import Location, Storage, patiently

_SHARD_BYTES = 64 * 2**20
"""Encoded photos that go into one shard; a single larger pair has a shard of its own."""
_TASK_BYTES = 256 * 2**20
"""Encoded photos that one task takes."""
_TASKS_PER_CPU = 4
# M_TRIM_THRESHOLD, M_TOP_PAD and M_MMAP_THRESHOLD of glibc's malloc.h; the last has this upper bound.
_MALLOC_OPTIONS = {-1: 2**31 - 1, -2: 256 * 2**20, -3: 32 * 2**20}
_SAME = "it has the content of"
"""Begins the reason of a pair that is there twice."""


@dataclass(frozen=True, kw_only=True)
class IngestConfig:
    """What to ingest, and how."""

    corpora: Sequence[str]
    """Each `NAME=URI`."""
    out: str
    """URI of the folder that patch sets go into."""
    geometry: PatchGeometry = field(default_factory=PatchGeometry)
    """Where patches lie on a photo."""
    rules: CheckRules = field(default_factory=CheckRules)
    """What makes a pair be refused."""
    options: CorpusOptions = field(default_factory=CorpusOptions)
    """How files of a corpus of one's own are named, and what noise clean photos get."""
    max_refused: float = 0.05
    """The job fails if more than this share of the pairs is refused."""
    val_scenes: Sequence[str] = ()
    """Scenes that go to the val split."""
    test_scenes: Sequence[str] = ()
    """Scenes that go to the test split."""
    reread: bool = False
    """Read every photo and shard again, even where size and time are unchanged."""

    def __post_init__(self) -> None:
        if not self.corpora:
            raise ValueError("name at least one corpus with --corpus NAME=URI")
        for text in self.corpora:
            split_name(text)
        if not 0 <= self.max_refused <= 1:
            raise ValueError(f"max_refused must be a share between 0 and 1, got {self.max_refused}")


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a task found out about one pair; the fields of a catalog row that are not known from names."""

    noisy_hash: str = ""
    clean_hash: str = ""
    height: int | None = None
    width: int | None = None
    bit_depth: int | None = None
    shift_y: float | None = None
    shift_x: float | None = None
    shift_gain: float | None = None
    move_y: int | None = None
    move_x: int | None = None
    exposure: float | None = None
    clipped: float | None = None
    refused: str | None = None
    patches: int = 0


_FOUND = tuple(f.name for f in fields(Found))


@dataclass(frozen=True)
class Ingested:
    """The outcome of an ingest."""

    patch_set: PatchSet
    unplaced: list[str]
    """Photos that belong to no pair."""
    reused: bool
    """Whether the set was there already."""
    cut: int
    """Pairs that were read; the others were known."""
    seconds: float


@dataclass(frozen=True)
class Outcome:
    """What became of the pairs of a chunk: their rows, and the shard that holds their patches."""

    rows: list[CatalogRow]
    shard: Shard | None


def ingest(
    config: IngestConfig,
    storage: Storage,
    *,
    start_ray: Callable[[], None],
    progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> Ingested:
    """Make the patch set of the corpora, or find it.

    `start_ray` is called if there is something to cut; `progress` gets (pairs done, pairs in all). Raises UserError for a
    missing folder, a corpus without pairs, or too many refused pairs. A set that exists stays as it is, but for what is
    damaged or says where photos were before they moved.
    """
    began = time.monotonic()
    root = storage.locate(config.out)
    root.check_writable()
    pairs, unplaced = patiently(lambda: _list_all(config, storage))
    previous = patiently(lambda: Previous.read(root))
    splits = assign_splits(pairs, previous=previous.splits, val_scenes=config.val_scenes, test_scenes=config.test_scenes)
    outcomes, pending = list[Outcome](), pairs
    if not config.reread:
        outcomes, pending = patiently(lambda: previous.settle(pairs, splits, config, root))
    done = len(pairs) - len(pending)
    if pending:
        start_ray()
    for outcome in _run(_chunks(pending), splits, root, config):
        outcomes.append(outcome)
        done += len(outcome.rows)
        progress(done, len(pairs))
    outcomes = _without_repeats(outcomes, pairs, splits, previous, root, config, start_ray)
    rows = sorted((row for outcome in outcomes for row in outcome.rows), key=lambda row: row.id)
    _check_refused(rows, config.max_refused)
    _check_splits(rows)
    version = set_version(rows, config.geometry, config.rules)
    manifest = _manifest(version, config, rows, [o.shard for o in outcomes if o.shard is not None])
    patch_set, reused = patiently(lambda: publish(root, manifest, rows))
    return Ingested(patch_set, unplaced, reused, len(pending), time.monotonic() - began)


def _list_all(config: IngestConfig, storage: Storage) -> tuple[list[Pair], list[str]]:
    pairs: list[Pair] = []
    unplaced: list[str] = []
    options = _with_fitted_noise(config.options, storage)
    for text in config.corpora:
        found, left = Corpus.parse(text, storage).list_pairs(options)
        pairs.extend(found)
        unplaced.extend(left)
    pairs.sort(key=lambda p: p.id)
    for one, other in itertools.pairwise(pairs):
        if one.id == other.id:
            raise UserError(
                f"pair '{one.id}' is there twice; name a corpus once, and two of one kind apart: --corpus NAME:LABEL=URI"
            )
    return pairs, unplaced


def _with_fitted_noise(options: CorpusOptions, storage: Storage) -> CorpusOptions:
    """Noise `like:PATCHSET` becomes noise fitted to that set's pairs: one fit for each camera and ISO."""
    if not options.noise.startswith(LIKE):
        return options
    measured = PatchSet.open(options.noise.removeprefix(LIKE), storage)
    examples: dict[tuple[str | None, int | None], CatalogRow] = {}
    for row in measured.catalog:
        if row.refused is None and row.noise is None:
            examples.setdefault((row.camera, row.iso), row)
    if not examples:
        raise UserError(f"patch set {measured.uri} has no real pairs whose noise could be measured; name another")
    fits = [fit_noise(*measured.source.load(row)) for row in examples.values()]
    return replace(
        options, noise="fitted:" + ";".join(f"{f.gain:.5g},{f.read:.5g},{max(f.correlation, 0):.3g}" for f in fits)
    )


@dataclass(frozen=True)
class Previous:
    """The newest patch set below the folder that ingest writes to, as far as it can be read."""

    rows: Mapping[str, CatalogRow] = field(default_factory=dict)
    """By id."""
    manifest: Manifest | None = None

    @classmethod
    def read(cls, root: Location) -> "Previous":
        """Look it up. Raises UserError if its catalog is damaged, because it holds the splits."""
        pointer = root / "current.json"
        if not pointer.exists():
            return cls()
        version = read_pointer(pointer)
        rows = {row.id: row for row in open_catalog(root, version)}
        with contextlib.suppress(FileNotFoundError, ValueError, KeyError, TypeError):
            return cls(rows, Manifest.from_json((root / version / "manifest.json").read_bytes()))
        return cls(rows)

    @property
    def splits(self) -> dict[str, str]:
        """The split of each scene."""
        return {row.scene: row.split for row in self.rows.values()}

    def settle(
        self, pairs: Sequence[Pair], splits: Mapping[str, str], config: IngestConfig, root: Location
    ) -> tuple[list[Outcome], list[Pair]]:
        """The outcomes that need no reading, and the pairs that do.

        A shard is kept if all its pairs are there with unchanged files and its own file has the size that it should have.
        """
        known = self.manifest
        if known is None or (known.geometry, known.rules) != (config.geometry, config.rules):
            return [], list(pairs)
        sizes = (root / "shards").files() if (root / "shards").exists() else {}
        shards = {
            s.key: s for s in known.shards if f"{s.key}.parquet" in sizes and sizes[f"{s.key}.parquet"].size == s.bytes
        }
        members: dict[str, set[str]] = defaultdict(set)
        for row in self.rows.values():
            if row.shard is not None:
                members[row.shard].add(row.id)
        same = {pair.id: pair for pair in pairs if self._unchanged(pair)}
        kept = {key for key, ids in members.items() if key in shards and ids <= same.keys()}
        outcomes: dict[str | None, list[CatalogRow]] = defaultdict(list)
        pending: list[Pair] = []
        for pair in pairs:
            before = self.rows.get(pair.id)
            if before is None or pair.id not in same or (before.shard not in kept and before.refused is None):
                pending.append(pair)
            else:
                outcomes[before.shard].append(_row(pair, splits[pair.scene], _found(before), before.shard))
        return [
            Outcome(rows, None if key is None else replace(shards[key], split=rows[0].split))
            for key, rows in outcomes.items()
        ], pending

    def _unchanged(self, pair: Pair) -> bool:
        row = self.rows.get(pair.id)
        if row is None or not pair.stamp or row.stamp != pair.stamp:
            return False
        return (row.scene, row.noise) == (pair.scene, pair.noise)


def _found(row: CatalogRow) -> Found:
    return Found(**{name: getattr(row, name) for name in _FOUND})


def _chunks(pairs: Sequence[Pair]) -> list[list[Pair]]:
    """Pairs of one scene, in order, in runs of at most `_SHARD_BYTES`: each becomes a shard."""
    chunks: dict[str, list[list[Pair]]] = {}
    sizes: dict[str, int] = {}
    for pair in pairs:
        runs = chunks.setdefault(pair.scene, [[]])
        size = sizes.get(pair.scene, 0)
        if runs[-1] and size + pair.encoded_bytes > _SHARD_BYTES:
            runs.append([])
            size = 0
        runs[-1].append(pair)
        sizes[pair.scene] = size + pair.encoded_bytes
    return [run for runs in chunks.values() for run in runs]


def _run(
    chunks: Sequence[Sequence[Pair]], splits: Mapping[str, str], root: Location, config: IngestConfig
) -> Iterator[Outcome]:
    """Run the tasks on Ray Data and give what each found, as they finish."""
    if not chunks:
        return
    import ray.data

    # Else it waits for the first task's end to see how much its results weigh; they weigh nothing.
    ray.data.DataContext.get_current().op_resource_reservation_enabled = False
    geometry, rules = config.geometry, config.rules

    def task(row: Mapping[str, object]) -> dict[str, object]:
        _keep_freed_memory()
        chunk = [Pair(**p) for p in json.loads(str(row["pairs"]))]
        try:
            found, shard = patiently(lambda: cut_chunk(chunk, root, geometry, rules))
        except OSError as error:
            # Ray Data keeps of an exception only its text; as a value it stays whole.
            return {"number": row["number"], "error": str(error), "found": "[]", "shard": "null"}
        result = json.dumps([asdict(f) for f in found])
        return {"number": row["number"], "error": "", "found": result, "shard": json.dumps(shard)}

    items = [{"number": n, "pairs": json.dumps([asdict(p) for p in c])} for n, c in enumerate(chunks)]
    dataset = ray.data.from_items(items, override_num_blocks=_blocks(chunks)).map(task)
    for row in dataset.iter_rows():
        if row["error"]:
            raise JobFailedError(
                f"reading the corpus or writing to '{root}' failed: {row['error']}; what was cut is kept, run it again"
            )
        chunk = chunks[row["number"]]
        found = [Found(**f) for f in json.loads(row["found"])]
        said = json.loads(row["shard"])
        split = splits[chunk[0].scene]
        key = said["key"] if said else None
        rows = [_row(pair, split, what, key) for pair, what in zip(chunk, found, strict=True)]
        yield Outcome(rows, Shard(split=split, **said) if said else None)


def _keep_freed_memory() -> None:
    """Let this worker's allocator keep what is freed: photos come and go, and fresh pages from the system cost more than the
    copying into them. Without glibc nothing happens.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, value in _MALLOC_OPTIONS.items():
            mallopt(parameter, value)


def _blocks(chunks: Sequence[Sequence[Pair]]) -> int:
    """How many tasks: each of some seconds, because between two of them a CPU waits a tenth; a few for each CPU."""
    import ray

    by_size = sum(p.encoded_bytes for chunk in chunks for p in chunk) // _TASK_BYTES
    cpus = int(ray.cluster_resources().get("CPU", 1))
    return min(len(chunks), max(by_size, _TASKS_PER_CPU * cpus))


def cut_chunk(
    chunk: Sequence[Pair], root: Location, geometry: PatchGeometry, rules: CheckRules
) -> tuple[list[Found], dict[str, Any] | None]:
    """Read, check and cut pairs of one scene into a shard, or find the shard of the same content.

    Gives what was found for each pair and the shard's entry (None if every pair was refused).
    """
    files = [_read_pair(p, root.storage) for p in chunk]
    hashes = [_hashes(p, *contents) for p, contents in zip(chunk, files, strict=True)]
    key = digest([CUTTER_VERSION, asdict(geometry), asdict(rules), [[p.id, *h] for p, h in zip(chunk, hashes, strict=True)]])
    note, target = (root / "shards" / f"{key}.{kind}" for kind in ("json", "parquet"))
    if (kept := _kept(note, target)) is not None:
        return kept

    bits = 16 if any(content is not None and is_deep(content) for contents in files for content in contents) else 8
    found: list[Found] = []
    with target.replacing() as path, target.filesystem.open_output_stream(path) as stream:
        with pq.ParquetWriter(
            stream,
            shard_schema(geometry, bits),
            compression="none",
            use_dictionary=["pair"],
            write_statistics=False,
            # Arrow counts values, and a patch is a large one.
            write_batch_size=16,
        ) as writer:
            for number, (pair, (noisy_hash, clean_hash)) in enumerate(zip(chunk, hashes, strict=True)):
                # The files of a large pair need not stay in memory while its patches are cut.
                (noisy, clean), files[number] = files[number], (None, None)
                try:
                    photos, what = _checked(pair, noisy, clean, geometry, rules)
                except UnreadablePhotoError as error:
                    found.append(Found(noisy_hash=noisy_hash, clean_hash=clean_hash, refused=str(error)))
                    continue
                del noisy, clean
                patches = 0
                for table in pair_tables(pair.id, *photos, geometry, bits):
                    writer.write_table(table)
                    patches += table.num_rows
                found.append(replace(what, noisy_hash=noisy_hash, clean_hash=clean_hash, patches=patches))
        size = stream.tell()
    patches = sum(f.patches for f in found)
    shard = {"key": key, "patches": patches, "bits": bits, "bytes": size} if patches else None
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


def _read_pair(pair: Pair, storage: Storage) -> tuple[bytes | None, bytes | None]:
    clean = _read(pair.clean, storage)
    return (None if pair.noise is not None else _read(pair.noisy, storage)), clean


def _read(uri: str, storage: Storage) -> bytes | None:
    """The file's bytes, or None if it went away after it was listed."""
    try:
        return storage.locate(uri).read_bytes()
    except FileNotFoundError:
        return None


def _hashes(pair: Pair, noisy: bytes | None, clean: bytes | None) -> tuple[str, str]:
    clean_hash = content_hash(clean)
    return (content_hash(noisy) if pair.noise is None else made_hash(clean_hash, pair.noise, pair.id)), clean_hash


def _checked(
    pair: Pair, noisy: bytes | None, clean: bytes | None, geometry: PatchGeometry, rules: CheckRules
) -> tuple[tuple[Photo, Photo], Found]:
    """Both photos, aligned, and what was measured. Raises UnreadablePhotoError, with the reason, if the pair is refused."""
    a, b = decode_pair(pair, noisy, clean, rules)
    measured = measure(pair, a, b, rules)
    bit_depth = 8 * max(a.dtype.itemsize, b.dtype.itemsize)
    a, b = aligned(a, b, measured.move_y, measured.move_x)
    height, width = a.shape[:2]
    if min(height, width) < geometry.patch_size:
        raise UnreadablePhotoError(
            f"{pair.noisy} is {width}x{height}, smaller than a patch of {geometry.patch_size}; lower --patch-size"
        )
    return (a, b), Found(height=height, width=width, bit_depth=bit_depth, **asdict(measured))


def _row(pair: Pair, split: str, found: Found, shard: str | None) -> CatalogRow:
    return CatalogRow(
        id=pair.id,
        corpus=pair.corpus,
        scene=pair.scene,
        split=split,
        noisy=pair.noisy,
        clean=pair.clean,
        noise=pair.noise,
        stamp=pair.stamp,
        camera=pair.camera,
        iso=pair.iso,
        shutter=pair.shutter,
        brightness=pair.brightness,
        shard=shard if found.refused is None else None,
        **{name: getattr(found, name) for name in _FOUND},
    )


def _without_repeats(
    outcomes: Sequence[Outcome],
    pairs: Sequence[Pair],
    splits: Mapping[str, str],
    previous: Previous,
    root: Location,
    config: IngestConfig,
    start_ray: Callable[[], None],
) -> list[Outcome]:
    """The outcomes with what is there twice refused, and with what is alone by now cut; the other shards stay."""
    repeats = find_repeats([row for o in outcomes for row in o.rows], previous.rows)
    by_id = {pair.id: pair for pair in pairs}
    result: list[Outcome] = []
    again: list[list[Pair]] = []
    for outcome in outcomes:
        if all((row.id in repeats) == _is_repeat(row) for row in outcome.rows):
            result.append(outcome)
            continue
        apart = [row for row in outcome.rows if row.id in repeats or (row.refused is not None and not _is_repeat(row))]
        left = {row.id for row in outcome.rows} - {row.id for row in apart}
        again.append([by_id[row.id] for row in outcome.rows if row.id in left])
        refused = [replace(row, shard=None, patches=0, refused=repeats.get(row.id, row.refused)) for row in apart]
        result.append(Outcome(refused, None))
    again = [chunk for chunk in again if chunk]
    if again:
        start_ray()
    return [*result, *_run(again, splits, root, config)]


def _is_repeat(row: CatalogRow) -> bool:
    return row.refused is not None and _SAME in row.refused


def find_repeats(rows: Iterable[CatalogRow], before: Mapping[str, CatalogRow]) -> dict[str, str]:
    """Why pairs are refused for being there twice, by id.

    A noisy photo counts once. A photo that is in two scenes would leak from one split to another, so only the first scene
    keeps it. Of equals the one that was in the set before stays, then the first by id.
    """

    def rank(row: CatalogRow) -> tuple[bool, str]:
        known = before.get(row.id)
        return known is None or known.refused is not None, row.id

    noisy: dict[str, CatalogRow] = {}
    owner: dict[str, CatalogRow] = {}
    repeats: list[CatalogRow] = []
    for row in sorted((r for r in rows if r.refused is None or _is_repeat(r)), key=rank):
        hashes = (row.noisy_hash, row.clean_hash)
        if row.noisy_hash in noisy or any(h in owner and owner[h].scene != row.scene for h in hashes):
            repeats.append(row)
            continue
        noisy[row.noisy_hash] = row
        for content in hashes:
            owner.setdefault(content, row)
    # Reasons are worded when all is known, so that the next ingest, which starts from here, words them the same.
    return {row.id: _repeat_reason(row, noisy, owner) for row in repeats}


def _repeat_reason(row: CatalogRow, noisy: Mapping[str, CatalogRow], owner: Mapping[str, CatalogRow]) -> str:
    if (same := noisy.get(row.noisy_hash)) is not None:
        return f"{row.noisy}: {_SAME} {same.noisy}, which is in the set"
    found = ((uri, owner.get(h)) for uri, h in ((row.noisy, row.noisy_hash), (row.clean, row.clean_hash)))
    uri, other = next((uri, o) for uri, o in found if o is not None and o.scene != row.scene)
    return f"{uri}: {_SAME} a photo of another scene, {other.scene}"


def _check_refused(rows: Sequence[CatalogRow], limit: float) -> None:
    refused = [r.refused for r in rows if r.refused is not None]
    if len(refused) > limit * len(rows) or len(refused) == len(rows):
        raise UserError(
            f"{len(refused)} of {len(rows)} pairs were refused, over the limit of {limit:.0%} (--max-refused); "
            f"the first: {min(refused)}"
        )


def _check_splits(rows: Sequence[CatalogRow]) -> None:
    """Raise UserError where refusals left a split without pairs: training, validation and comparison each need some."""
    for split in SPLITS:
        ours = [row for row in rows if row.split == split]
        if all(row.refused is not None for row in ours):
            raise UserError(
                f"all {len(ours)} pairs of the {split} split were refused, the first: {ours[0].refused}; mend them, remove "
                f"them, or name other scenes with --val-scenes and --test-scenes"
            )


def _manifest(version: str, config: IngestConfig, rows: Sequence[CatalogRow], shards: Iterable[Shard]) -> Manifest:
    used = [(r.height, r.width) for r in rows if r.height is not None and r.width is not None and r.refused is None]
    pixels = sum(h * w for h, w in used)
    return Manifest(
        version=version,
        geometry=config.geometry,
        rules=config.rules,
        corpora=[list(split_name(text)) for text in config.corpora],
        shards=sorted(shards, key=lambda s: s.key),
        pairs=len(rows),
        refused=len(rows) - len(used),
        covered=sum(covered_pixels(h, w, config.geometry) for h, w in used) / pixels,
        overlap=sum(patched_pixels(h, w, config.geometry) for h, w in used) / pixels,
        groups=groups_of(rows),
    )
