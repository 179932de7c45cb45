"""Locations: literal names, atomic writes, hidden secrets, checks of folders."""

import errno
import json
import math
import os
from pathlib import Path

import pytest
from documented import ROOT

from degrain.errors import UserError
from degrain.storage.json_file import json_bytes
from degrain.storage.listing import FileStamp
from degrain.storage.location import Storage

STORAGE = Storage()
PACKAGES = [str(ROOT / folder) for folder in ("platform", "models")]


def test_json_has_null_for_infinity_and_nan() -> None:
    content = {"rows": [{"psnr": math.inf, "ssim": 1.0}], "pair": (math.nan, -math.inf, 1.5)}
    assert json.loads(json_bytes(content)) == {
        "rows": [{"psnr": None, "ssim": 1.0}],
        "pair": [None, None, 1.5],
    }


@pytest.mark.parametrize(
    "name", ["plain", "with space", "100%", "%20", "ü–日本", "a#b?c", "a=b", "a+b", "'quoted'"]
)
def test_names_are_literal(tmp_path: Path, name: str) -> None:
    location = STORAGE.locate(tmp_path / name) / "file 1%.bin"
    assert location.uri == f"{tmp_path}/{name}/file 1%.bin"
    location.write_bytes(b"content")
    assert (tmp_path / name / "file 1%.bin").read_bytes() == b"content"
    assert location.exists()
    assert not location.is_folder()
    assert location.read_bytes() == b"content"
    assert STORAGE.locate(str(location)) == location
    folder = STORAGE.locate(tmp_path / name)
    assert folder.is_folder()
    assert {name: file.size for name, file in folder.files().items()} == {"file 1%.bin": 7}


def test_local_paths_become_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/someone")
    assert STORAGE.locate("a/b").uri == f"{tmp_path}/a/b"
    assert STORAGE.locate("~/a").uri == "/home/someone/a"
    assert STORAGE.locate("file:///a/b").uri == "/a/b"
    assert STORAGE.locate("/a/b/").uri == "/a/b"
    assert not STORAGE.locate("a").remote


def test_buckets_are_remote_and_their_keys_are_literal() -> None:
    location = STORAGE.locate("s3://bucket/my photos 1%/") / "ü.png"
    assert location.remote
    assert (str(location), location.path) == (
        "s3://bucket/my photos 1%/ü.png",
        "bucket/my photos 1%/ü.png",
    )


@pytest.mark.parametrize(
    "uri", ["http://host/a", "https://host/a", "gs://bucket/a", "S3://bucket/a"]
)
def test_other_schemes_are_rejected(uri: str) -> None:
    with pytest.raises(
        UserError, match=f"cannot read '{uri}': only local paths and s3:// are supported"
    ):
        STORAGE.locate(uri)


def test_an_unwritten_location_does_not_exist(tmp_path: Path) -> None:
    location = STORAGE.locate(tmp_path / "none")
    assert not location.exists()
    assert not location.is_folder()
    with pytest.raises(FileNotFoundError):
        location.read_bytes()


def test_writing_creates_parents_and_replaces_the_file(tmp_path: Path) -> None:
    location = STORAGE.locate(tmp_path / "a" / "b" / "c")
    for content in (b"first, and longer", b"second", b""):
        location.write_bytes(content)
        assert location.read_bytes() == content
    assert [p.name for p in (tmp_path / "a/b").iterdir()] == ["c"]


def test_files_lists_sorted_relative_names_without_folders(tmp_path: Path) -> None:
    for name in ("b.txt", "a/z.txt", "a b/%.txt", "a/sub/ü.txt", ".hidden"):
        STORAGE.locate(tmp_path / name).write_bytes(name.encode())
    (tmp_path / "empty").mkdir()
    files = STORAGE.locate(tmp_path).files()
    assert list(files) == sorted(["b.txt", "a/z.txt", "a b/%.txt", "a/sub/ü.txt", ".hidden"])
    assert {name: file.size for name, file in files.items()} == {
        name: len(name.encode()) for name in files
    }
    with pytest.raises(FileNotFoundError):
        STORAGE.locate(tmp_path / "none").files()


def test_a_stamp_changes_with_size_and_time(tmp_path: Path) -> None:
    file = tmp_path / "a 1%.png"
    file.write_bytes(b"content")
    os.utime(file, ns=(5, 5))
    assert STORAGE.locate(tmp_path).files()[file.name] == FileStamp(7, 5)
    first = FileStamp(7, 5).stamp
    assert first not in (FileStamp(8, 5).stamp, FileStamp(7, 6).stamp)


def test_stamps_by_uri_equal_those_of_the_listing(tmp_path: Path) -> None:
    for name in ("a.png", "b 1%.png"):
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "folder").mkdir()
    uris = [
        f"{tmp_path}/a.png",
        f"file://{tmp_path}/b 1%.png",
        f"{tmp_path}/a.png",
        f"{tmp_path}/gone",
        f"{tmp_path}/folder",
    ]
    listed = STORAGE.locate(tmp_path).files()
    assert STORAGE.stamps(uris) == {uris[0]: listed["a.png"], uris[1]: listed["b 1%.png"]}
    assert STORAGE.stamps([]) == {}


