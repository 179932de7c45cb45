"""A queue that sends metrics and files to a run without blocking, through server outages too."""

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
from degrain.storage.location import Location
from degrain.tracking.client import (
    RETRY_DELAYS_SECONDS,
    ServerUnavailableError,
    no_retry,
    retry_delay,
    short_text,
)
from degrain.tracking.runs import Run, stamped

LARGEST_BATCH = 1000
"""Most metrics that MLflow accepts in one call."""
MOST_FILES = 50
"""Most files in the queue."""
_FLUSH_AFTER_ERROR_SECONDS = 10


@dataclass(frozen=True)
class _File:
    folder: str
    name: str
    content: bytes


class MetricJournal:
    """Queues metrics and files, and sends them to a run in a background thread.

    The thread retries while the server is unavailable. At its end the context manager waits up to
    `flush_timeout_seconds` until the queue is empty. Entries that were not sent by then, or that
    the server rejected, are written below `unsent_folder`/<id of the run>, and JobFailedError is
    raised. If the block raised an exception, the wait is at most 10 s, and unsent entries are
    logged in one line, so that the exception propagates.

    Metrics are sent in order; a metric is sent again only if the response to its call was lost.
    """

    def __init__(
        self,
        run: Run,
        unsent_folder: Location,
        log: Callable[[str], None],
        *,
        flush_timeout_seconds: float = 300,
        retry_delays_seconds: Sequence[float] = RETRY_DELAYS_SECONDS,
    ) -> None:
        self._run = run
        self._unsent_folder = unsent_folder / run.id
        self._log = log
        self._flush_timeout = flush_timeout_seconds
        self._retry_delays = retry_delays_seconds
        self._metrics: deque[Metric] = deque()
        self._files: deque[_File] = deque(maxlen=MOST_FILES)
        self._rejected_metrics: list[Metric] = []
        self._rejected_files: list[_File] = []
        self._dropped = 0
        self._rejection: JobFailedError | None = None
        self._unavailable_since: float | None = None
        self._closing = False
        self._abandoned = False
        self._changed = Condition()
        """Guards the queues, `_closing` and `_abandoned`."""
        self._retry_now = Event()
        """Ends a retry delay early."""

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Queue metrics with the current time; values that are not finite are left out."""
        with self._changed:
            assert not self._closing, "metrics were queued after the end of the block"
            self._metrics.extend(stamped(values, step))
            self._changed.notify()

    def files(self, contents: Mapping[str, bytes], folder: str) -> None:
        """Queue artifacts of these names below `folder`; a full queue drops its oldest files."""
        with self._changed:
            assert not self._closing, "files were queued after the end of the block"
            self._dropped += max(0, len(self._files) + len(contents) - MOST_FILES)
            self._files.extend(_File(folder, name, content) for name, content in contents.items())
            self._changed.notify()

    def __enter__(self) -> Self:
        # The interpreter waits for pool threads at exit, so a call in progress completes.
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="journal")
        try:
            self._worker: Future[None] = self._pool.submit(self._work)
        except BaseException:
            # Ctrl-C while the thread starts: the end of the block will not come to end it.
            self._close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self._flush(
                self._flush_timeout
                if kind is None
                else min(self._flush_timeout, _FLUSH_AFTER_ERROR_SECONDS)
            )
        except BaseException:
            # Ctrl-C ends the wait.
            self._save_unsent(self._log)
            raise
        unexpected = self._worker.exception() if self._worker.done() else None
        failed = kind is not None or unexpected is not None
        self._save_unsent(self._log if failed else self._raise_unsent)
        if kind is None and unexpected is not None:
            raise unexpected

    def _flush(self, timeout: float) -> None:
        """Wait until the queue is empty, the worker has failed, or `timeout` seconds passed."""
        self._close()
        self._retry_now.set()
        # An available server usually empties the queue within this delay, without a log line.
        delay = timeout / 100
        if not wait_for([self._worker], delay).done:
            self._log(f"waiting up to {timeout:g} s for the MLflow server: {self._pending()}")
            wait_for([self._worker], timeout - delay)

    def _close(self) -> None:
        """Let the worker end once the queue is empty."""
        with self._changed:
            self._closing = True
            self._changed.notify()

    def _save_unsent(self, report: Callable[[str], None]) -> None:
        """End the worker; write unsent entries, if any, to files, and report them in one line."""
        with self._changed:
            self._abandoned = True
            self._changed.notify()
            metrics = [*self._rejected_metrics, *self._metrics]
            files = [*self._rejected_files, *self._files]
        self._retry_now.set()
        self._pool.shutdown(wait=False)
        if not metrics and not files:
            return
        cause = self._rejection and (self._rejection.__cause__ or self._rejection)
        why = f"it rejected them: {short_text(cause)}" if cause else "the server does not answer"
        missing = f"{_count(metrics, files)} of run {self._run.id} are not in MLflow, {why}"
        try:
            if metrics:
                (self._unsent_folder / "metrics.jsonl").write_bytes(
                    b"".join(_line(m) for m in metrics)
                )
            for file in files:
                (self._unsent_folder / file.folder / file.name).write_bytes(file.content)
        except OSError as error:
            report(
                f"{missing}; they are lost, because '{self._unsent_folder}' cannot be written: "
                f"{short_text(error)}; free space there before the next run"
            )
        else:
            report(
                f"{missing}; they are saved in '{self._unsent_folder}'; log them with "
                "MlflowClient.log_batch when the server is available"
            )

    def _raise_unsent(self, line: str) -> None:
        raise (ServerUnavailableError if self._rejection is None else JobFailedError)(
            line
        ) from self._rejection

    def _work(self) -> None:
        """Send until the block has ended and the queue is empty; the body of the thread."""
        failures = 0
        with no_retry():
            while self._wait_for_entries():
                receiver = "the MLflow server"
                try:
                    self._send_metrics()
                    receiver = "MLflow's artifact store"
                    self._send_file()
                except (ServerUnavailableError, OSError):
                    if self._unavailable_since is None:
                        self._unavailable_since = time.monotonic()
                        self._log(
                            f"{receiver} does not answer; training continues, {self._pending()}"
                        )
                    failures = self._delay_retry(failures)
                else:
                    if self._unavailable_since is not None:
                        outage = time.monotonic() - self._unavailable_since
                        self._log(
                            f"the MLflow server answers again after {outage:.0f} s; "
                            f"{self._pending()}"
                        )
                        self._unavailable_since = None
                    failures = 0

    def _wait_for_entries(self) -> bool:
        """Wait for entries to send; False if the block has ended and the queue is empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._metrics or self._files or self._closing)
            return not self._abandoned and bool(self._metrics or self._files)

    def _delay_retry(self, failures: int) -> int:
        """Wait before the next attempt; returns `failures` + 1, or 0 if the delay ended early."""
        if self._retry_now.wait(retry_delay(failures, self._retry_delays)):
            self._retry_now.clear()
            return 0
        return failures + 1

    def _send_metrics(self) -> None:
        with self._changed:
            batch = list(islice(self._metrics, LARGEST_BATCH))
        if not batch:
            return
        rejected = self._rejected(lambda: self._run.log(batch))
        with self._changed:
            self._rejected_metrics.extend(batch if rejected else [])
            for _ in batch:
                self._metrics.popleft()

    def _send_file(self) -> None:
        with self._changed:
            file = self._files[0] if self._files else None
        if file is None:
            return
        rejected = self._rejected(lambda: self._run.files({file.name: file.content}, file.folder))
        with self._changed:
            self._rejected_files.extend([file] if rejected else [])
            # A full queue may have dropped this file meanwhile.
            if self._files[0] is file:
                self._files.popleft()

    def _rejected(self, send: Callable[[], None]) -> bool:
        """Whether the server rejected the call; a retry would block the queue for ever."""
        try:
            send()
        except ServerUnavailableError:
            raise
        except JobFailedError as error:
            if self._rejection is None:
                self._log(
                    "MLflow rejects metrics or files; training continues: "
                    f"{short_text(error.__cause__ or error)}"
                )
                self._rejection = error
            return True
        return False

    def _pending(self) -> str:
        """Describe the queue's length, as the end of a log line."""
        dropped = f" ({self._dropped} older files were dropped)" if self._dropped else ""
        return f"{_count(self._metrics, self._files)} pending{dropped}"


def _line(metric: Metric) -> bytes:
    content = {
        "key": metric.key,
        "value": metric.value,
        "timestamp": metric.timestamp,
        "step": metric.step,
    }
    return json.dumps(content).encode() + b"\n"


def _count(metrics: Sequence[Metric], files: Sequence[_File]) -> str:
    """Format both counts: `12 metrics and 3 files`."""
    return f"{len(metrics)} metrics" + (f" and {len(files)} files" if files else "")
