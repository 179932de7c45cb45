"""Metrics and pictures on their way to a run: whoever hands them over goes on at once, and a lost server loses none."""

import json
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from dataclasses import dataclass
from itertools import islice
from threading import Condition, Event
from typing import Self

from mlflow.entities import Metric

from degrain.errors import JobFailedError
from degrain.storage import Location
from degrain.tracking.runs import Run, stamped
from degrain.tracking.store import PAUSES_SECONDS, StoreLostError, at_once, pause_after, shortened

LARGEST_BATCH = 1000
"""Metrics that MLflow takes in one call."""
MOST_FILES = 50
"""Files that wait at most."""
_HASTY_SECONDS = 10


@dataclass(frozen=True)
class _File:
    folder: str
    name: str
    content: bytes


class Outbox:
    """Sends to a run, from a thread of its own, what is handed over; while the store is lost it waits and tries again.

    A context manager: at the end of the block it waits until all is sent. What is not sent within `patience_seconds`, and
    what the store refuses, is written below `kept`/<id of the run>, and JobFailedError is raised. If the block raised
    something, it waits 10 s at most, says what was kept, and lets that through.

    Metrics are sent in the order in which they came; one is sent twice only if the answer to the first time was lost.
    """

    def __init__(
        self,
        run: Run,
        kept: Location,
        say: Callable[[str], None],
        *,
        patience_seconds: float = 300,
        pauses_seconds: Sequence[float] = PAUSES_SECONDS,
    ) -> None:
        self._run = run
        self._kept = kept / run.id
        self._say = say
        self._patience = patience_seconds
        self._pauses = pauses_seconds
        self._metrics: deque[Metric] = deque()
        self._files: deque[_File] = deque(maxlen=MOST_FILES)
        self._refused_metrics: list[Metric] = []
        self._refused_files: list[_File] = []
        self._dropped = 0
        self._refusal: JobFailedError | None = None
        self._lost_since: float | None = None
        self._closing = False
        self._abandoned = False
        self._changed = Condition()
        """Guards the queues and the two flags."""
        self._hurry = Event()
        """Cuts a pause short."""

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Hand over metrics of this moment; values that are not finite are left out, as no chart can show them."""
        with self._changed:
            assert not self._closing, "metrics handed over after the end of the block"
            self._metrics.extend(stamped(values, step))
            self._changed.notify()

    def files(self, contents: Mapping[str, bytes], folder: str) -> None:
        """Hand over artifacts of these names below `folder`; of all that wait, the newest 50 are kept."""
        with self._changed:
            assert not self._closing, "files handed over after the end of the block"
            self._dropped += max(0, len(self._files) + len(contents) - MOST_FILES)
            self._files.extend(_File(folder, name, content) for name, content in contents.items())
            self._changed.notify()

    def __enter__(self) -> Self:
        # Threads of a pool are no daemons: the interpreter waits for a call that is under way.
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="outbox")
        self._working: Future[None] = self._pool.submit(self._work)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self._flush(self._patience if kind is None else min(self._patience, _HASTY_SECONDS))
        except BaseException:
            # Ctrl-C, by one who does not want to wait.
            self._keep(self._say)
            raise
        unforeseen = self._working.exception() if self._working.done() else None
        if kind is not None or unforeseen is not None:
            self._keep(self._say)
        else:
            self._keep(self._fail)
        if kind is None and unforeseen is not None:
            raise unforeseen

    def _flush(self, patience: float) -> None:
        """Wait until all is sent, or the worker has failed, or patience ends."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._hurry.set()
        # A server that answers takes what is left before it is worth a line.
        quiet = patience / 100
        if not wait_for([self._working], quiet).done:
            self._say(f"waiting up to {patience:g} s for the MLflow server: {self._waiting()}")
            wait_for([self._working], patience - quiet)

    def _keep(self, report: Callable[[str], None]) -> None:
        """End the worker, write what is left to files, and report it in a line; if nothing is left, do nothing."""
        with self._changed:
            self._abandoned = True
            self._changed.notify()
            metrics = [*self._refused_metrics, *self._metrics]
            files = [*self._refused_files, *self._files]
        self._hurry.set()
        self._pool.shutdown(wait=False)
        if not metrics and not files:
            return
        cause = self._refusal and (self._refusal.__cause__ or self._refusal)
        why = f"it refused them: {shortened(cause)}" if cause else "the server does not answer"
        missing = f"{_count(metrics, files)} of run {self._run.id} are not in MLflow, {why}"
        try:
            if metrics:
                (self._kept / "metrics.jsonl").write_bytes(b"".join(_line(m) for m in metrics))
            for file in files:
                (self._kept / file.folder / file.name).write_bytes(file.content)
        except OSError as error:
            report(f"{missing}; nor can they be written to '{self._kept}': {shortened(error)}; free some space there")
        else:
            report(f"{missing}; they are kept in '{self._kept}'; log them with MlflowClient.log_batch when it can take them")

    def _fail(self, line: str) -> None:
        raise (StoreLostError if self._refusal is None else JobFailedError)(line) from self._refusal

    def _work(self) -> None:
        """Send until the block has ended and nothing waits; the body of the thread."""
        tries = 0
        with at_once():
            while self._something_waits():
                who = "the MLflow server"
                try:
                    self._send_metrics()
                    who = "MLflow's store of artifacts"
                    self._send_file()
                except (StoreLostError, OSError):
                    if self._lost_since is None:
                        self._lost_since = time.monotonic()
                        self._say(f"{who} does not answer; training goes on, {self._waiting()}")
                    tries = self._pause(tries)
                else:
                    if self._lost_since is not None:
                        away = time.monotonic() - self._lost_since
                        self._say(f"the MLflow server is back after {away:.0f} s; {self._waiting()}")
                        self._lost_since = None
                    tries = 0

    def _something_waits(self) -> bool:
        """Wait until there is something to send; False if nothing more will come."""
        with self._changed:
            self._changed.wait_for(lambda: self._metrics or self._files or self._closing)
            return not self._abandoned and bool(self._metrics or self._files)

    def _pause(self, tries: int) -> int:
        """Wait before the next try; gives the number of tries that have failed, 0 after a pause that was cut short."""
        if self._hurry.wait(pause_after(tries, self._pauses)):
            self._hurry.clear()
            return 0
        return tries + 1

    def _send_metrics(self) -> None:
        with self._changed:
            batch = list(islice(self._metrics, LARGEST_BATCH))
        if not batch:
            return
        refused = self._refused(lambda: self._run.log(batch))
        with self._changed:
            self._refused_metrics.extend(batch if refused else [])
            for _ in batch:
                self._metrics.popleft()

    def _send_file(self) -> None:
        with self._changed:
            file = self._files[0] if self._files else None
        if file is None:
            return
        refused = self._refused(lambda: self._run.files({file.name: file.content}, file.folder))
        with self._changed:
            self._refused_files.extend([file] if refused else [])
            # It may have been dropped meanwhile, for newer ones.
            if self._files[0] is file:
                self._files.popleft()

    def _refused(self, send: Callable[[], None]) -> bool:
        """Whether the store refused what was sent: to send it again would hold up all the rest for ever."""
        try:
            send()
        except StoreLostError:
            raise
        except JobFailedError as error:
            if self._refusal is None:
                self._say(f"MLflow refuses what is logged; training goes on: {shortened(error.__cause__ or error)}")
                self._refusal = error
            return True
        return False

    def _waiting(self) -> str:
        """How much waits, as the end of a line."""
        dropped = f" ({self._dropped} older files were dropped)" if self._dropped else ""
        return f"{_count(self._metrics, self._files)} wait{dropped}"


def _line(metric: Metric) -> bytes:
    content = {"key": metric.key, "value": metric.value, "timestamp": metric.timestamp, "step": metric.step}
    return json.dumps(content).encode() + b"\n"


def _count(metrics: Sequence[Metric], files: Sequence[_File]) -> str:
    """How many of both: `12 metrics and 3 files`."""
    return f"{len(metrics)} metrics" + (f" and {len(files)} files" if files else "")
