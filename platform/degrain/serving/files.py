"""Denoise photo files into a folder: colours change, alpha stays bit for bit, grey stays grey, 16 bits stay 16 bits."""

import errno
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from degrain.errors import UserError
from degrain.imaging.codecs import LARGEST_MEGAPIXELS, Profiles, UnreadablePhotoError, decode_layers, encode_png, is_photo
from degrain.imaging.denoiser import Denoiser
from degrain.storage import Location, Storage

_NO_MORE_WRITING = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
"""System errors after which no other file can be written either."""


@dataclass(frozen=True)
class Reading:
    """What photo files are read, and how; see `decode_layers`."""

    largest_megapixels: float = LARGEST_MEGAPIXELS
    """Above 0."""
    profiles: Profiles = "convert"

    def __post_init__(self) -> None:
        if not self.largest_megapixels > 0:
            raise ValueError(f"largest_megapixels must be above 0, got {self.largest_megapixels}")


@dataclass(frozen=True)
class DenoisedFile:
    """What became of one photo file."""

    source: str
    target: str
    megapixels: float
    seconds: float
    error: str | None = None
    """Why it could not be denoised; None if it was."""


def find_photos(named: Sequence[str], storage: Storage) -> list[Location]:
    """The photos that the arguments name, each once: files, and all photo files directly in folders.

    Raises UserError for a path that does not exist or a folder without photos.
    """
    found: list[Location] = []
    for text in named:
        place = storage.locate(text)
        place.check_answers()
        if place.is_folder():
            inside = [place / name for name in place.files() if is_photo(name) and "/" not in name]
            if not inside:
                raise UserError(f"there are no photos in the folder '{text}'")
            found.extend(inside)
        elif place.exists():
            found.append(place)
        else:
            raise UserError(f"there is no photo '{text}'; check the path")
    return list({photo.identity: photo for photo in found}.values())


def targets(photos: Sequence[Location], out: Location) -> list[Location]:
    """Where each denoised photo goes: `<out>/<name>.png`.

    Raises UserError if two photos would get one name, or a result would take the place of its source.
    """
    made = [out / f"{Path(photo.path).stem}.png" for photo in photos]
    sources = {photo.identity for photo in photos}
    taken: dict[str, Location] = {}
    for photo, target in zip(photos, made, strict=True):
        place = target.identity
        if place in sources:
            raise UserError(f"'{target}' would be written over; choose another folder with --out")
        if place in taken:
            raise UserError(f"'{taken[place]}' and '{photo}' would both become '{target}'; denoise them apart")
        taken[place] = photo
    return made


def denoise_files(
    denoiser: Denoiser,
    photos: Sequence[Location],
    out: Location,
    done: Callable[[DenoisedFile], None] = lambda _: None,
    reading: Reading | None = None,
) -> list[DenoisedFile]:
    """Denoise each photo into `out` as PNG; a photo that fails is reported with the reason and the others go on.

    Raises OSError when no other photo could be written either: a full disk or quota, or one that is read-only.
    """
    results: list[DenoisedFile] = []
    for photo, target in zip(photos, targets(photos, out), strict=True):
        result = _denoise_file(denoiser, photo, target, reading or Reading())
        results.append(result)
        done(result)
    return results


def _denoise_file(denoiser: Denoiser, photo: Location, target: Location, reading: Reading) -> DenoisedFile:
    try:
        layers = decode_layers(photo.read_bytes(), **asdict(reading))
        began = time.perf_counter()
        clean = denoiser(layers.rgb)
        seconds = time.perf_counter() - began
        target.write_bytes(encode_png(clean, alpha=layers.alpha, grey=layers.grey))
    except UnreadablePhotoError as error:
        reason = str(error)
    except OSError as error:
        if error.errno in _NO_MORE_WRITING:
            raise
        reason = str(error).splitlines()[0]
    except (MemoryError, RuntimeError) as error:
        if not _lacks_memory(error):
            raise
        reason = "there is too little memory for it; denoise it on a machine with more"
    else:
        return DenoisedFile(photo.uri, target.uri, clean.shape[0] * clean.shape[1] / 1e6, seconds)
    return DenoisedFile(photo.uri, target.uri, 0, 0, reason)


def _lacks_memory(error: MemoryError | RuntimeError) -> bool:
    """Whether memory ran out, in Python, on a GPU, or on the CPU, for which PyTorch has no class of its own."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)
