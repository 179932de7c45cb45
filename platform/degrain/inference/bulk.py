"""Denoise many photo files: the next is read and the last is written while the network computes.

One thread reads and decodes, one encodes and writes, and the calling thread runs the denoiser, so
that a photo costs what the denoiser costs. Outputs appear one by one and complete.
"""

import errno
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch

from degrain.imaging.codecs import UnreadablePhotoError, pixels_by_header
from degrain.imaging.pixels import Photo
from degrain.imaging.stored_photo import first_line
from degrain.inference.config import Crop, OutputConfig, ReadingConfig
from degrain.inference.denoiser import Denoiser
from degrain.inference.photo_file import OpenPhoto, open_photo
from degrain.inference.photo_list import PhotoTask
from degrain.inference.preview import encode_preview

_FATAL_WRITE_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
"""Errors that every later write would raise too: disk full, quota exceeded, read-only."""
_AHEAD = 2
"""Photos that are opened before the denoiser needs them, and results that wait to be written."""
_PIXELS_AT_A_TIME = 64_000_000
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
    written: Callable[[PhotoTask], None] = lambda _: None,
) -> Iterator[DenoisedFile]:
    """Denoise each photo; yields the results in order, that of a photo that fails with the reason.

    With `preview` the files show a part of each photo before and after. `written` is called when
    the file of a task is complete, in another thread. Raises OSError if no photo could be written:
    a full disk, an exceeded quota, a read-only one.
    """
    room = _Room(_PIXELS_AT_A_TIME)
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
                writing.append(writer.submit(_write, opened, finish, room, output, written))
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
    pixels: int
    """The room that it takes."""
    photo: OpenPhoto | None = None
    error: str | None = None


@dataclass(frozen=True)
class _Finish:
    """How a denoised photo is encoded, or why it was not denoised."""

    encode: Callable[[], bytes] | None
    seconds: float = 0
    error: str | None = None


class _Room:
    """Limits the pixels in memory; counts integers, because sums of floats do not return to 0."""

    def __init__(self, most: int) -> None:
        self._most, self._used, self._closed = most, 0, False
        self._changed = threading.Condition()

    def enter(self, pixels: int) -> None:
        """Wait until there is room; a photo of any size fits into an empty one."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._closed or not self._used or self._used + pixels <= self._most
            )
            self._used += pixels

    def leave(self, pixels: int) -> None:
        """Make room."""
        with self._changed:
            self._used -= pixels
            self._changed.notify_all()

    def close(self) -> None:
        """End all waiting."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


def _open(task: PhotoTask, output: OutputConfig, reading: ReadingConfig, room: _Room) -> _Opened:
    pixels = 0
    try:
        content = task.source.read_bytes()
        size = pixels_by_header(content)
        room.enter(size)
        pixels = size
        return _Opened(task, pixels, open_photo(content, output, reading))
    except Exception as error:  # noqa: BLE001 - decoders raise any type for a damaged file
        return _Opened(task, pixels, error=_reason(error))


def _denoise(opened: _Opened, denoiser: Denoiser, preview: Crop | None) -> _Finish:
    photo = opened.photo
    if photo is None:
        return _Finish(None, error=opened.error)
    started = time.perf_counter()
    try:
        encode = (
            _encoder(photo, photo.denoise(denoiser))
            if preview is None
            else encode_preview(photo, denoiser, preview)
        )
    except Exception as error:  # noqa: BLE001 - no photo ends the run of the others
        return _Finish(None, error=_reason(error))
    return _Finish(encode, time.perf_counter() - started)


def _encoder(photo: OpenPhoto, clean: Photo) -> Callable[[], bytes]:
    return lambda: photo.encode(clean)


def _write(
    opened: _Opened,
    finish: _Finish,
    room: _Room,
    output: OutputConfig,
    written: Callable[[PhotoTask], None],
) -> DenoisedFile:
    task = opened.task
    source, target = task.source.uri, task.target.uri
    try:
        if finish.encode is None or opened.photo is None:
            return DenoisedFile(source, target, error=finish.error)
        task.target.write_bytes(finish.encode())
        if output.keep_dates:
            changed = task.source.storage.stamps([source])[source].changed
            os.utime(task.target.path, ns=(changed, changed))
        written(task)
        photo = opened.photo
        return DenoisedFile(source, target, photo.megapixels, finish.seconds, photo.notes)
    except Exception as error:  # noqa: BLE001 - as in `_open`
        return DenoisedFile(source, target, error=_reason(error))
    finally:
        opened.photo = None
        room.leave(opened.pixels)


def _reason(error: Exception) -> str:
    """Why one photo fails; raises the error again if every later photo would fail with it too."""
    if isinstance(error, UnreadablePhotoError):
        return str(error)
    if isinstance(error, OSError):
        if error.errno in _FATAL_WRITE_ERRORS:
            raise error
        return first_line(error)
    if _is_out_of_memory(error):
        return "it needs more memory than this machine has; denoise it on a larger one"
    kind = type(error).__name__
    return f"unexpected {kind} ({first_line(error)}); this is a bug in degrain, please report it"


def _is_out_of_memory(error: Exception) -> bool:
    """Whether memory ran out in Python, on a GPU, or on the CPU, where PyTorch raises a plain
    RuntimeError.
    """
    return isinstance(
        error, MemoryError | torch.OutOfMemoryError
    ) or "can't allocate memory" in str(error)
