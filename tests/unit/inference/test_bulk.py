"""Many photo files: one that fails does not stop the others, and a kill leaves no half file."""

import errno
import json
import re
import signal
import subprocess
import sys
import threading
import time
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from unit.inference.test_photo_file import Halving, stored_values
from unit.photofiles import DEEP, PHOTO, chunk, encoded, png, profile, saved

from degrain.cli.main import main
from degrain.imaging.pixels import Photo
from degrain.inference.bulk import DenoisedFile, _Room, denoise_files
from degrain.inference.config import Crop, OutputConfig, ReadingConfig
from degrain.inference.denoiser import Denoiser
from degrain.inference.output_records import RECORDS
from degrain.inference.photo_list import PhotoTask, find_photos, targets
from degrain.storage.location import Location, Storage

STORAGE = Storage()


class Failing(Halving):
    """Raises for photos of another size than `PHOTO`."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __call__(self, photo: Photo, window: object = None) -> Photo:
        if photo.shape[:2] != PHOTO.shape[:2]:
            raise self.error
        return photo // 2


class Unwritable(Halving):
    """Gives values that no type of file holds, for photos of another size than `PHOTO`."""

    def __call__(self, photo: Photo, window: object = None) -> Photo:
        halved = photo // 2
        return halved if photo.shape[:2] == PHOTO.shape[:2] else halved.astype(np.int64)


def tasks_of(folder: Path, contents: dict[str, bytes]) -> list[PhotoTask]:
    """Files of these names and contents in `folder / "in"`, to be denoised into `out`."""
    (folder / "in").mkdir()
    for name, content in contents.items():
        (folder / "in" / name).write_bytes(content)
    paths = [str(folder / "in" / name) for name in contents]
    return targets(find_photos(paths, STORAGE).photos, STORAGE.locate(folder / "out"))


def run(
    tasks: list[PhotoTask], denoiser: Denoiser | None = None, preview: Crop | None = None
) -> list[DenoisedFile]:
    files = denoise_files(
        denoiser or Halving(),
        tasks,
        output=OutputConfig(),
        reading=ReadingConfig(),
        preview=preview,
    )
    return list(files)


def test_results_are_in_order_and_each_photo_has_its_own(tmp_path: Path) -> None:
    photos = {f"{n:02}.png": png(np.roll(PHOTO, n, axis=1)) for n in range(30)}
    files = run(tasks_of(tmp_path, photos))
    assert [Path(f.source).name for f in files] == list(photos)
    for number, file in enumerate(files):
        expected = np.roll(PHOTO, number, axis=1) // 2
        assert np.array_equal(stored_values(Path(file.target).read_bytes()), expected)
        assert file.megapixels == 40 * 56 / 1e6


def test_reading_and_writing_overlap_the_denoiser(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading photo 4, denoising photo 3 and writing photo 2 wait for each other."""
    tasks = tasks_of(tmp_path, {f"{n}.png": png(PHOTO) for n in range(6)})
    meeting = threading.Barrier(3, timeout=600)
    read, write = Location.read_bytes, Location.write_bytes

    def meeting_read(self: Location) -> bytes:
        if self.uri.endswith("in/4.png"):
            meeting.wait()
        return read(self)

    def meeting_write(self: Location, content: bytes) -> None:
        if self.uri.endswith("out/2.png"):
            meeting.wait()
        write(self, content)

    class Meeting(Halving):
        calls = 0

        def __call__(self, photo: Photo, window: object = None) -> Photo:
            if self.calls == 3:
                meeting.wait()
            self.calls += 1
            return photo // 2

    monkeypatch.setattr(Location, "read_bytes", meeting_read)
    monkeypatch.setattr(Location, "write_bytes", meeting_write)
    assert len(run(tasks, Meeting())) == 6


