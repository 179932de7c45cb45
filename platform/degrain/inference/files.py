"""Denoise photo files into a folder; alpha, grey and the bits per channel are preserved."""

import errno
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from degrain.errors import UserError
from degrain.imaging.codecs import (
    UnreadablePhotoError,
    decode_layers,
    encode_png,
    is_photo,
)
from degrain.inference.config import ReadingConfig
from degrain.inference.denoiser import Denoiser
from degrain.storage.listing import is_utf8, printable
from degrain.storage.location import Location, Storage

_FATAL_WRITE_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
"""Errors that every later write would raise too: disk full, quota exceeded, read-only."""


@dataclass(frozen=True)
class DenoisedFile:
    """The result for one photo file."""

    source: str
    target: str
    megapixels: float
    seconds: float
    error: str | None = None
    """The reason of a failure; None for success."""


def find_photos(paths: Sequence[str], storage: Storage) -> list[Location]:
    """Resolve files, and folders to the photo files directly inside, without duplicates.

    Raises UserError for a path that does not exist or a folder without photos.
    """
    found: list[Location] = []
    for text in paths:
        location = storage.locate(text)
        location.check_answers()
        if location.is_folder():
            names = [name for name in location.files() if is_photo(name) and "/" not in name]
            for name in names:
                if not is_utf8(name):
                    raise UserError(
                        f"the name of '{location / printable(name)}' is not valid UTF-8; rename it"
                    )
            inside = [location / name for name in names]
            if not inside:
                raise UserError(f"there are no photos in the folder '{text}'")
            found.extend(inside)
        elif location.exists():
            found.append(location)
        else:
            raise UserError(f"there is no photo '{text}'; check the path")
    return list({photo.identity: photo for photo in found}.values())


def targets(photos: Sequence[Location], out: Location) -> list[Location]:
    """The output file of each photo: `<out>/<name>.png`.

    Raises UserError if two photos have the same output file, or an output file is an input photo.
    """
    files = [out / f"{Path(photo.path).stem}.png" for photo in photos]
    sources = {photo.identity for photo in photos}
    taken: dict[str, Location] = {}
    for photo, target in zip(photos, files, strict=True):
        identity = target.identity
        if identity in sources:
            raise UserError(f"'{target}' would be written over; choose another folder for `out`")
        if identity in taken:
            raise UserError(
                f"'{taken[identity]}' and '{photo}' would both become '{target}'; "
                "denoise them in separate runs"
            )
        taken[identity] = photo
    return files


def denoise_files(
    denoiser: Denoiser,
    photos: Sequence[Location],
    out: Location,
    done: Callable[[DenoisedFile], None] = lambda _: None,
    reading: ReadingConfig | None = None,
) -> list[DenoisedFile]:
    """Denoise each photo into `out` as PNG; the result of a photo that fails has the reason.

    Raises OSError if no photo could be written: a full disk, an exceeded quota, a read-only one.
    """
    results: list[DenoisedFile] = []
    for photo, target in zip(photos, targets(photos, out), strict=True):
        result = _denoise_file(denoiser, photo, target, reading or ReadingConfig())
        results.append(result)
        done(result)
    return results


def _denoise_file(
    denoiser: Denoiser, photo: Location, target: Location, reading: ReadingConfig
) -> DenoisedFile:
    try:
        layers = decode_layers(photo.read_bytes(), **asdict(reading))
        started = time.perf_counter()
        clean = denoiser(layers.rgb)
        seconds = time.perf_counter() - started
        target.write_bytes(encode_png(clean, alpha=layers.alpha, grey=layers.grey))
    except UnreadablePhotoError as error:
        reason = str(error)
    except OSError as error:
        if error.errno in _FATAL_WRITE_ERRORS:
            raise
        reason = str(error).splitlines()[0]
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        reason = "it needs more memory than this machine has; denoise it on a larger one"
    else:
        return DenoisedFile(photo.uri, target.uri, clean.shape[0] * clean.shape[1] / 1e6, seconds)
    return DenoisedFile(photo.uri, target.uri, 0, 0, reason)


def _is_out_of_memory(error: MemoryError | RuntimeError) -> bool:
    """Whether memory ran out in Python, on a GPU, or on the CPU, where PyTorch raises a plain
    RuntimeError.
    """
    return isinstance(
        error, MemoryError | torch.OutOfMemoryError
    ) or "can't allocate memory" in str(error)
