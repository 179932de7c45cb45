"""Denoising photo files preserves all but colours; a file that fails does not stop the others."""

import errno
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from unit.photofiles import (
    ALPHA,
    DEEP,
    DEEP_ALPHA,
    DEEP_GREY,
    GREY,
    PALETTE,
    PHOTO,
    STRAIGHT,
    encoded,
    oriented_exif,
    png,
    saved,
    tiff,
    with_alpha,
)

from degrain.errors import UserError
from degrain.imaging.pixels import Photo
from degrain.inference.files import DenoisedFile, denoise_files, find_photos, targets
from degrain.storage.location import Location, Storage

STORAGE = Storage.from_environment()


class Halving:
    name = "halving"
    parameters = 0

    def __call__(self, photo: Photo) -> Photo:
        assert photo.ndim == 3
        assert photo.shape[2] == 3
        return photo // 2


class Tinting(Halving):
    """Tints grey photos, as networks do."""

    def __call__(self, photo: Photo) -> Photo:
        return photo // 2 + np.array([0, 1, 4], dtype=photo.dtype)


class Failing(Halving):
    """Raises for photos of another size than `PHOTO`."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __call__(self, photo: Photo) -> Photo:
        if photo.shape[:2] != PHOTO.shape[:2]:
            raise self.error
        return photo // 2


def denoised(
    folder: Path, contents: dict[str, bytes], denoiser: Halving | None = None
) -> list[DenoisedFile]:
    """Denoise files of these names and contents into `folder / "out"`."""
    photos = []
    for name, content in contents.items():
        (folder / name).write_bytes(content)
        photos.append(STORAGE.locate(folder / name))
    return denoise_files(denoiser or Halving(), photos, STORAGE.locate(folder / "out"))


def result(folder: Path, name: str = "a") -> NDArray[np.generic]:
    """The stored values of a PNG, decoded independently of the code under test."""
    return np.asarray(imagecodecs.png_decode((folder / "out" / f"{name}.png").read_bytes()))


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        pytest.param("a.png", png(PHOTO), PHOTO // 2, id="png"),
        pytest.param("a.png", png(DEEP), DEEP // 2, id="png16"),
        pytest.param("a.png", png(GREY), GREY // 2, id="grey"),
        pytest.param("a.png", png(DEEP_GREY), DEEP_GREY // 2, id="grey 16"),
        pytest.param(
            "a.png", png(np.dstack([PHOTO, ALPHA])), np.dstack([PHOTO // 2, ALPHA]), id="alpha"
        ),
        pytest.param(
            "a.png",
            png(np.dstack([DEEP, DEEP_ALPHA])),
            np.dstack([DEEP // 2, DEEP_ALPHA]),
            id="alpha 16",
        ),
        pytest.param(
            "a.png",
            png(np.dstack([GREY, ALPHA])),
            np.dstack([GREY // 2, ALPHA]),
            id="grey with alpha",
        ),
        pytest.param(
            "a.png",
            png(np.dstack([DEEP_GREY, DEEP_ALPHA])),
            np.dstack([DEEP_GREY // 2, DEEP_ALPHA]),
            id="grey with alpha 16",
        ),
        pytest.param(
            "a.png", png(with_alpha(PHOTO, 255)), with_alpha(PHOTO // 2, 255), id="opaque"
        ),
        pytest.param(
            "a.png",
            encoded(PALETTE, "PNG", transparency=bytes(range(16))),
            np.dstack([np.asarray(PALETTE.convert("RGB")) // 2, np.asarray(PALETTE)]),
            id="palette",
        ),
        pytest.param(
            "a.webp",
            encoded(Image.fromarray(np.dstack([PHOTO, ALPHA])), "WEBP", lossless=True, exact=True),
            np.dstack([PHOTO // 2, ALPHA]),
            id="webp",
        ),
        pytest.param(
            "a.tif",
            tiff(np.dstack([DEEP, DEEP_ALPHA]), photometric="rgb", **STRAIGHT),
            np.dstack([DEEP // 2, DEEP_ALPHA]),
            id="tiff 16",
        ),
        pytest.param(
            "a.tif",
            tiff(np.dstack([GREY, ALPHA]), **STRAIGHT),
            np.dstack([GREY // 2, ALPHA]),
            id="grey tiff with alpha",
        ),
        pytest.param(
            "a.png",
            encoded(Image.fromarray(np.dstack([PHOTO, ALPHA])), "PNG", exif=oriented_exif(6)),
            np.rot90(np.dstack([PHOTO // 2, ALPHA]), -1),
            id="turned",
        ),
    ],
)
def test_denoises_colours_and_preserves_alpha_grey_and_bits(
    tmp_path: Path, name: str, content: bytes, expected: NDArray[np.generic]
) -> None:
    [file] = denoised(tmp_path, {name: content})
    assert file.error is None
    assert file.megapixels == 40 * 56 / 1e6
    stored = result(tmp_path)
    assert stored.dtype == expected.dtype
    assert np.array_equal(stored, expected)


@pytest.mark.parametrize("grey", [GREY, DEEP_GREY], ids=["8", "16"])
def test_grey_photos_are_written_as_the_mean_of_channels(tmp_path: Path, grey: Photo) -> None:
    denoised(tmp_path, {"a.png": png(grey)}, Tinting())
    assert np.array_equal(result(tmp_path), grey // 2 + 2)


def test_orientation_is_not_applied_twice(tmp_path: Path) -> None:
    """Its EXIF is not copied: orientation is in the pixels."""
    denoised(tmp_path, {"a.jpg": saved(PHOTO, "JPEG", exif=oriented_exif(6))})
    with Image.open(tmp_path / "out" / "a.png") as image:
        assert image.size == (40, 56)
        assert not image.getexif()
        assert "icc_profile" not in image.info


def test_unreadable_photo_is_reported_and_others_are_denoised(tmp_path: Path) -> None:
    cmyk = encoded(Image.fromarray(PHOTO).convert("CMYK"), "JPEG")
    contents = {
        "bad.png": png(PHOTO)[:900],
        "cmyk.jpg": cmyk,
        "empty.tif": b"",
        "good.png": png(PHOTO),
    }
    files = denoised(tmp_path, contents)
    assert [f.error is None for f in files] == [False, False, False, True]
    assert all(f.error is None or "\n" not in f.error for f in files)
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["good.png"]


def test_missing_photo_is_reported(tmp_path: Path) -> None:
    gone = STORAGE.locate(tmp_path / "gone.png")
    [file] = denoise_files(Halving(), [gone], STORAGE.locate(tmp_path / "out"))
    assert file.error is not None
    assert "No such file" in file.error
    assert "\n" not in file.error


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
    large, small = denoised(
        tmp_path, {"large.png": png(DEEP[:30]), "small.png": png(PHOTO)}, Failing(error)
    )
    assert large.error == "it needs more memory than this machine has; denoise it on a larger one"
    assert small.error is None


def test_message_of_pytorch_for_too_little_cpu_memory() -> None:
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        torch.empty(2**50, dtype=torch.uint8)


def test_errors_of_the_denoiser_are_raised(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="shapes"):
        denoised(tmp_path, {"a.png": png(PHOTO[:30])}, Failing(RuntimeError("shapes do not match")))


def test_unwritable_result_is_reported_and_others_are_written(tmp_path: Path) -> None:
    (tmp_path / "out" / "folder.png").mkdir(parents=True)
    long = "n" * 250
    in_the_way, too_long, good = denoised(
        tmp_path,
        {"folder.jpg": saved(PHOTO, "JPEG"), f"{long}.tif": tiff(DEEP), "good.png": png(PHOTO)},
    )
    assert "Is a directory" in (in_the_way.error or "")
    assert "File name too long" in (too_long.error or "")
    assert good.error is None
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["folder.png", "good.png"]


def test_full_disk_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Location, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Location, "write_bytes", fail)
    with pytest.raises(OSError, match="No space left"):
        denoised(tmp_path, {"a.png": png(PHOTO)})


def test_finds_photos_by_name_and_in_folders_without_duplicates(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "metadata.txt"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "c.png").write_bytes(b"x")
    found = find_photos([str(tmp_path), str(tmp_path / "b.png")], STORAGE)
    assert [Path(p.path).name for p in found] == ["a.JPG", "b.png"]
    with pytest.raises(UserError, match="there is no photo"):
        find_photos([str(tmp_path / "none.png")], STORAGE)


def test_refuses_photos_with_the_same_output_file(tmp_path: Path) -> None:
    photos = [STORAGE.locate(tmp_path / name) for name in ("a.png", "a.jpg")]
    with pytest.raises(UserError, match="would both become"):
        targets(photos, STORAGE.locate(tmp_path / "out"))
    with pytest.raises(UserError, match="would be written over"):
        targets(photos[:1], STORAGE.locate(tmp_path))


def test_refuses_to_overwrite_a_source_through_any_spelling(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "a.png").write_bytes(png(PHOTO))
    photos = [STORAGE.locate(str(tmp_path / "in" / "a.png"))]
    for spelled in ("in", "link", "in/../in", "link/../in"):
        with pytest.raises(UserError, match="would be written over; choose another folder"):
            targets(photos, STORAGE.locate(f"{tmp_path}/{spelled}"))


def test_photo_named_twice_is_found_once(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(PHOTO))
    (tmp_path / "link").symlink_to(tmp_path)
    named = [
        str(tmp_path / "a.png"),
        f"{tmp_path}/link/a.png",
        f"{tmp_path}/../{tmp_path.name}/a.png",
    ]
    assert len(find_photos(named, STORAGE)) == 1