def test_broken_and_looping_links_are_skipped(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    (photos / "a/b").mkdir(parents=True)
    (photos / "a/x.png").write_bytes(b"x")
    (photos / "link.png").symlink_to(photos / "a/x.png")
    (photos / "gone.png").symlink_to(tmp_path / "none")
    (photos / "self.png").symlink_to("self.png")
    for loop in (photos / "a/b/up", photos / "a/b/top", photos / "again"):
        loop.symlink_to(photos)
    (tmp_path / "linked").symlink_to(photos)
    for folder in (photos, tmp_path / "linked"):
        files = STORAGE.locate(folder).files()
        assert {name: file.size for name, file in files.items()} == {"a/x.png": 1, "link.png": 1}


def test_files_come_by_folder_and_spellings_of_a_folder_together(tmp_path: Path) -> None:
    for name in ("b.txt", "x/2.txt", "x/Y/3.txt", "X/1.txt", "X/y/4.txt", "w/5.txt", "w/é/6.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "x" / "loop").symlink_to(tmp_path)
    (tmp_path / "w" / "broken").symlink_to(tmp_path / "none")
    place = STORAGE.locate(tmp_path)
    parts = list(place.files_by_folder())
    assert [list(part) for part in parts] == [
        ["b.txt"],
        ["w/5.txt"],
        ["w/é/6.txt"],
        ["X/1.txt", "x/2.txt"],
        ["X/y/4.txt", "x/Y/3.txt"],
    ]
    assert {name: stamp for part in parts for name, stamp in part.items()} == place.files()
    with pytest.raises(FileNotFoundError):
        list(STORAGE.locate(tmp_path / "none").files_by_folder())


def test_links_to_folders_elsewhere_are_followed_once(tmp_path: Path) -> None:
    for name in ("photos/a/1.png", "disk2/b/2.png", "disk2/c/3.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    photos = tmp_path / "photos"
    (photos / "0").symlink_to(photos / "a")  # it is listed by its own name
    (photos / "b").symlink_to(tmp_path / "disk2/b")
    (photos / "again").symlink_to(tmp_path / "disk2/b")
    (photos / "all").symlink_to(tmp_path / "disk2")
    (tmp_path / "disk2/c/back").symlink_to(photos)
    place = STORAGE.locate(photos)
    assert list(place.files()) == ["a/1.png", "again/2.png", "all/c/3.png"]
    assert [list(part) for part in place.files_by_folder()] == [[name] for name in place.files()]


def test_a_folder_that_cannot_be_read_is_left_out_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a/1.png", "lost+found/2.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(name)
    real = os.scandir

    def scandir(path: str) -> object:
        if "lost+found" in str(path):  # root, as which tests may run, can read any
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    place = STORAGE.locate(tmp_path)
    assert list(place.files()) == ["a/1.png"]
    (record,) = caplog.records
    assert record.getMessage() == f"{tmp_path}/lost+found is left out: Permission denied"
    with pytest.raises(PermissionError):
        STORAGE.locate(tmp_path / "lost+found").files()


SECRETS = {"access_key": "AKIAEXAMPLE", "secret_key": "wJalrX", "session_token": "FwoGZX"}


def test_secrets_are_not_shown() -> None:
    storage = Storage(endpoint="http://127.0.0.1:9000", region="eu-central-1", **SECRETS)
    for shown in (
        repr(storage),
        str(storage),
        repr(storage.locate("s3://bucket/key")),
        f"{storage.locate('/a')!r}",
    ):
        assert not any(secret in shown for secret in SECRETS.values())
    assert "http://127.0.0.1:9000" in repr(storage)


def clear_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in os.environ if n.startswith("AWS_")]:
        monkeypatch.delenv(name)


def test_settings_come_from_the_aws_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    clear_environment(monkeypatch)
    assert Storage.from_environment() == Storage()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://one")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "r1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", SECRETS["access_key"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRETS["secret_key"])
    monkeypatch.setenv("AWS_SESSION_TOKEN", SECRETS["session_token"])
    assert Storage.from_environment() == Storage(endpoint="http://one", region="r1", **SECRETS)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://two")
    monkeypatch.setenv("AWS_REGION", "r2")
    assert Storage.from_environment() == Storage(endpoint="http://two", region="r2", **SECRETS)


def test_empty_variables_count_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    clear_environment(monkeypatch)
    # boto3 would refuse an empty profile and region, MLflow an empty address.
    libraries = ("AWS_PROFILE", "AWS_DEFAULT_REGION", "MLFLOW_S3_ENDPOINT_URL")
    for name in ("AWS_ENDPOINT_URL", "AWS_REGION", *libraries):
        monkeypatch.setenv(name, "")
    assert Storage.from_environment().mlflow_environment() == {}
    assert set(libraries).isdisjoint(os.environ)


def test_mlflow_receives_the_same_settings() -> None:
    storage = Storage(endpoint="http://one", region="r", **SECRETS)
    assert storage.mlflow_environment() == {
        "MLFLOW_S3_ENDPOINT_URL": "http://one",
        "AWS_DEFAULT_REGION": "r",
        "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "wJalrX",
        "AWS_SESSION_TOKEN": "FwoGZX",
    }


def test_a_missing_local_folder_passes_the_bucket_check(tmp_path: Path) -> None:
    STORAGE.locate(tmp_path / "none").check_answers()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_write_permission_is_reported(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(
        UserError, match=r"no permission to write in '.+closed'; name another folder"
    ):
        STORAGE.locate(tmp_path / "closed" / "out").check_writable()


def test_a_folder_below_a_file_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for name in ("file", "file/below"):
        with pytest.raises(UserError, match=f"'{tmp_path}/file' is a file; name a folder"):
            STORAGE.locate(tmp_path / name).check_writable()
    STORAGE.locate(tmp_path / "new" / "folder").check_writable()
    assert not (tmp_path / "new").exists()
