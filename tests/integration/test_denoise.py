"""`degrain denoise` on a Ray cluster and on S3: the files of a run in one process."""

import shutil
from pathlib import Path

import pytest
from integration.support import run_here
from PIL import Image
from skimage import data as skimage_data

from degrain.inference.output_records import RECORDS, OutputRecords
from degrain.inference.photo_list import PhotoTask
from degrain.storage.location import Storage

FILTER = ["--filter", "bilateral"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 24 photos of three types in three folders, and two that are broken."""
    folder = tmp_path_factory.mktemp("photos") / "in"
    for number in range(24):
        file = folder / f"day{number % 3}" / f"{number:02}.{('png', 'jpg', 'tif')[number % 3]}"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(skimage_data.astronaut()[number : number + 48, 100:164]).save(file)
    (folder / "day0" / "empty.png").write_bytes(b"")
    (folder / "day1" / "text.jpg").write_bytes(b"not a photo")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """The files below a folder but the records of what they were made from."""
    files = (p for p in folder.rglob("*.*") if p.name != RECORDS)
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


@pytest.mark.ray
def test_a_cluster_goes_on_and_gives_the_files_of_one_process(
    photos: Path, tmp_path: Path, ray_cluster: None
) -> None:
    here = run_here("denoise", [photos, "-r", "--out", tmp_path / "here", *FILTER], tmp_path)
    shutil.copytree(tmp_path / "here" / "day1", tmp_path / "cluster" / "day1")
    kept = {p: p.stat().st_mtime_ns for p in (tmp_path / "cluster").rglob("*.*")}
    argv = [photos, "-r", "--out", tmp_path / "cluster", *FILTER, "--cluster"]
    there = run_here("denoise", argv, tmp_path)
    assert there.status == here.status == 1
    assert sorted(there.summary.get("failed", [])) == sorted(here.summary["failed"]), there.err
    assert contents(tmp_path / "cluster") == contents(tmp_path / "here")
    assert len(contents(tmp_path / "here")) == 24
    assert (there.summary["skipped"], there.summary["files"]) == (8, 18)
    assert all(p.stat().st_mtime_ns == time for p, time in kept.items())
    assert "day0/empty.png: failed: the file is empty" in there.out


def test_prefixes_and_patterns_in_a_bucket(photos: Path, tmp_path: Path, bucket: str) -> None:
    client = Storage.from_environment().s3_client()
    for name, content in contents(photos).items():
        client.put_object(Bucket=bucket, Key=f"trip/{name}", Body=content)
    root, out = f"s3://{bucket}/trip", f"s3://{bucket}/clean"
    run_here("denoise", [photos, "-r", "--out", tmp_path / "here", *FILTER], tmp_path)
    expected = contents(tmp_path / "here")

    one = run_here("denoise", [f"{root}/*/*.tif", "--out", out, *FILTER], tmp_path)
    assert one.status == 0, one.err
    assert one.summary["files"] == 8
    rest = run_here("denoise", [root, "-r", "--out", out, *FILTER], tmp_path)
    assert rest.status == 1
    assert rest.summary["skipped"] == 8
    listed = client.list_objects_v2(Bucket=bucket, Prefix="clean/")["Contents"]
    records = {f"clean/day{day}/{RECORDS}" for day in range(3)}
    assert {entry["Key"] for entry in listed} == records | {f"clean/{name}" for name in expected}
    for name, content in expected.items():
        assert client.get_object(Bucket=bucket, Key=f"clean/{name}")["Body"].read() == content


def test_records_of_a_bucket_are_uploaded_at_the_end(bucket: str) -> None:
    storage = Storage.from_environment()
    source, target = (storage.locate(f"s3://{bucket}/{name}/a.png") for name in ("in", "out"))
    source.write_bytes(b"photo")
    task = PhotoTask(source, target, storage.stamps([source.uri])[source.uri].stamp)
    records = OutputRecords("recipe")
    assert records.plan([task], overwrite=False).tasks == [task]
    target.write_bytes(b"output")
    records.add([task])
    records.close(target)
    assert OutputRecords("recipe").plan([task], overwrite=False).skipped == 1
    assert OutputRecords("other").plan([task], overwrite=False).outdated == 1
    target.write_bytes(b"another")
    assert OutputRecords("recipe").plan([task], overwrite=False).foreign == 1
