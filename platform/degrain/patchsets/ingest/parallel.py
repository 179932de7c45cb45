"""Cut chunks in parallel on Ray Data: a table with one row per pair goes in, and comes back cut.

Rows carry the pairs' records in typed columns, so memory depends neither on the corpus nor on the
length of a shard.
"""

import contextlib
import ctypes
from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from degrain import cluster
from degrain.corpora.record import PairRecord
from degrain.errors import JobFailedError
from degrain.patchsets.catalog import RECORD_SCHEMA, record_table, table_records
from degrain.patchsets.check_rules import CheckRules
from degrain.patchsets.geometry import PatchGeometry
from degrain.patchsets.ingest.cut import CutShard, cut_chunk
from degrain.patchsets.manifest import Shard
from degrain.patchsets.packed import columns
from degrain.storage.location import Location
from degrain.storage.retry import retry

_SHARD_BYTES = 64 * 2**20
"""Encoded photos that go into one shard; a single larger pair has a shard of its own."""
_SHARD_PAIRS = 1000
"""Pairs that go into one shard, at most."""
_TASK_BYTES = 256 * 2**20
"""Encoded photos that one task takes, about."""
_TASK_PAIRS = 2500
"""Pairs that one task takes, about."""
_TASKS_PER_CPU = 4
_TASKS_PER_PROCESS = 4
"""Tasks after which a process is replaced: Python 3.11 aborts after some ten thousand damaged PNGs,
of which each costs imagecodecs a reference to None.
"""
# M_TRIM_THRESHOLD, M_TOP_PAD and M_MMAP_THRESHOLD of glibc's malloc.h; the last has this upper
# bound.
_MALLOC_OPTIONS = {-1: 2**31 - 1, -2: 256 * 2**20, -3: 32 * 2**20}

_CHUNK = pa.field("chunk", pa.int64())
_CUT_SCHEMA = pa.schema(
    [
        *RECORD_SCHEMA,
        _CHUNK,
        ("shard_patches", pa.int64()),
        ("shard_bits", pa.int64()),
        ("shard_bytes", pa.int64()),
        ("shard_written", pa.bool_()),
        ("error", pa.string()),
    ]
)


def make_chunks(
    pairs: Sequence[PairRecord], together: NDArray[np.int32] | None = None
) -> list[list[PairRecord]]:
    """Pairs of one scene, in order, in runs of at most `_SHARD_BYTES` and `_SHARD_PAIRS`; each
    becomes a shard.
    """
    numbers = chunk_numbers(pairs, together)
    chunks: list[list[PairRecord]] = [[] for _ in range(int(numbers.max(initial=-1)) + 1)]
    for number, pair in zip(numbers.tolist(), pairs, strict=True):
        chunks[number].append(pair)
    return chunks


def chunk_numbers(
    pairs: Sequence[PairRecord], together: NDArray[np.int32] | None = None
) -> NDArray[np.int64]:
    """The number of each pair's chunk; chunks are in the order of scenes, then of pairs.

    Pairs of one scene that have the same number in `together`, if it is not -1, are apart from
    others.
    """
    scenes: dict[tuple[str, int], int] = {}
    runs: list[int] = []
    sizes: list[int] = []
    counts: list[int] = []
    scene_of = np.empty(len(pairs), np.int64)
    run_of = np.empty(len(pairs), np.int64)
    for place, (scene, size) in enumerate(columns(pairs, "scene", "encoded_bytes")):
        apart = -1 if together is None else int(together[place])
        number = scenes.setdefault((scene, apart), len(scenes))
        if number == len(runs):
            runs.append(0)
            sizes.append(0)
            counts.append(0)
        elif sizes[number] + size > _SHARD_BYTES or counts[number] == _SHARD_PAIRS:
            runs[number] += 1
            sizes[number] = counts[number] = 0
        sizes[number] += size
        counts[number] += 1
        scene_of[place], run_of[place] = number, runs[number]
    first = np.cumsum([0, *(count + 1 for count in runs)])
    return np.asarray(first[scene_of] + run_of, np.int64)