def test_large_photos_are_in_memory_one_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("degrain.inference.bulk._PIXELS_AT_A_TIME", PHOTO[..., 0].size * 3 // 2)
    inside, most = [0], [0]
    lock = threading.Lock()
    import degrain.inference.bulk as bulk

    opened, write = bulk.open_photo, Location.write_bytes

    def count_open(*arguments: object) -> object:
        with lock:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
        return opened(*arguments)  # type: ignore[arg-type]

    def count_write(self: Location, content: bytes) -> None:
        write(self, content)
        with lock:
            inside[0] -= 1

    monkeypatch.setattr(bulk, "open_photo", count_open)
    monkeypatch.setattr(Location, "write_bytes", count_write)
    run(tasks_of(tmp_path, {f"{n}.png": png(PHOTO) for n in range(8)}))
    assert most[0] == 1


@pytest.mark.timeout(60)
@pytest.mark.parametrize("step", ["decoding", "denoising", "encoding"])
def test_photos_that_fail_leave_their_room_to_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    monkeypatch.setattr("degrain.inference.bulk._PIXELS_AT_A_TIME", PHOTO[..., 0].size * 3 // 2)
    odd = png(PHOTO)[:900] if step == "decoding" else png(DEEP[:30])
    denoiser = Failing(RuntimeError("shapes")) if step == "denoising" else Unwritable()
    contents = {**{f"{n}.png": odd for n in range(6)}, "good.png": png(PHOTO)}
    files = run(tasks_of(tmp_path, contents), denoiser)
    assert [f.error is None for f in files] == [False] * 6 + [True]


def test_unreadable_photo_is_reported_and_others_are_denoised(tmp_path: Path) -> None:
    cmyk = encoded(Image.fromarray(PHOTO).convert("CMYK"), "JPEG")
    contents = {
        "bad.png": png(PHOTO)[:900],
        "cmyk.jpg": cmyk,
        "empty.tif": b"",
        "good.png": png(PHOTO),
    }
    tasks = tasks_of(tmp_path, contents)
    gone = STORAGE.locate(tmp_path / "gone.png")
    tasks.insert(0, PhotoTask(gone, STORAGE.locate(tmp_path / "out" / "gone.png")))
    files = run(tasks)
    assert [f.error is None for f in files] == [False, False, False, False, True]
    assert "No such file" in (files[0].error or "")
    assert all(f.error is None or "\n" not in f.error for f in files)
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["good.png"]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: "
            "you tried to allocate 9"
        ),
    ],
    ids=["python", "gpu", "cpu"],
)
def test_out_of_memory_is_reported_and_others_are_denoised(
    tmp_path: Path, error: Exception
) -> None:
    tasks = tasks_of(tmp_path, {"large.png": png(DEEP[:30]), "small.png": png(PHOTO)})
    large, small = run(tasks, Failing(error))
    assert large.error == "it needs more memory than this machine has; denoise it on a larger one"
    assert small.error is None


def test_message_of_pytorch_for_too_little_cpu_memory() -> None:
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        torch.empty(2**50, dtype=torch.uint8)


@pytest.mark.parametrize("error", [RuntimeError("shapes"), zlib.error("shapes"), KeyError("a")])
def test_any_error_of_one_photo_is_reported_and_others_are_denoised(
    tmp_path: Path, error: Exception
) -> None:
    tasks = tasks_of(tmp_path, {"odd.png": png(DEEP[:30]), "good.png": png(PHOTO)})
    odd, good = run(tasks, Failing(error))
    name = type(error).__name__
    assert re.fullmatch(
        rf"unexpected {name} \((shapes|KeyError)\); this is a bug in degrain, please report it",
        odd.error or "",
    )
    assert good.error is None


def test_any_error_of_a_decoder_is_reported_and_others_are_denoised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import degrain.inference.bulk as bulk

    opened = bulk.open_photo

    def fail_once(content: bytes, *others: object) -> object:
        if content == b"odd":
            raise zlib.error("incorrect data check")
        return opened(content, *others)  # type: ignore[arg-type]

    monkeypatch.setattr(bulk, "open_photo", fail_once)
    odd, good = run(tasks_of(tmp_path, {"odd.png": b"odd", "good.png": png(PHOTO)}))
    assert "unexpected error (incorrect data check)" in (odd.error or "")
    assert good.error is None


