"""Atomic writes: a reader sees all of a file or none, and what a kill leaves is removed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from documented import ROOT

from degrain.storage.atomic import AtomicWrite, partial_files, partial_name, remove_abandoned
from degrain.storage.location import Storage

STORAGE = Storage()
PLATFORM = ROOT / "platform"


@pytest.mark.parametrize("before", [None, b"old"])
def test_a_failed_write_changes_no_file(tmp_path: Path, before: bytes | None) -> None:
    target = tmp_path / "deep" / "target"
    if before is not None:
        STORAGE.locate(target).write_bytes(before)

    def write_and_fail() -> None:
        with AtomicWrite(STORAGE.locate(target.parent), "target") as file:
            file.write(b"half of it")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_and_fail()
    assert [p.name for p in target.parent.iterdir()] == ([] if before is None else ["target"])
    assert before is None or target.read_bytes() == before


def test_a_failed_write_over_a_folder_leaves_no_partial_file(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    with pytest.raises(IsADirectoryError):
        STORAGE.locate(tmp_path / "target").write_bytes(b"new")
    assert [p.name for p in tmp_path.iterdir()] == ["target"]


def test_readers_see_the_old_content_until_the_write_is_published(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"old")
    with AtomicWrite(STORAGE.locate(tmp_path), "target") as file:
        file.write(b"new")
        (partial,) = set(tmp_path.iterdir()) - {target}  # a move within a folder is atomic
        assert partial_files([partial.name, "target"], ["target"]) == [partial.name]
        assert target.read_bytes() == b"old"
        file.publish("target")
        assert target.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize(
    "name", ["a" * 241, "a" * 255, "ä" * 127, "x" + "€" * 84, "😀" * 63], ids=lambda name: name[-1:]
)
def test_a_name_may_have_255_bytes(tmp_path: Path, name: str) -> None:
    STORAGE.locate(tmp_path / name).write_bytes(b"content")
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [(name, b"content")]
    partial = partial_name(name)
    assert len(os.fsencode(partial)) < 128
    assert partial.encode()  # no character was cut through
    assert partial_files([partial], [name]) == [partial]


def test_concurrent_writers_use_separate_partial_files(tmp_path: Path) -> None:
    folder = STORAGE.locate(tmp_path)
    with AtomicWrite(folder, "target") as first, AtomicWrite(folder, "target") as second:
        first.write(b"first")
        second.write(b"second")
        second.publish("target")
        first.publish("target")
    assert (tmp_path / "target").read_bytes() == b"first"


def test_an_error_without_a_name_gets_that_of_the_target(tmp_path: Path) -> None:
    with (
        pytest.raises(OSError, match=f"No space left on device: '{tmp_path}/target'"),
        AtomicWrite(STORAGE.locate(tmp_path), "target"),
    ):
        raise OSError(28, "pyarrow's words")


def test_content_reaches_the_disk_before_its_name_and_the_name_before_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power failure cannot be tried; that the operating system is asked to flush can."""
    flushed: list[tuple[str, bool]] = []
    flush = os.fsync

    def noted(descriptor: int) -> None:
        name = str(Path(f"/proc/self/fd/{descriptor}").readlink()).removeprefix(f"{tmp_path}")
        flushed.append((name, (tmp_path / "target").exists()))
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    STORAGE.locate(tmp_path / "target").write_bytes(b"content")
    (partial, before), (folder, after) = flushed
    assert (partial_files([partial], ["/target"]), before) == ([partial], False)
    assert (folder, after) == ("", True)


WRITER = """
import sys
from degrain.storage.atomic import AtomicWrite
from degrain.storage.location import Storage
with AtomicWrite(Storage().locate(sys.argv[1]), "target") as file:
    file.write(b"half of it")
    print("writing", flush=True)
    sys.stdin.read()
"""


def test_what_a_kill_leaves_is_removed_and_what_is_being_written_is_kept(tmp_path: Path) -> None:
    foreign = [tmp_path / name for name in ("download.part", "a.0123abcd.part.txt", "b.zip.part")]
    for file in foreign:
        file.write_bytes(b"not ours")
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(PLATFORM)},
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"writing\n"
        (partial,) = set(tmp_path.iterdir()) - set(foreign)
        remove_abandoned(tmp_path)
        assert partial.exists()
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        assert partial.exists()
        remove_abandoned(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(foreign)
