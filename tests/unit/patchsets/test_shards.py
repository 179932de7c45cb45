"""Shards: patches are stored as raw bytes, with the place that they were cut from."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from unit.patchset_support import GEOMETRY, cut_all
from unit.patchsets.test_geometry import geometries
from unit.support import natural_photo, random_photo

from degrain.imaging.pixels import Photo
from degrain.patchsets import shards
from degrain.patchsets.geometry import PatchGeometry
from degrain.patchsets.shards import binary_column, column_patches, pair_tables


@settings(max_examples=40, deadline=None)
@given(
    geometry=geometries,
    height=st.integers(24, 60),
    width=st.integers(24, 60),
    seed=st.integers(0, 99),
)
def test_patches_equal_the_photo_at_their_row_s_position(
    geometry: PatchGeometry, height: int, width: int, seed: int
) -> None:
    noisy, clean = random_photo(height, width, seed), random_photo(height, width, seed + 1000)
    table = pa.concat_tables(pair_tables("c/a", noisy, clean, geometry, 8))
    side = geometry.patch_size
    seen = np.zeros((height, width), dtype=bool)
    columns = {"noisy": noisy, "clean": clean}
    patches = {name: column_patches(table[name], side, 8) for name in columns}
    for i, (y, x) in enumerate(zip(table["y"].to_pylist(), table["x"].to_pylist(), strict=True)):
        seen[y : y + side, x : x + side] = True
        for name, photo in columns.items():
            assert np.array_equal(patches[name][i], photo[y : y + side, x : x + side])
    assert seen.all()
    assert geometry.covered_pixels(height, width) == height * width
    assert set(table["pair"].to_pylist()) == {"c/a"}
    assert len(table) == len(geometry.starts(height)) * len(geometry.starts(width))


def test_a_cut_is_contiguous_bytes() -> None:
    patches = cut_all(natural_photo(40, 33))
    assert patches.shape == (3 * 3, 16, 16, 3)
    assert patches.dtype == np.uint8
    assert patches.flags.c_contiguous


def patches_of(count: int, side: int = 16) -> NDArray[np.uint8]:
    return np.random.default_rng(count).integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def test_columns_round_trip() -> None:
    patches = patches_of(5)
    column = binary_column(patches)
    assert column[2].as_py() == patches[2].tobytes()
    assert np.array_equal(column_patches(column, 16, 8), patches)
    assert np.array_equal(column_patches(pa.chunked_array([column]), 16, 8), patches)


@pytest.mark.parametrize(("start", "stop"), [(0, 3), (2, 5), (4, 5)])
def test_sliced_columns_round_trip(start: int, stop: int) -> None:
    patches = patches_of(5)
    sliced = binary_column(patches).slice(start, stop - start)
    assert np.array_equal(column_patches(sliced, 16, 8), patches[start:stop])
    assert np.array_equal(column_patches(pa.chunked_array([sliced]), 16, 8), patches[start:stop])
    assert np.array_equal(binary_column(patches[start:stop])[0].as_py(), patches[start].tobytes())


def test_columns_of_several_chunks_are_joined_in_order() -> None:
    patches = patches_of(7)
    column = pa.chunked_array(
        [
            binary_column(patches[:3]),
            binary_column(patches[:5]).slice(3),
            binary_column(patches[5:]),
        ]
    )
    assert np.array_equal(column_patches(column, 16, 8), patches)


def test_columns_are_not_copied() -> None:
    patches = patches_of(3)
    assert np.shares_memory(column_patches(binary_column(patches).slice(1), 16, 8), patches)


def test_patches_of_a_column_are_read_only() -> None:
    stream = pa.BufferOutputStream()
    pq.write_table(pa.table({"noisy": binary_column(patches_of(3))}), stream)
    column = pq.read_table(pa.BufferReader(stream.getvalue()))["noisy"]
    assert not column_patches(column, 16, 8).flags.writeable


def deep_photo(height: int, width: int, seed: int = 0) -> Photo:
    return np.random.default_rng(seed).integers(0, 65536, (height, width, 3), dtype=np.uint16)


@pytest.mark.parametrize("table_bytes", [1, 3000, 2**25])
def test_a_table_holds_a_few_rows_of_patches_at_a_time(
    monkeypatch: pytest.MonkeyPatch, table_bytes: int
) -> None:
    noisy, clean = random_photo(50, 40), random_photo(50, 40, 1)
    monkeypatch.setattr(shards, "_TABLE_BYTES", table_bytes)
    tables = list(pair_tables("c/a", noisy, clean, GEOMETRY, 8))
    assert len(tables) == {1: 4, 3000: 4, 2**25: 1}[table_bytes]
    assert np.array_equal(column_patches(pa.concat_tables(tables)["noisy"], 16, 8), cut_all(noisy))


@settings(max_examples=30, deadline=None)
@given(geometry=geometries, seed=st.integers(0, 99), deep=st.tuples(st.booleans(), st.booleans()))
def test_sixteen_bits_survive_and_eight_become_sixteen(
    geometry: PatchGeometry, seed: int, deep: tuple[bool, bool]
) -> None:
    photos = [
        deep_photo(30, 27, seed) if is_deep else random_photo(30, 27, seed) for is_deep in deep
    ]
    (table,) = pair_tables("c/a", photos[0], photos[1], geometry, 16)
    for name, photo in zip(("noisy", "clean"), photos, strict=True):
        read = column_patches(table[name], geometry.patch_size, 16)
        expected = cut_all(photo, geometry)
        assert read.dtype == np.uint16
        assert np.array_equal(
            read, expected if photo.dtype == np.uint16 else expected.astype(np.uint16) * 257
        )
