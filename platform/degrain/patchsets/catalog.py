"""The catalog: a Parquet table with one row per pair, refused ones included."""

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from operator import attrgetter
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from degrain.corpora.record import PairRecord

_ROW_GROUP = 16_384
"""Rows that are converted at once."""
_TYPES = {"str": pa.string(), "int": pa.int64(), "float": pa.float64(), "bool": pa.bool_()}


def _type_of(hint: Any) -> pa.DataType:  # noqa: ANN401 - a type, or its text
    text = hint if isinstance(hint, str) else getattr(hint, "__name__", str(hint))
    return _TYPES[text.split(" |")[0]]


RECORD_SCHEMA = pa.schema([pa.field(f.name, _type_of(f.type)) for f in fields(PairRecord)])
"""All fields of a record."""
SCHEMA = pa.schema([field for field in RECORD_SCHEMA if field.name != "encoded_bytes"])
"""The columns of the catalog."""


def record_table(records: Sequence[PairRecord], schema: pa.Schema = RECORD_SCHEMA) -> pa.Table:
    """Records as a table of typed columns."""
    columns = [
        pa.array(map(attrgetter(name), records), kind, size=len(records))
        for name, kind in zip(schema.names, schema.types, strict=True)
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def table_records(table: pa.Table | pa.RecordBatch) -> list[PairRecord]:
    """The records of a table."""
    columns = [column_values(column) for column in table.columns]
    names = table.schema.names
    return [PairRecord(**dict(zip(names, row, strict=True))) for row in zip(*columns, strict=True)]


def write_catalog(records: Iterable[PairRecord]) -> bytes:
    """The catalog as a Parquet file; sorted by id, so that equal catalogs are equal files."""
    ordered = sorted(records, key=lambda r: r.id)
    buffer = io.BytesIO()
    with pq.ParquetWriter(buffer, SCHEMA, compression="zstd") as writer:
        for first in range(0, len(ordered), _ROW_GROUP):
            writer.write_table(record_table(ordered[first : first + _ROW_GROUP], SCHEMA))
    return buffer.getvalue()


def read_catalog(content: bytes) -> list[PairRecord]:
    """The records of a catalog file. Raises TypeError if a column is missing or unknown."""
    return [
        record for table in catalog_tables(io.BytesIO(content)) for record in table_records(table)
    ]


def catalog_tables(file: BinaryIO | pa.NativeFile) -> Iterator[pa.Table]:
    """The records of a catalog file as tables with the columns of `RECORD_SCHEMA`."""
    with pq.ParquetFile(file) as catalog:
        if differing := set(catalog.schema_arrow.names) ^ set(SCHEMA.names):
            raise TypeError(f"its columns are not those of a catalog: {min(differing)}")
        for batch in catalog.iter_batches(_ROW_GROUP):
            unknown_size = pa.array([0] * batch.num_rows, pa.int64())
            columns = [
                unknown_size if name == "encoded_bytes" else batch[name]
                for name in RECORD_SCHEMA.names
            ]
            yield pa.Table.from_arrays(columns, schema=RECORD_SCHEMA)


def column_values(column: pa.Array | pa.ChunkedArray) -> list[Any]:
    """A column as Python values; equal texts become one object, as a long catalog repeats them."""
    if not pa.types.is_string(column.type):
        return list(column.to_pylist())
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    words = column.dictionary_encode()
    if isinstance(words, pa.ChunkedArray):
        words = words.unify_dictionaries().combine_chunks()
    known = words.dictionary.to_pylist()
    return [None if i is None else known[i] for i in words.indices.to_pylist()]
