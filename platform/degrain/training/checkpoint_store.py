"""The checkpoints of a run, on disk or in a bucket, written by a background thread.

    FOLDER/step-00000400.psnr-31.2345.pt     written after a validation
    FOLDER/step-00000412.pt                  written before a preemption or an interrupt

The store keeps the two newest checkpoints, so that a run can resume if the newest is damaged, and
the best by val PSNR. File names hold step and PSNR, so the store needs no index file.
"""

import contextlib
import os
import re
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from degrain.errors import JobFailedError
from degrain.storage.atomic import PARTIAL
from degrain.storage.location import Location
from degrain.storage.retry import retry
from degrain.training.checkpoint import DamagedCheckpointError, Snapshot, decode, encode

_NEWEST_KEPT = 2
_MOST_PENDING = 2
_NAME = re.compile(r"step-(\d+)(?:\.psnr-(-?[\d.]+))?\.pt")


@dataclass(frozen=True, order=True)
class _Entry:
    """Step and val PSNR of one checkpoint, read from its file name."""

    step: int
    psnr: float
    name: str


class CheckpointStore:
    """The checkpoints of one run.

    `warn` is called with one line for each problem that does not end the run.
    """

    def __init__(
        self, folder: Location, *, keep_best: int = 1, warn: Callable[[str], None]
    ) -> None:
        self.folder = folder
        self._keep_best = keep_best
        self._warn = warn
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoints")
        self._pending: list[Future[None]] = []
        self._unsaved: OSError | None = None
        """The error of the newest snapshot's write; None if it succeeded."""

    def save(self, snapshot: Snapshot) -> None:
        """Queue a snapshot for writing; blocks only while two others are being written."""
        while self._pending and (self._pending[0].done() or len(self._pending) >= _MOST_PENDING):
            self._pending.pop(0).result()
        self._pending.append(self._writer.submit(self._write, snapshot))

    def flush(self) -> None:
        """Wait for all writes. Raises JobFailedError if the newest snapshot was not written."""
        while self._pending:
            self._pending.pop(0).result()
        if self._unsaved is not None:
            raise JobFailedError(
                f"the last checkpoint could not be written to '{self.folder}': "
                f"{_short(self._unsaved)}; free "
                "space or restart the server, and continue with `resume`"
            )

    def newest(self) -> Snapshot | None:
        """Return the newest undamaged checkpoint, or None.

        Warns of damaged checkpoints and removes them, and the partial files of killed processes.
        """
        for name in self._files():
            if name.endswith(PARTIAL):
                (self.folder / name).remove()
        return self._first_undamaged(sorted(self._entries(), reverse=True))

    def best(self) -> Snapshot | None:
        """Return the undamaged checkpoint with the highest val PSNR, the later one of a tie."""
        scored = [entry for entry in self._entries() if entry.psnr > float("-inf")]
        return self._first_undamaged(
            sorted(scored, key=lambda entry: (entry.psnr, entry.step), reverse=True)
        )

    def _first_undamaged(self, entries: list[_Entry]) -> Snapshot | None:
        for entry in entries:
            place = self.folder / entry.name
            try:
                return decode(retry(place.read_bytes))
            except DamagedCheckpointError as error:
                self._warn(f"checkpoint '{place}' is damaged ({error}); using the one before it")
                place.remove()
        return None

    def _write(self, snapshot: Snapshot) -> None:
        step, metrics = snapshot["step"], snapshot["metrics"]
        name = f"step-{step:08d}" + (f".psnr-{metrics['val_psnr']:.4f}" if metrics else "") + ".pt"
        content = encode(snapshot)
        try:
            retry(lambda: (self.folder / name).write_bytes(content))
            self._unsaved = None
        except OSError as error:
            self._unsaved = error
            self._warn(
                f"the checkpoint of step {step} could not be written ({_short(error)}); training "
                "continues, and older checkpoints are kept"
            )
        else:
            self._prune()

    def _prune(self) -> None:
        """Remove all but the newest and best; a failed removal is repeated at the next write."""
        with contextlib.suppress(OSError):
            entries = sorted(self._entries())
            best = sorted(entries, key=lambda entry: (entry.psnr, entry.step), reverse=True)[
                : self._keep_best
            ]
            for entry in entries[:-_NEWEST_KEPT]:
                if entry not in best:
                    (self.folder / entry.name).remove()

    def _entries(self) -> list[_Entry]:
        found = [(name, _NAME.fullmatch(name)) for name in self._files()]
        return [_Entry(int(m[1]), float(m[2] or "-inf"), name) for name, m in found if m]

    def _files(self) -> list[str]:
        return list(retry(self.folder.files)) if self.folder.exists() else []


def _short(error: OSError) -> str:
    """The operating system's text for an error number; a bucket's errors have no number."""
    return os.strerror(error.errno) if error.errno else " ".join(str(error).split())[:160]
