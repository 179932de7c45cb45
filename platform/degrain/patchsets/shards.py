"""Shards: Parquet files of patches, one column of raw bytes per image.

Pixels are raw bytes in a binary column because Arrow's list and tensor columns read more than ten
times slower.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from degrain.imaging.pixels import Photo, sixteen_bits
from degrain.patchsets.geometry import CHANNELS, PatchGeometry

_TABLE_BYTES = 8 * 2**20
"""Bytes of patches that are cut and written at once; larger tables cost more in fresh memory than
they save."""


def cut(photo: Photo, rows: Sequence[int], geometry: PatchGeometry) -> Photo:
    """The patches of a photo that start at `rows`, row by row: (H, W, 3) -> (N, P, P, 3),
    contiguous.
    """
    size, columns = geometry.patch_size, geometry.starts(photo.shape[1])
    patches: Photo = np.empty((len(rows), len(columns), size, size, CHANNELS), dtype=photo.dtype)
    for i, y in enumerate(rows):
        for j, x in enumerate(columns):
            patches[i, j] = photo[y : y + size, x : x + size]
    return patches.reshape(-1, size, size, CHANNELS)


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
    return pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(width), count, [None, pa.py_buffer(patches)]
    )


def column_patches(column: pa.ChunkedArray, side: int, bits: int) -> Photo:
    """The inverse of `binary_column`, read-only: without copying where the column is one chunk."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks)
    flat = np.frombuffer(array.buffers()[1], dtype=np.uint16 if bits == 16 else np.uint8)
    flat.flags.writeable = False
    size = side * side * CHANNELS
    start = array.offset * size
    return flat[start : start + len(array) * size].reshape(len(array), side, side, CHANNELS)


def pair_tables(
    pair_id: str, noisy: Photo, clean: Photo, geometry: PatchGeometry, bits: int
) -> Iterator[pa.Table]:
    """The patches of one pair as rows of a shard of `bits`; noisy and clean ones come from the same
    places.

    They come a few rows of patches at a time, so that a large photo is not held twice.
    """
    rows, columns = geometry.starts(noisy.shape[0]), geometry.starts(noisy.shape[1])
    rows_per_table = max(1, _TABLE_BYTES // (len(columns) * geometry.patch_bytes(bits)))
    for first in range(0, len(rows), rows_per_table):
        some = rows[first : first + rows_per_table]
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
