"""Denoise photo files into a folder; alpha, grey and the bits per channel are preserved."""

import errno
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from degrain.errors import UserError
from degrain.imaging.codecs import UnreadablePhotoError, is_photo
from degrain.inference.config import OutputConfig, ReadingConfig
from degrain.inference.denoiser import Denoiser
from degrain.inference.photo_file import SUFFIXES, denoise_content
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


def targets(photos: Sequence[Location], out: Location, output: OutputConfig) -> list[Location]:
    """The output file of each photo in `out`: its name, with the suffix of `output.format`.

    Raises UserError if two photos have the same output file, or an output file is an input photo.
    """
    names = [Path(photo.path) for photo in photos]
    if output.format is not None:
        names = [name.with_suffix(SUFFIXES[output.format]) for name in names]
    files = [out / name.name for name in names]
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
    *,
    output: OutputConfig,
    reading: ReadingConfig,
) -> list[DenoisedFile]:
    """Denoise each photo into `out`; the result of a photo that fails has the reason.

    Raises OSError if no photo could be written: a full disk, an exceeded quota, a read-only one.
    """
    results: list[DenoisedFile] = []
    for photo, target in zip(photos, targets(photos, out, output), strict=True):
        result = _denoise_file(denoiser, photo, target, output, reading)
        results.append(result)
        done(result)
    return results


def _denoise_file(
    denoiser: Denoiser,
    photo: Location,
    target: Location,
    output: OutputConfig,
    reading: ReadingConfig,
) -> DenoisedFile:
    try:
        done = denoise_content(photo.read_bytes(), denoiser, output=output, reading=reading)
        target.write_bytes(done.content)
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
        return DenoisedFile(photo.uri, target.uri, done.megapixels, done.seconds)
    return DenoisedFile(photo.uri, target.uri, 0, 0, reason)


def _is_out_of_memory(error: MemoryError | RuntimeError) -> bool:
    """Whether memory ran out in Python, on a GPU, or on the CPU, where PyTorch raises a plain
    RuntimeError.
    """
    return isinstance(
        error, MemoryError | torch.OutOfMemoryError
    ) or "can't allocate memory" in str(error)
