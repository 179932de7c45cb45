"""The checkpoint store: which files are kept, damaged files, full disks."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from degrain.errors import JobFailedError
from degrain.storage.location import Location, Storage
from degrain.training.checkpoint import DamagedCheckpointError, Snapshot, decode, encode
from degrain.training.checkpoint_store import CheckpointStore


def snapshot(step: int, psnr: float | None = None) -> Snapshot:
    return {"step": step, "metrics": None if psnr is None else {"val_psnr": psnr}}


def store(
    folder: Path, warn: Callable[[str], None] = pytest.fail, **options: int
) -> CheckpointStore:
    return CheckpointStore(Storage().locate(folder), warn=warn, **options)


def steps(folder: Path) -> list[int]:
    return sorted(int(f.name[5:13]) for f in folder.iterdir())


def test_an_empty_store_has_no_newest_and_no_best_checkpoint(tmp_path: Path) -> None:
    empty = store(tmp_path / "none")
    assert empty.newest() is None
    assert empty.best() is None
    empty.flush()


@pytest.mark.parametrize(
    ("keep_best", "expected"),
    [(1, [200, 400, 500]), (2, [200, 300, 400, 500]), (8, [100, 200, 300, 400, 500])],
)
def test_the_two_newest_and_the_best_are_kept(
    tmp_path: Path, keep_best: int, expected: list[int]
) -> None:
    made = store(tmp_path, keep_best=keep_best)
    for step, psnr in ((100, 20.0), (200, 31.5), (300, 30.25), (400, 29.0), (500, 30.0)):
        made.save(snapshot(step, psnr))
    made.flush()
    assert steps(tmp_path) == expected
    assert made.newest() == snapshot(500, 30.0)


def test_partial_files_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    made = store(tmp_path)
    made.save(snapshot(10, 20.0))
    made.flush()
    (tmp_path / "step-00000020.psnr-21.0000.pt.0badcafe.part").write_bytes(b"cut off")
    assert made.newest() == snapshot(10, 20.0)
    assert steps(tmp_path) == [10]


def test_the_later_checkpoint_of_equal_psnr_is_the_best(tmp_path: Path) -> None:
    made = store(tmp_path)
    for step, psnr in ((1, 30.0), (2, 30.0), (3, 29.0)):
        made.save(snapshot(step, psnr))
    made.flush()
    best = made.best()
    assert best is not None
    assert best["step"] == 2


def test_a_checkpoint_without_validation_is_the_newest_but_never_the_best(tmp_path: Path) -> None:
    made = store(tmp_path)
    for each in (snapshot(10, -1.5), snapshot(20, -3.0), snapshot(25)):
        made.save(each)
    made.flush()
    assert steps(tmp_path) == [10, 20, 25]
    newest, best = made.newest(), made.best()
    assert newest is not None
    assert best is not None
    assert (newest["step"], best["step"]) == (25, 10)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda content: content[:-1], "its content does not match its hash"),
        (
            lambda content: content[:200] + bytes([content[200] ^ 1]) + content[201:],
            "its content does not match its hash",
        ),
        (lambda content: b"", "it does not start with a checkpoint header"),
        (lambda content: b"<html>" + content, "it does not start with a checkpoint header"),
    ],
    ids=["truncated", "one bit flipped", "empty", "another format"],
)
def test_a_damaged_checkpoint_is_reported_and_the_one_before_it_is_used(
    tmp_path: Path, damage: Callable[[bytes], bytes], reason: str
) -> None:
    made = store(tmp_path)
    for step in (100, 200):
        made.save(snapshot(step, 30.0))
    made.flush()
    newest = max(tmp_path.iterdir())
    newest.write_bytes(damage(newest.read_bytes()))
    warnings: list[str] = []
    again = store(tmp_path, warn=warnings.append)
    assert again.newest() == snapshot(100, 30.0)
    assert len(warnings) == 1
    assert reason in warnings[0]
    assert newest.name in warnings[0]
    assert steps(tmp_path) == [100]


def test_a_decoded_file_equals_the_snapshot_and_extra_bytes_are_rejected(tmp_path: Path) -> None:
    whole = encode(snapshot(3))
    assert decode(whole) == snapshot(3)
    with pytest.raises(DamagedCheckpointError):
        decode(whole + b"x")


class Full(Location):
    """A folder on a disk without free space while `full` is true."""

    full = False

    def __truediv__(self, name: str) -> Location:
        return FullFile(f"{self.uri}/{name}", self.storage)


class FullFile(Location):
    def write_bytes(self, content: bytes) -> None:
        if Full.full:
            raise OSError(28, "No space left on device")
        super().write_bytes(content)


def test_a_full_disk_is_reported_and_training_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warnings: list[str] = []
    made = CheckpointStore(Full(str(tmp_path), Storage()), warn=warnings.append)
    made.save(snapshot(1, 30.0))
    made.flush()
    monkeypatch.setattr(Full, "full", True)
    made.save(snapshot(2, 31.0))
    with pytest.raises(
        JobFailedError, match=r"could not be written to .*No space left on device; free space"
    ):
        made.flush()
    assert len(warnings) == 1
    assert (
        "the checkpoint of step 2 could not be written (No space left on device); "
        "training continues" in warnings[0]
    )
    assert made.newest() == snapshot(1, 30.0)
    monkeypatch.setattr(Full, "full", False)
    made.save(snapshot(3, 32.0))
    made.flush()
    assert steps(tmp_path) == [1, 3]


class Slow(Location):
    gate = threading.Event()

    def __truediv__(self, name: str) -> Location:
        return SlowFile(f"{self.uri}/{name}", self.storage)


class SlowFile(Location):
    def write_bytes(self, content: bytes) -> None:
        assert Slow.gate.wait(300)
        super().write_bytes(content)


def test_save_blocks_only_while_two_checkpoints_are_being_written(tmp_path: Path) -> None:
    Slow.gate.clear()
    made = CheckpointStore(Slow(str(tmp_path), Storage()), warn=pytest.fail)
    made.save(snapshot(1, 1.0))
    made.save(snapshot(2, 2.0))
    third = threading.Thread(target=made.save, args=(snapshot(3, 3.0),))
    third.start()
    third.join(0.2)
    assert third.is_alive()
    Slow.gate.set()
    third.join(300)
    made.flush()
    assert steps(tmp_path) == [2, 3]
