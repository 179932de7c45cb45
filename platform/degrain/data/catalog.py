"""The catalog: a table with one row per pair that says what is there, in which split, and what was refused and why."""

import io
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


@dataclass(frozen=True, kw_only=True, slots=True)
class CatalogRow:
    """One pair after it was looked at."""

    id: str
    corpus: str
    scene: str
    split: str
    noisy: str
    """URI of the noisy photo."""
    clean: str
    noise: str | None
    """The noise that makes the noisy photo of the clean one; None for a real pair."""
    stamp: str
    """Sizes and times of both files when they were read."""
    noisy_hash: str
    """SHA-256 of the file's bytes, 128 bits in hexadecimal; empty if it could not be read."""
    clean_hash: str
    height: int | None
    """Pixels, after alignment; None if refused before decoding."""
    width: int | None
    bit_depth: int | None
    """8 or 16: the larger of both photos'."""
    camera: str | None
    iso: int | None
    shutter: str | None
    brightness: str | None
    shift_y: float | None
    """Pixels by which the noisy photo must be moved down to lie on the clean one; None if not measured."""
    shift_x: float | None
    """The same to the right."""
    shift_gain: float | None
    """What moving it would gain, see `checks.WORTH_MOVING`."""
    move_y: int | None
    """Whole pixels by which it was moved."""
    move_x: int | None
    exposure: float | None
    """Mean brightness of the clean photo over that of the noisy one."""
    clipped: float | None
    """Share of the clean photo's values that are black or white."""
    refused: str | None
    """Why the pair is not in the patch set; None if it is."""
    patches: int
    """Patch pairs that were cut from it."""
    shard: str | None
    """Key of the shard that holds them."""


_ROW_GROUP = 16_384
"""Rows that are turned into columns, and back, at once."""
_TYPES = {"str": pa.string(), "int": pa.int64(), "float": pa.float64()}
SCHEMA = pa.schema(
    [
        pa.field(
            f.name,
            _TYPES[str(f.type if isinstance(f.type, str) else getattr(f.type, "__name__", f.type)).split(" |")[0]],
        )
        for f in fields(CatalogRow)
    ]
)


def write_catalog(rows: Iterable[CatalogRow]) -> bytes:
    """The catalog as a Parquet file; rows sorted by id, so that equal catalogs are equal files."""
    ordered = sorted(rows, key=lambda r: r.id)
    buffer = io.BytesIO()
    with pq.ParquetWriter(buffer, SCHEMA, compression="zstd") as writer:
        for first in range(0, len(ordered), _ROW_GROUP):
            some = ordered[first : first + _ROW_GROUP]
            columns = [pa.array([getattr(row, f.name) for row in some], f.type) for f in SCHEMA]
            writer.write_table(pa.Table.from_arrays(columns, schema=SCHEMA))
    return buffer.getvalue()


def read_catalog(content: bytes) -> list[CatalogRow]:
    """The rows of a catalog file."""
    rows: list[CatalogRow] = []
    with pq.ParquetFile(io.BytesIO(content)) as file:
        for batch in file.iter_batches(_ROW_GROUP):
            columns = [_values(column) for column in batch.columns]
            rows.extend(CatalogRow(**dict(zip(batch.schema.names, row, strict=True))) for row in zip(*columns, strict=True))
    return rows


def _values(column: pa.Array) -> list[Any]:
    """A column as Python values; equal texts are one object, because a long catalog repeats them."""
    if not pa.types.is_string(column.type):
        return list(column.to_pylist())
    words = column.dictionary_encode()
    known = words.dictionary.to_pylist()
    return [None if i is None else known[i] for i in words.indices.to_pylist()]
