"""Outputs that would come out the same are skipped, outdated ones made again, foreign ones kept."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from unit.photofiles import PHOTO, png

from degrain.cli.main import main
from degrain.inference.output_records import RECORDS, OutputRecords
from degrain.inference.photo_list import find_photos, targets
from degrain.storage.location import Storage

STORAGE = Storage()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.png").write_bytes(png(np.roll(PHOTO, number, axis=1)))
    return folder


def denoise(photos: Path, *options: str) -> dict[str, bytes]:
    """The outputs of `degrain denoise`."""
    out = photos.parent / "out"
    assert main(["denoise", str(photos), "--out", str(out), *options]) == 0
    return {file.name: file.read_bytes() for file in out.glob("*.png")}


MEDIAN, BILATERAL = ("--filter", "median"), ("--filter", "bilateral")


def test_a_second_run_skips_all(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = denoise(photos, *MEDIAN)
    times = {file: file.stat().st_mtime_ns for file in (photos.parent / "out").iterdir()}
    assert denoise(photos, *MEDIAN) == first
    assert "3 photos are skipped: their output would be the same" in capsys.readouterr().out
    assert {file: file.stat().st_mtime_ns for file in times} == times


@pytest.mark.parametrize(
    ("first", "other"),
    [
        (MEDIAN, BILATERAL),
        (MEDIAN, (*MEDIAN, "--strength", "0.5")),
        (MEDIAN, (*MEDIAN, "--noise-level", "0.1")),
        (MEDIAN, (*MEDIAN, "--self-ensemble")),
        (MEDIAN, (*MEDIAN, "--profiles", "keep")),
        (MEDIAN, (*MEDIAN, "--format", "png")),
        (MEDIAN, (*MEDIAN, "--quality", "80")),
        (MEDIAN, ()),
        (("--precision", "float32"), ("--precision", "bfloat16")),
    ],
    ids=[
        *("filter", "strength", "noise level", "ensemble", "profiles", "format", "quality"),
        *("starter", "precision"),
    ],
)
def test_another_model_or_option_replaces_the_outputs(
    photos: Path,
    first: tuple[str, ...],
    other: tuple[str, ...],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    (tmp_path / "mlflow.yaml").write_text(f"tracking_uri: sqlite:///{tmp_path}/none.db\n")
    mlflow = ("--mlflow", str(tmp_path / "mlflow.yaml"))
    denoise(photos, *first, *mlflow)
    again = denoise(photos, *other, *mlflow)
    assert "3 outputs are replaced: they were made from another version" in capsys.readouterr().out
    assert denoise(photos, *other, *mlflow, "--overwrite") == again


def test_a_changed_photo_is_denoised_again_and_the_others_are_skipped(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = denoise(photos, *MEDIAN)
    (photos / "1.png").write_bytes(png(PHOTO[::-1]))
    again = denoise(photos, *MEDIAN)
    printed = capsys.readouterr().out
    assert "2 photos are skipped: their output would be the same" in printed
    assert "1 outputs are replaced" in printed
    assert [name for name in sorted(first) if first[name] != again[name]] == ["1.png"]


def test_a_file_of_another_program_is_kept_unless_overwritten(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = photos.parent / "out"
    out.mkdir()
    (out / "0.png").write_bytes(b"mine")
    first = denoise(photos, *MEDIAN)
    assert first["0.png"] == b"mine"
    assert "1 photos are skipped: their output exists and is not as" in capsys.readouterr().out
    # Edited in place, to a file of the same size.
    edited = first["1.png"][:-1] + b"?"
    (out / "1.png").write_bytes(edited)
    os.utime(out / "1.png", ns=(1, 1))
    assert denoise(photos, *BILATERAL)["1.png"] == edited
    assert denoise(photos, *BILATERAL, "--overwrite")["1.png"] != edited


def test_what_a_kill_cut_from_the_records_is_left_out(photos: Path) -> None:
    denoise(photos, *MEDIAN)
    records = photos.parent / "out" / RECORDS
    records.write_bytes(records.read_bytes()[:-20])
    tasks = targets(find_photos([str(photos)], STORAGE).photos, STORAGE.locate(records.parent))
    assert OutputRecords("other").plan(tasks, overwrite=False).foreign == 1


def test_what_a_killed_run_left_half_written_is_removed(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for name in ("0.png.0123abcd.part", "other.0123abcd.part", "1.png.part"):
        (out / name).write_bytes(b"half")
    tasks = targets(find_photos([str(photos)], STORAGE).photos, STORAGE.locate(out))
    assert OutputRecords("x").plan(tasks, overwrite=False).tasks == tasks
    # Files of other names are not ours.
    assert sorted(file.name for file in out.iterdir()) == ["1.png.part", "other.0123abcd.part"]


def test_a_photo_whose_name_has_255_bytes_is_denoised(photos: Path) -> None:
    name = "n" * 251 + ".png"
    (photos / "0.png").rename(photos / name)
    half = photos.parent / "out" / f"{'n' * 100}.0123abcd.part"
    half.parent.mkdir()
    half.write_bytes(b"half")
    assert name in denoise(photos, *MEDIAN)
    assert not half.exists()


def test_files_keep_the_dates_of_their_photos(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.utime(photos / "1.png", ns=(10**18, 10**18))
    first = denoise(photos, *MEDIAN, "--keep-dates")
    assert (photos.parent / "out" / "1.png").stat().st_mtime_ns == 10**18
    assert denoise(photos, *MEDIAN, "--keep-dates") == first
    assert "3 photos are skipped: their output would be the same" in capsys.readouterr().out
    assert (photos.parent / "out" / "1.png").stat().st_mtime_ns == 10**18


def test_dates_are_not_kept_in_a_bucket(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["denoise", str(photos), "--out", "s3://bucket/out", *MEDIAN, "--keep-dates"]
    assert main(argv) == 2
    assert "--keep-dates is for folders of this machine" in capsys.readouterr().err


def test_a_cut_line_does_not_swallow_the_next(photos: Path) -> None:
    denoise(photos, *MEDIAN)
    records = photos.parent / "out" / RECORDS
    lines = records.read_bytes().splitlines(keepends=True)
    records.write_bytes(b"".join(lines[:-1]) + lines[-1][:20])
    denoise(photos, *MEDIAN, "--overwrite")
    read = [
        json.loads(line) for line in records.read_bytes().splitlines() if line != lines[-1][:20]
    ]
    assert [line["name"] for line in read[-3:]] == ["0.png", "1.png", "2.png"]


def test_outputs_of_earlier_runs_below_the_input_are_left_out(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    below = ["denoise", str(photos), "-r", *MEDIAN, "--out"]
    assert main([*below, str(photos / "first")]) == 0
    (photos / "first" / "mine.png").write_bytes(png(PHOTO))
    assert main([*below, str(photos / "second")]) == 0
    assert "3 photos are left out: they are outputs" in capsys.readouterr().out
    assert {str(p.relative_to(photos / "second")) for p in (photos / "second").rglob("*.png")} == {
        "0.png",
        "1.png",
        "2.png",
        "first/mine.png",
    }
    # A folder of outputs that is named is denoised.
    assert main(["denoise", str(photos / "second"), *MEDIAN, "--out", str(photos / "third")]) == 0
    (photos / "first" / "mine.png").unlink()
    for number in range(3):
        (photos / f"{number}.png").unlink()
    assert main([*below, str(photos.parent / "fourth")]) == 2
    assert "are outputs of earlier runs; name their folder" in capsys.readouterr().err