@given(st.lists(st.integers(0, 200_000_000), max_size=12))
def test_photos_that_left_take_no_room(sizes: list[int]) -> None:
    """As in a run, photos leave in their order, and several are inside if they fit."""
    most, inside = 64_000_000, list[int]()
    room = _Room(most)
    for size in [*sizes, 10**12]:
        while inside and sum(inside) + size > most:
            room.leave(inside.pop(0))
        # With any rest of another photo a larger one than all would wait for ever.
        assert room._used == sum(inside)
        room.enter(size)
        inside.append(size)


@pytest.mark.soak
@pytest.mark.slow
def test_a_photo_of_100_megapixels_is_denoised_between_small_ones(tmp_path: Path) -> None:
    small, large = png(PHOTO[:33, :47]), png(np.zeros((10_000, 10_000), np.uint8))
    contents = {f"{n:02}.png": small for n in range(12)}
    files = run(tasks_of(tmp_path, {**contents, "05-large.png": large}))
    assert [f.error for f in files] == [None] * 13
    assert max(f.megapixels for f in files) == 100


def test_unwritable_result_is_reported_and_others_are_written(tmp_path: Path) -> None:
    (tmp_path / "out" / "folder.png").mkdir(parents=True)
    contents = {"folder.png": png(PHOTO), "long.png": png(PHOTO), "good.png": png(PHOTO)}
    first, second, third = tasks_of(tmp_path, contents)
    second = replace(second, target=STORAGE.locate(tmp_path / "out" / f"{'n' * 252}.png"))
    in_the_way, too_long, good = run([first, second, third])
    assert "Is a directory" in (in_the_way.error or "")
    assert "File name too long" in (too_long.error or "")
    assert good.error is None
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["folder.png", "good.png"]


@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_error_of_an_encoder_is_reported_and_others_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    save = Image.Image.save

    def fail(self: Image.Image, *arguments: object, **options: object) -> None:
        if self.size == (56, 30):
            raise OSError("encoder error -2 when writing image file")
        save(self, *arguments, **options)  # type: ignore[arg-type]

    odd, good = (saved(photo, kind.upper()) for photo in (PHOTO[:30], PHOTO))
    tasks = tasks_of(tmp_path, {f"odd.{kind}": odd, f"good.{kind}": good})
    monkeypatch.setattr(Image.Image, "save", fail)
    failed, done = run(tasks, Unwritable())
    reason = {
        "png": "unexpected .*; this is a bug in degrain, please report it",
        "jpeg": "it cannot be written as JPEG: encoder error -2 when writing image file",
    }
    assert re.fullmatch(reason[kind], failed.error or "")
    assert done.error is None
    assert [p.name for p in (tmp_path / "out").iterdir()] == [f"good.{kind}"]


