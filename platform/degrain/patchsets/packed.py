"""Long lists of records in little memory: compressed Arrow tables in place of Python objects.

A record takes about a kilobyte as a Python object and a twentieth of it here.
"""

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import chain, islice, pairwise
from operator import attrgetter
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from degrain.corpora.record import PairRecord
from degrain.patchsets.catalog import RECORD_SCHEMA, record_table, table_records

BLOCK_RECORDS = 16_384
"""Records that are compressed together; fewer stay a list."""
RUN_BLOCKS = 16
"""Blocks that are sorted at once."""


class PackedRecords(Sequence[PairRecord]):
    """Records in compressed blocks; best read from the first to the last."""

    def __init__(self, tables: Iterable[pa.Table]) -> None:
        self._blocks: list[pa.Buffer] = []
        self._lengths: list[int] = []
        for table in tables:
            if table.num_rows:
                self._blocks.append(_compressed(table))
                self._lengths.append(table.num_rows)
        self._length = sum(self._lengths)

    @classmethod
    def joined(cls, parts: Iterable["PackedRecords"]) -> "PackedRecords":
        """The records of all parts, whose blocks are shared."""
        made = cls(())
        for part in parts:
            made._blocks += part._blocks
            made._lengths += part._lengths
            made._length += len(part)
        return made

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[PairRecord]:
        for table in self.tables():
            yield from table_records(table)

    @overload
    def __getitem__(self, place: int) -> PairRecord: ...
    @overload
    def __getitem__(self, place: slice) -> list[PairRecord]: ...
    def __getitem__(self, place: int | slice) -> PairRecord | list[PairRecord]:
        numbers = range(len(self))[place]
        if isinstance(numbers, range):
            return [self[number] for number in numbers]
        for block, length in zip(self._blocks, self._lengths, strict=True):
            if numbers < length:
                return table_records(_table(block).slice(numbers, 1))[0]
            numbers -= length
        raise AssertionError(place)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def tables(self) -> Iterator[pa.Table]:
        """The blocks, one at a time, with the columns of `RECORD_SCHEMA`."""
        yield from map(_table, self._blocks)

    @property
    def nbytes(self) -> int:
        """Bytes of all blocks."""
        return sum(block.size for block in self._blocks)


def pack(tables: Iterable[pa.Table]) -> Sequence[PairRecord]:
    """The records of tables: a list if they are few, else packed."""
    tables = iter(tables)
    first, rows = list[pa.Table](), 0
    for table in tables:
        first.append(table)
        rows += table.num_rows
        if rows >= BLOCK_RECORDS:
            return PackedRecords(chain(first, tables))
    return [record for table in first for record in table_records(table)]


def columns(records: Sequence[PairRecord], *names: str) -> Iterator[tuple[Any, ...]]:
    """The values of these fields, record by record."""
    if not isinstance(records, PackedRecords):
        yield from map(attrgetter(*names), records)
        return
    for table in records.tables():
        yield from zip(*(table[name].to_pylist() for name in names), strict=True)


def transform(
    records: Sequence[PairRecord], change: Callable[[pa.Table], pa.Table]
) -> Sequence[PairRecord]:
    """The records after a change of each block's table."""
    if isinstance(records, PackedRecords):
        return pack(map(change, records.tables()))
    return table_records(change(record_table(records)))


def select(records: Sequence[PairRecord], mask: NDArray[np.bool_]) -> Sequence[PairRecord]:
    """The records where the mask is true."""
    if not isinstance(records, PackedRecords):
        return [record for record, chosen in zip(records, mask.tolist(), strict=True) if chosen]
    return pack(_selected(records, mask))


def _selected(records: PackedRecords, mask: NDArray[np.bool_]) -> Iterator[pa.Table]:
    start = 0
    for table in records.tables():
        yield table.filter(pa.array(mask[start : start + table.num_rows]))
        start += table.num_rows


def sorted_by_id(records: Iterable[PairRecord]) -> Sequence[PairRecord]:
    """All records in the order of their ids: a list if they are few, else packed."""
    records = iter(records)
    first = list(islice(records, BLOCK_RECORDS))
    if len(first) < BLOCK_RECORDS:
        return sorted(first, key=attrgetter("id"))
    records = chain(first, records)
    runs = list(iter(partial(_sorted_run, records), None))
    runs.sort(key=lambda run: run[0].id)
    if all(one[-1].id <= other[0].id for one, other in pairwise(runs)):
        return PackedRecords.joined(runs)
    return pack(batched_tables(heapq.merge(*runs, key=attrgetter("id"))))


def batched_tables(records: Iterable[PairRecord]) -> Iterator[pa.Table]:
    """Records as tables of one block."""
    records = iter(records)
    while batch := list(islice(records, BLOCK_RECORDS)):
        yield record_table(batch)


def _sorted_run(records: Iterator[PairRecord]) -> PackedRecords | None:
    """The next records, sorted; memory limits how many that are."""
    blocks = list(islice(batched_tables(records), RUN_BLOCKS))
    if not blocks:
        return None
    table = pa.concat_tables(blocks)
    table = table.take(pc.sort_indices(table["id"])).combine_chunks()
    starts = range(0, table.num_rows, BLOCK_RECORDS)
    return PackedRecords(table.slice(start, BLOCK_RECORDS) for start in starts)


def _compressed(table: pa.Table) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    # Slices are copied, else their buffers would be written whole.
    with pa.ipc.new_stream(sink, RECORD_SCHEMA, options=options) as writer:
        writer.write_table(table)
    return sink.getvalue()


def _table(block: pa.Buffer) -> pa.Table:
    with pa.ipc.open_stream(block) as reader:
        return reader.read_all()
