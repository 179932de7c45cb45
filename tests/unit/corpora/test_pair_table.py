"""Tables that name pairs: CSV and Parquet, relative and absolute places, and what is wrong with
them.
"""

import io
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from unit.ingest_support import serial_ingest, write_pairs
from unit.support import random_photo, write_png

from degrain.corpora.base import Corpus
from degrain.corpora.config import CorpusOptions
from degrain.corpora.pair_table import read_pair_table
from degrain.errors import UserError
from degrain.storage.location import Location, Storage

STORAGE = Storage()


def table(folder: Path, content: str | bytes, name: str = "pairs.csv") -> Location:
    (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return STORAGE.locate(folder / name)


def parquet(**columns: list[object]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


FULL = {
    "noisy": "n/a 1%.png",
    "clean": "/elsewhere/ü.png",
    "scene": "007",
    "camera": "S6",
    "iso": "3200",
    "shutter": "1/125",
    "brightness": "L",
    "split": "val",
}


@pytest.mark.parametrize("kind", ["csv", "parquet", "CSV", "PARQUET"])
def test_all_columns_become_what_is_known_of_a_pair(tmp_path: Path, kind: str) -> None:
    content = f"{','.join(FULL)}\n{','.join(FULL.values())}\n".encode()
    if kind.lower() == "parquet":
        content = parquet(**{name: [value] for name, value in FULL.items()})
    assert read_pair_table(table(tmp_path, content, f"my pairs.{kind}")) == [
        {
            "id": "pairs/n/a 1%.png",
            "scene": "pairs/007",
            "noisy": f"{tmp_path}/n/a 1%.png",
            "clean": "/elsewhere/ü.png",
            "iso": 3200,
            "camera": "S6",
            "shutter": "1/125",
            "brightness": "L",
            "split": "val",
        }
    ]


@pytest.mark.parametrize("start", ["", "\ufeff"], ids=["plain", "byte order mark"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("quote", ["", '"'])
def test_numbers_that_are_names_stay_as_they_are_written(
    tmp_path: Path, start: str, end: str, quote: str
) -> None:
    header = ",".join(f"{quote}{name}{quote}" for name in ("scene", "noisy", "clean", "camera"))
    rows = read_pair_table(
        table(tmp_path, f"{start}{header}{end}007,a.png,b.png,1e3{end}NA,c.png,d.png,null{end}")
    )
    assert [(row["scene"], row["camera"]) for row in rows] == [
        ("pairs/007", "1e3"),
        ("pairs/NA", "null"),
    ]


def test_without_a_scene_each_clean_photo_is_one(tmp_path: Path) -> None:
    rows = read_pair_table(table(tmp_path, "noisy,clean,scene\na,c.png,\nb,c.png,\nd,e.png,s\n"))
    assert [row["scene"] for row in rows] == ["pairs/c.png", "pairs/c.png", "pairs/s"]


@pytest.mark.parametrize(
    ("value", "iso"),
    [("100", 100), ("100.0", 100), ("", None), ("Hi", None), ("1.5", None), ("-100", None)],
)
def test_an_iso_is_a_whole_number_or_not_known(tmp_path: Path, value: str, iso: int | None) -> None:
    assert read_pair_table(table(tmp_path, f"noisy,clean,iso\na,b,{value}\n"))[0]["iso"] == iso


def test_an_iso_may_be_a_number_in_parquet(tmp_path: Path) -> None:
    for values in ([800, None], [800.0, None]):
        content = parquet(noisy=["a", "b"], clean=["c", "d"], iso=list(values))
        rows = read_pair_table(table(tmp_path, content, "t.parquet"))
        assert [row["iso"] for row in rows] == [800, None]


def test_places_are_absolute_relative_or_in_a_bucket(tmp_path: Path) -> None:
    rows = read_pair_table(
        table(tmp_path, "noisy,clean\ns3://bucket/a b.png,sub/c.png\n/d.png,e.png\n")
    )
    assert [(row["noisy"], row["clean"]) for row in rows] == [
        ("s3://bucket/a b.png", f"{tmp_path}/sub/c.png"),
        ("/d.png", f"{tmp_path}/e.png"),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("noisy,cleen\na,b\n", "has no column 'clean'; it has noisy, cleen"),
        ("noisy;clean\na;b\n", "it has noisy;clean; separate columns by commas"),
        ("noisy,clean\na,\n", "row 1 of table '.+' names no clean photo; fill it in"),
        ("noisy,clean\na,b\n,b\n", "row 2 of table '.+' names no noisy photo"),
        (
            "noisy,clean,split\na,b,valid\n",
            "row 1 of table '.+' has split 'valid'; known: train, val, test",
        ),
        ("noisy,clean\na,b,c\n", "cannot read table '.+pairs.csv': .+ got 3"),
        ("", "cannot read table '.+pairs.csv': Empty CSV file"),
        (b"\xff\xfe\x00", "cannot read table '.+pairs.csv'"),
    ],
    ids=["column", "semicolon", "clean", "noisy", "split", "width", "empty", "no text"],
)
def test_a_bad_table_says_what_and_where(
    tmp_path: Path, content: str | bytes, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        read_pair_table(table(tmp_path, content))


def test_a_damaged_or_missing_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read table '.+t\.parquet'"):
        read_pair_table(table(tmp_path, b"PAR1", "t.parquet"))
    with pytest.raises(
        UserError, match=r"there is no table '.+none\.csv'; check the path of the corpus"
    ):
        read_pair_table(STORAGE.locate(tmp_path / "none.csv"))


def test_a_table_is_a_corpus_under_its_own_name(tmp_path: Path) -> None:
    noisy, clean = (
        write_png(tmp_path / name, random_photo(8, 8, seed))
        for seed, name in enumerate(("n.png", "c.png"))
    )
    place = table(tmp_path, f"noisy,clean\nn.png,c.png\nfile://{noisy},c.png\ngone.png,c.png\n")
    pairs, unplaced = Corpus.parse(f"pairs:lab={place}", STORAGE).list_pairs(CorpusOptions())
    assert unplaced == []
    assert [pair.id for pair in pairs] == ["lab/n.png", f"lab/file://{noisy}", "lab/gone.png"]
    assert {pair.scene for pair in pairs} == {"lab/c.png"}
    size = Path(noisy).stat().st_size + Path(clean).stat().st_size
    assert [pair.encoded_bytes for pair in pairs] == [size, size, 0]
    assert [bool(pair.stamp) for pair in pairs] == [True, True, False]


@pytest.mark.parametrize("value", ["ISO 800", "iso800", "Iso 800.0"])
def test_an_iso_may_have_its_name(tmp_path: Path, value: str) -> None:
    assert read_pair_table(table(tmp_path, f"noisy,clean,iso\na,b,{value}\n"))[0]["iso"] == 800


def test_columns_that_are_not_read_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = table(tmp_path, "noisy,clean,scenes,ISO\na,b,s,800\n")
    read_pair_table(place)
    (record,) = caplog.records
    assert "columns that are not read: scenes, ISO; known are brightness" in record.getMessage()


def test_one_file_is_no_pair(tmp_path: Path) -> None:
    place = table(tmp_path, "noisy,clean\na,b\nc,c\n")
    with pytest.raises(UserError, match=r"row 2 of table .* names one file, 'c', as"):
        read_pair_table(place)


def test_rows_that_name_pipes_and_folders_are_refused_and_not_opened(tmp_path: Path) -> None:
    corpus = write_pairs(tmp_path / "photos")
    os.mkfifo(corpus / "pipe.png")
    names = [*(f"noisy/s{n}_0.png" for n in range(6)), "pipe.png", "noisy", "gone.png"]
    rows = [f"{name},clean/s{n % 6}_0.png,s{n % 6}" for n, name in enumerate(names)]
    table = corpus / "pairs.csv"
    table.write_text("\n".join(["noisy,clean,scene", *rows]))
    done = serial_ingest(f"pairs={table}", tmp_path / "out")
    refused = {row.noisy: row.refused for row in done.patch_set.catalog if row.refused}
    assert set(refused) == {str(corpus / name) for name in ("pipe.png", "noisy", "gone.png")}
    assert all("there is no such file" in reason for reason in refused.values())


def test_spaces_around_names_are_no_part_of_them(tmp_path: Path) -> None:
    (row,) = read_pair_table(table(tmp_path, "noisy,clean\na.png, b c.png \n"))
    assert row["clean"] == str(tmp_path / "b c.png")
