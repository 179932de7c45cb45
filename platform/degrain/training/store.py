"""Where a run's checkpoints lie, on disk or in a bucket: written by a thread, kept by rule, read with a way back.

    FOLDER/step-00000400.psnr-31.2345.pt     after a validation
    FOLDER/step-00000412.pt                  when the process had to go

Kept are the two newest, so that one that is damaged has one before it, and the best by val PSNR. A name says all that the
rule needs, so that there is no index that could be wrong.
"""

import contextlib
import os
import re
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from degrain.errors import JobFailedError
from degrain.storage import PARTIAL, Location, patiently
from degrain.training.checkpoint import DamagedCheckpointError, Snapshot, decode, encode

_NEWEST_KEPT = 2
_MOST_PENDING = 2
_NAME = re.compile(r"step-(\d+)(?:\.psnr-(-?[\d.]+))?\.pt")


@dataclass(frozen=True, order=True)
class _Entry:
    """One checkpoint, by its name."""

    step: int
    psnr: float
    name: str


class CheckpointStore:
    """The checkpoints of one run. `warn` is told, in one line, what went wrong without ending the run."""

    def __init__(self, folder: Location, *, keep_best: int = 1, warn: Callable[[str], None]) -> None:
        self.folder = folder
        self._keep_best = keep_best
        self._warn = warn
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoints")
        self._pending: list[Future[None]] = []
        self._unsaved: OSError | None = None
        """Why the newest snapshot is not in the store."""

    def save(self, snapshot: Snapshot) -> None:
        """Have a snapshot written while training goes on; waits only where two are still being written."""
        while self._pending and (self._pending[0].done() or len(self._pending) >= _MOST_PENDING):
            self._pending.pop(0).result()
        self._pending.append(self._writer.submit(self._write, snapshot))

    def flush(self) -> None:
        """Wait until all is written. Raises JobFailedError if the newest could not be."""
        while self._pending:
            self._pending.pop(0).result()
        if self._unsaved is not None:
            raise JobFailedError(
                f"the last checkpoint could not be written to '{self.folder}': {_short(self._unsaved)}; make room or "
                "bring the server back, and go on with --resume"
            )

    def newest(self) -> Snapshot | None:
        """The newest checkpoint that is whole, if there is one; those that are not are told and removed.

        What a killed process was writing is removed too.
        """
        for name in self._files():
            if name.endswith(PARTIAL):
                (self.folder / name).remove()
        return self._first_whole(sorted(self._entries(), reverse=True))

    def best(self) -> Snapshot | None:
        """The checkpoint with the highest val PSNR, the later of equals, that is whole."""
        scored = [entry for entry in self._entries() if entry.psnr > float("-inf")]
        return self._first_whole(sorted(scored, key=lambda entry: (entry.psnr, entry.step), reverse=True))

    def _first_whole(self, entries: list[_Entry]) -> Snapshot | None:
        for entry in entries:
            place = self.folder / entry.name
            try:
                return decode(patiently(place.read_bytes))
            except DamagedCheckpointError as error:
                self._warn(f"checkpoint '{place}' is damaged ({error}); going on from the one before it")
                place.remove()
        return None

    def _write(self, snapshot: Snapshot) -> None:
        step, metrics = snapshot["step"], snapshot["metrics"]
        name = f"step-{step:08d}" + (f".psnr-{metrics['val_psnr']:.4f}" if metrics else "") + ".pt"
        content = encode(snapshot)
        try:
            patiently(lambda: (self.folder / name).write_bytes(content))
            self._unsaved = None
        except OSError as error:
            self._unsaved = error
            self._warn(
                f"the checkpoint of step {step} could not be written ({_short(error)}); training goes on, and what was "
                "written before is kept"
            )
        else:
            self._prune()

    def _prune(self) -> None:
        """Remove what the rule does not keep. What cannot be removed now can be the next time."""
        with contextlib.suppress(OSError):
            entries = sorted(self._entries())
            best = sorted(entries, key=lambda entry: (entry.psnr, entry.step), reverse=True)[: self._keep_best]
            for entry in entries[:-_NEWEST_KEPT]:
                if entry not in best:
                    (self.folder / entry.name).remove()

    def _entries(self) -> list[_Entry]:
        found = [(name, _NAME.fullmatch(name)) for name in self._files()]
        return [_Entry(int(m[1]), float(m[2] or "-inf"), name) for name, m in found if m]

    def _files(self) -> list[str]:
        return list(patiently(self.folder.files)) if self.folder.exists() else []


def _short(error: OSError) -> str:
    """The reason as the system words it; a bucket's errors have words of their own."""
    return os.strerror(error.errno) if error.errno else " ".join(str(error).split())[:160]
