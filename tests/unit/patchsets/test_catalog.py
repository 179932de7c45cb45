"""The catalog: records survive the file, whatever their number."""

import io
from dataclasses import replace

import pyarrow.parquet as pq
import pytest
from unit.support import pair_record

from degrain.corpora.config import CorpusOptions
from degrain.corpora.listing import FolderNames
from degrain.corpora.sidd import list_sidd
from degrain.patchsets import catalog
from degrain.patchsets.catalog import SCHEMA, read_catalog, write_catalog
from degrain.patchsets.ingest.duplicates import find_duplicates
from degrain.patchsets.splits import assign_splits

ROW = pair_record(
    id="pairs/noisy/ü 1%.png",
    scene="pairs/ü 1%",
    noise="camera:800",
    stamp="10@20 30@40",
    camera="S6",
    iso=3200,
    shutter="1/60",
    brightness="L",
    shift_y=-1.25,
    shift_x=0.5,
    shift_gain=0.2,
    move_y=-1,
    move_x=1,
    exposure=1.01,
    clipped=0.25,
    patches=15,
    shard="00ff",
)
REFUSED = pair_record(
    id="pairs/noisy/a.png",
    height=None,
    width=None,
    bit_depth=None,
    refused="it is damaged",
    patches=0,
)


def test_records_survive_the_file_with_and_without_optional_fields() -> None:
    assert read_catalog(write_catalog([ROW, REFUSED])) == [REFUSED, ROW]


def test_equal_catalogs_are_equal_files() -> None:
    assert write_catalog([ROW, REFUSED]) == write_catalog(iter([REFUSED, ROW]))


def test_an_empty_catalog_is_read_back() -> None:
    assert read_catalog(write_catalog([])) == []


def test_columns_have_the_types_of_the_fields() -> None:
    table = pq.read_table(io.BytesIO(write_catalog([ROW])))
    assert table.schema.equals(SCHEMA)
    assert {str(SCHEMA.field(name).type) for name in ("id", "iso", "shift_y")} == {
        "string",
        "int64",
        "double",
    }


@pytest.mark.parametrize("count", [1, 3, 4, 5, 9])
def test_a_catalog_of_several_row_groups_is_read_back_in_order(
    monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr(catalog, "_ROW_GROUP", 4)
    rows = [
        replace(ROW, id=f"c/{i}", iso=i or None, camera="S6" if i % 2 else None)
        for i in range(count)
    ]
    content = write_catalog(rows[::-1])
    assert pq.ParquetFile(io.BytesIO(content)).num_row_groups == -(-count // 4)
    assert read_catalog(content) == rows


def test_equal_texts_are_one_object() -> None:
    first, second = read_catalog(write_catalog([ROW, replace(ROW, id="pairs/z")]))
    assert first.scene is second.scene
    assert first.camera is second.camera


def test_a_catalog_that_lacks_a_column_is_refused() -> None:
    buffer = io.BytesIO()
    pq.write_table(pq.read_table(io.BytesIO(write_catalog([ROW]))).drop_columns(["shard"]), buffer)
    with pytest.raises(TypeError, match="shard"):
        read_catalog(buffer.getvalue())


@pytest.mark.slow
def test_a_long_listing_survives_the_catalog() -> None:
    names = [
        f"Data/{i:06}_{i % 90:03}_{('GP', 'S6', 'IP')[i % 3]}_00100_00060_3200_L/"
        f"{i:06}_{kind}_SRGB_{shot}.PNG"
        for i in range(900)
        for kind in ("NOISY", "GT")
        for shot in ("010", "011")
    ]
    pairs, unplaced = list_sidd(FolderNames(names, CorpusOptions()))
    assert (len(pairs), unplaced) == (1800, [])
    splits = assign_splits(pairs)
    rows = [
        pair_record(
            id=p.id,
            corpus=p.corpus,
            scene=p.scene,
            split=splits[p.scene],
            camera=p.camera,
            iso=p.iso,
            noisy_pixels=f"n{p.id}",
        )
        for p in pairs
    ]
    assert find_duplicates([replace(row, clean_pixels=f"c{row.id}") for row in rows], {}) == {}
    read = read_catalog(write_catalog(rows))
    assert read == sorted(rows, key=lambda row: row.id)
    assert sum(row.split == "test" for row in read) == 180