def cut_in_parallel(
    chunks: Sequence[Sequence[PairRecord]],
    root: Location,
    geometry: PatchGeometry,
    rules: CheckRules,
) -> Iterator[CutShard]:
    """Cut each chunk into a shard below `root`, on Ray Data; yields them as they finish.

    Starts Ray if there is something to cut. Raises JobFailedError if storage fails.
    """
    if not chunks:
        return
    cluster.start_ray()
    import ray.data

    # Else Ray waits for the first task to see how large its results are; they are tiny.
    ray.data.DataContext.get_current().op_resource_reservation_enabled = False
    cut = partial(_cut_table, root=root, geometry=geometry, rules=rules)
    dataset = ray.data.from_arrow(_task_tables(chunks)).map_batches(
        cut,
        batch_size=None,
        batch_format="pyarrow",
        zero_copy_batch=True,
        max_calls=_TASKS_PER_PROCESS,
    )
    tables = iter(dataset.iter_batches(batch_size=None, batch_format="pyarrow"))
    failure: JobFailedError | None = None
    # Closed at once after Ctrl-C, whose traceback would else keep the tasks running.
    with contextlib.closing(tables):
        for table in tables:
            for number in table["chunk"].unique().to_pylist():
                try:
                    yield _cut_shard(table.filter(pc.equal(table["chunk"], number)), root)
                except JobFailedError as error:
                    failure = failure or error
    # After all tasks, so that none still writes when the caller has the error.
    if failure is not None:
        raise failure


def _task_tables(chunks: Sequence[Sequence[PairRecord]]) -> list[pa.Table]:
    """One table per task; the chunks are dealt out in turns, so that tasks are of one length."""
    import ray

    # Tasks of some seconds, because a CPU waits a tenth of one between two; a few per CPU.
    by_size = sum(p.encoded_bytes for chunk in chunks for p in chunk) // _TASK_BYTES
    by_pairs = sum(map(len, chunks)) // _TASK_PAIRS
    cpus = int(ray.cluster_resources().get("CPU", 1))
    tasks = min(len(chunks), max(by_size, by_pairs, _TASKS_PER_CPU * cpus))
    numbered = list(enumerate(chunks))
    return [_chunk_table(numbered[first::tasks]) for first in range(tasks)]


def _chunk_table(numbered: Sequence[tuple[int, Sequence[PairRecord]]]) -> pa.Table:
    records = [pair for _, chunk in numbered for pair in chunk]
    numbers = [number for number, chunk in numbered for _ in chunk]
    return record_table(records).append_column(_CHUNK, pa.array(numbers, pa.int64()))


def _cut_table(
    table: pa.Table, root: Location, geometry: PatchGeometry, rules: CheckRules
) -> Iterator[pa.Table]:
    """Cut the chunks of one table, one after the other, up to an error; the body of a task."""
    _keep_freed_memory()
    for number in table["chunk"].unique().to_pylist():
        rows = table.filter(pc.equal(table["chunk"], number))
        chunk = table_records(rows.drop_columns(["chunk"]))
        try:
            cut = retry(partial(cut_chunk, chunk, root, geometry, rules))
        except OSError as error:
            # Of an exception Ray Data keeps only the text; as a value it stays whole.
            yield _cut_rows(number, CutShard(chunk, None), str(error))
            return
        yield _cut_rows(number, cut, None)


def _cut_rows(number: int, cut: CutShard, error: str | None) -> pa.Table:
    shard, count = cut.shard, len(cut.records)
    columns = {
        "chunk": number,
        "shard_patches": shard and shard.patches,
        "shard_bits": shard and shard.bits,
        "shard_bytes": shard and shard.bytes,
        "shard_written": cut.written,
        "error": error,
    }
    table = record_table(cut.records)
    for name, value in columns.items():
        field = _CUT_SCHEMA.field(name)
        table = table.append_column(field, pa.array([value] * count, field.type))
    return table


def _cut_shard(table: pa.Table, root: Location) -> CutShard:
    """The rows of one chunk as records and shard. Raises JobFailedError for an error."""
    first = table.slice(0, 1).to_pylist()[0]
    if first["error"] is not None:
        raise JobFailedError(
            f"reading the corpus or writing to '{root}' failed: {first['error']}; what was cut is "
            "kept, run it again"
        )
    records = table_records(table.select(RECORD_SCHEMA.names))
    if first["shard_patches"] is None:
        return CutShard(records, None)
    shard = Shard(
        key=next(record.shard for record in records if record.shard is not None),
        split=records[0].split,
        patches=first["shard_patches"],
        bits=first["shard_bits"],
        bytes=first["shard_bytes"],
    )
    return CutShard(records, shard, first["shard_written"])


def _keep_freed_memory() -> None:
    """Let this worker's allocator keep freed memory; does nothing without glibc.

    Photos are allocated and freed in turn, and fresh pages cost more than copying into them.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, value in _MALLOC_OPTIONS.items():
            mallopt(parameter, value)