def test_full_disk_ends_the_run_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(self: Location, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    tasks_of(tmp_path, {f"{n}.png": png(PHOTO) for n in range(5)})
    monkeypatch.setattr(Location, "write_bytes", fail)
    options = ["--filter", "bilateral", "--out", str(tmp_path / "out")]
    assert main(["denoise", str(tmp_path / "in"), *options]) == 1
    line = "error: No space left on device; free some space and run it again\n"
    assert capsys.readouterr().err == line


def test_what_was_not_read_is_named_at_the_end_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("a.png", "b.HEIC", "c.heic", "d.cr2")
    tasks_of(tmp_path, dict.fromkeys(names, png(PHOTO)))
    (tmp_path / "in" / "gone.jpg").symlink_to("nowhere.jpg")
    options = ["--out", str(tmp_path / "out"), "--summary", str(tmp_path / "summary.json")]
    assert main(["denoise", str(tmp_path / "in"), "--filter", "median", *options]) == 0
    assert "\nnot read: 2 HEIC, 1 CR2, 1 broken links\n" in capsys.readouterr().out
    summary = json.loads((tmp_path / "summary.json").read_bytes())
    assert summary["files"] == 1
    assert summary["not_read"] == {"HEIC": 2, "CR2": 1, "broken links": 1}


def test_preview_shows_the_part_before_and_after(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6  # turned by a quarter: 40 wide and 56 high when upright
    tasks = tasks_of(tmp_path, {"a.png": saved(PHOTO, "PNG", exif=exif), "small.png": png(PHOTO)})
    tasks[0] = PhotoTask(tasks[0].source, STORAGE.locate(tmp_path / "out" / "preview.png"))
    shown, outside = run(tasks, preview=Crop.parse("20x30+15+20"))
    assert shown.error is None
    preview = stored_values((tmp_path / "out" / "preview.png").read_bytes())
    upright = np.rot90(PHOTO, -1)[20:50, 15:35]
    assert preview.shape == (30, 20 + 4 + 20, 3)
    assert np.array_equal(preview[:, :20], upright)
    assert np.array_equal(preview[:, 24:], upright // 2)
    message = "its size is 56x40 pixels, and the preview 20x30+15+20 reaches beyond it"
    assert outside.error == message


def test_previews_ignore_profiles_that_are_kept(tmp_path: Path) -> None:
    damaged = png(PHOTO, chunk(b"iCCP", b"icc\0\0" + zlib.compress(b"damaged" * 30)))
    tasks = tasks_of(
        tmp_path, {"a.png": damaged, "b.png": saved(PHOTO, "PNG", icc_profile=profile("adobergb"))}
    )
    tasks = [
        PhotoTask(task.source, STORAGE.locate(tmp_path / "out" / f"{number}.png"))
        for number, task in enumerate(tasks)
    ]
    kept = denoise_files(
        Halving(),
        tasks,
        output=OutputConfig(),
        reading=ReadingConfig(profiles="keep"),
        preview=Crop.parse("20x30+15+5"),
    )
    assert [file.error for file in kept] == [None, None]
    for number in range(2):
        preview = stored_values((tmp_path / "out" / f"{number}.png").read_bytes())
        assert np.array_equal(preview[:, :20], PHOTO[5:35, 15:35])


KILLED = """
import sys
from degrain.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def start(folder: Path) -> "subprocess.Popen[str]":
    options = ["--filter", "median", "-r", "--out", str(folder / "out")]
    return subprocess.Popen(
        [sys.executable, "-c", KILLED, "denoise", str(folder / "in"), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler) and None,
    )


def wait_for_outputs(process: "subprocess.Popen[str]", out: Path, count: int) -> None:
    deadline = time.monotonic() + 600
    while len(list(out.glob("*.png"))) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.soak
@pytest.mark.slow
def test_a_run_that_is_interrupted_and_killed_leaves_whole_files_and_goes_on(
    tmp_path: Path,
) -> None:
    """`tests/benchmarks/denoise_kills.py` does the same with 500 files and ten kills."""
    large = np.tile(PHOTO, (8, 6, 1))
    tasks_of(tmp_path, {f"{n:03}.png": png(np.roll(large, n, axis=1)) for n in range(60)})
    out = tmp_path / "out"

    process = start(tmp_path)
    wait_for_outputs(process, out, 2)
    process.send_signal(signal.SIGINT)
    interrupted, errors = process.communicate(timeout=1200)
    assert process.returncode == 130
    assert "of 60 photos are done; to go on: degrain denoise" in interrupted
    assert errors == "error: interrupted; what was finished is kept\n"
    assert not list(out.glob("*.part"))

    process = start(tmp_path)
    wait_for_outputs(process, out, 1 + len(list(out.glob("*.png"))))
    process.kill()
    killed = process.communicate()[0]
    for file in out.glob("*.png"):
        assert stored_values(file.read_bytes()).shape == large.shape
    (out / "059.png.0123abcd.part").write_bytes(b"half")

    process = start(tmp_path)
    finished, errors = process.communicate(timeout=1200)
    assert process.returncode == 0, errors
    assert "photos are skipped: their output would be the same" in finished
    written = [RECORDS, *(f"{n:03}.png" for n in range(60))]
    assert sorted(p.name for p in out.iterdir()) == written
    lines = [line for run in (interrupted, killed, finished) for line in run.splitlines()]
    reported = [line.split(" -> ")[1].split("  ")[0] for line in lines if " -> " in line]
    assert len(set(reported)) == len(reported)
