"""Denoise many photo files: the next is read and the last is written while the network computes.

One thread reads and decodes, one encodes and writes, and the calling thread runs the denoiser, so
that a photo costs what the denoiser costs. Outputs appear one by one and complete.
"""

import errno
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch

from degrain.imaging.codecs import UnreadablePhotoError, megapixels_by_header
from degrain.imaging.pixels import Photo
from degrain.inference.config import Crop, OutputConfig, ReadingConfig
from degrain.inference.denoiser import Denoiser
from degrain.inference.photo_file import OpenPhoto, open_photo
from degrain.inference.photo_list import PhotoTask
from degrain.inference.preview import encode_preview

_FATAL_WRITE_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
"""Errors that every later write would raise too: disk full, quota exceeded, read-only."""
_AHEAD = 2
"""Photos that are opened before the denoiser needs them, and results that wait to be written."""
_MEGAPIXELS_AT_A_TIME = 64.0
"""Photos in memory have at most this size together; a larger one is alone."""


@dataclass(frozen=True)
class DenoisedFile:
    """The result for one photo file."""

    source: str
    target: str
    megapixels: float = 0
    seconds: float = 0
    """Time of the denoiser."""
    notes: tuple[str, ...] = ()
    """What the output lacks of the input."""
    error: str | None = None
    """The reason of a failure; None for success."""


def denoise_files(
    denoiser: Denoiser,
    tasks: Sequence[PhotoTask],
    *,
    output: OutputConfig,
    reading: ReadingConfig,
    preview: Crop | None = None,
) -> Iterator[DenoisedFile]:
    """Denoise each photo; yields the results in order, that of a photo that fails with the reason.

    With `preview` the files show a part of each photo before and after. Raises OSError if no
    photo could be written: a full disk, an exceeded quota, a read-only one.
    """
    room = _Room(_MEGAPIXELS_AT_A_TIME)
    opening: deque[Future[_Opened]] = deque()
    writing: deque[Future[DenoisedFile]] = deque()
    waiting = iter(tasks)
    with ThreadPoolExecutor(1, "read") as reader, ThreadPoolExecutor(1, "write") as writer:
        try:
            while True:
                while len(opening) < _AHEAD and (task := next(waiting, None)) is not None:
                    opening.append(reader.submit(_open, task, output, reading, room))
                if not opening:
                    break
                opened = opening.popleft().result()
                finish = _denoise(opened, denoiser, preview)
                writing.append(writer.submit(_write, opened, finish, room))
                del opened, finish
                while writing and (writing[0].done() or len(writing) > _AHEAD):
                    yield writing.popleft().result()
            while writing:
                yield writing.popleft().result()
        finally:
            room.close()
            for pending in (opening, writing):
                for future in pending:
                    future.cancel()


@dataclass
class _Opened:
    """A photo that was read, or the reason why it could not be."""

    task: PhotoTask
    megapixels: float
    photo: OpenPhoto | None = None
    error: str | None = None


@dataclass(frozen=True)
class _Finish:
    """How a denoised photo is encoded, or why it was not denoised."""

    encode: Callable[[], bytes] | None
    seconds: float = 0
    error: str | None = None


class _Room:
    """Limits the megapixels in memory."""

    def __init__(self, most: float) -> None:
        self._most, self._used, self._closed = most, 0.0, False
        self._changed = threading.Condition()

    def enter(self, megapixels: float) -> None:
        """Wait until there is room; a photo of any size fits into an empty one."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._closed or not self._used or self._used + megapixels <= self._most
            )
            self._used += megapixels

    def leave(self, megapixels: float) -> None:
        """Make room."""
        with self._changed:
            self._used -= megapixels
            self._changed.notify_all()

    def close(self) -> None:
        """End all waiting."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


def _open(task: PhotoTask, output: OutputConfig, reading: ReadingConfig, room: _Room) -> _Opened:
    megapixels = 0.0
    try:
        content = task.source.read_bytes()
        size = megapixels_by_header(content)
        room.enter(size)
        megapixels = size
        return _Opened(task, megapixels, open_photo(content, output, reading))
    except _PHOTO_ERRORS as error:
        return _Opened(task, megapixels, error=_reason(error))


def _denoise(opened: _Opened, denoiser: Denoiser, preview: Crop | None) -> _Finish:
    photo = opened.photo
    if photo is None:
        return _Finish(None, error=opened.error)
    started = time.perf_counter()
    try:
        encode = (
            _encoder(photo, photo.denoise(denoiser))
            if preview is None
            else encode_preview(photo.stored, denoiser, preview, converts=photo.converts)
        )
    except _PHOTO_ERRORS as error:
        return _Finish(None, error=_reason(error))
    return _Finish(encode, time.perf_counter() - started)


def _encoder(photo: OpenPhoto, clean: Photo) -> Callable[[], bytes]:
    return lambda: photo.encode(clean)


def _write(opened: _Opened, finish: _Finish, room: _Room) -> DenoisedFile:
    source, target = opened.task.source.uri, opened.task.target.uri
    try:
        if finish.encode is None or opened.photo is None:
            return DenoisedFile(source, target, error=finish.error)
        opened.task.target.write_bytes(finish.encode())
        photo = opened.photo
        return DenoisedFile(source, target, photo.megapixels, finish.seconds, photo.notes)
    except _PHOTO_ERRORS as error:
        return DenoisedFile(source, target, error=_reason(error))
    finally:
        opened.photo = None
        room.leave(opened.megapixels)


_PHOTO_ERRORS = (UnreadablePhotoError, OSError, MemoryError, RuntimeError)


def _reason(error: Exception) -> str:
    """Why one photo fails; raises the error again if it is not the photo's."""
    if isinstance(error, UnreadablePhotoError):
        return str(error)
    if isinstance(error, OSError) and error.errno not in _FATAL_WRITE_ERRORS:
        return str(error).splitlines()[0]
    if _is_out_of_memory(error):
        return "it needs more memory than this machine has; denoise it on a larger one"
    raise error


def _is_out_of_memory(error: Exception) -> bool:
    """Whether memory ran out in Python, on a GPU, or on the CPU, where PyTorch raises a plain
    RuntimeError.
    """
    return isinstance(
        error, MemoryError | torch.OutOfMemoryError
    ) or "can't allocate memory" in str(error)
