"""Jobs: large photos that are denoised while the client does not wait.

Their number is bounded, they expire some time after their end, and photos and results are files in
a private folder, not in memory. Identifiers cannot be guessed. All methods run on one event loop.
"""

import asyncio
import contextlib
import contextvars
import math
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from degrain.serving.admission import BusyError
from degrain.serving.private_folder import PrivateFolder
from degrain.serving.uploads import RefusedError

Work: TypeAlias = Callable[[bytes], Awaitable[tuple[bytes, dict[str, str]]]]
"""Denoises the content of a photo; returns the result with its headers."""
JobState: TypeAlias = Literal["waiting", "running", "done", "failed"]


@dataclass(kw_only=True)
class Job:
    """One photo on its way."""

    id: str
    expires: float = math.inf
    """`time.monotonic()` at which it is deleted; known once it has ended."""
    state: JobState = "waiting"
    error: str | None = None
    """Reason of a failure."""
    headers: dict[str, str] = field(default_factory=dict)
    """Headers of the result."""
    task: asyncio.Task[None] | None = None

    @property
    def ended(self) -> bool:
        """Whether it is done or has failed."""
        return self.state in ("done", "failed")


class JobStore:
    """Runs jobs one after another, and keeps them until they expire."""

    def __init__(self, *, most: int, seconds: float) -> None:
        self._most, self._seconds = most, seconds
        self._jobs: dict[str, Job] = {}
        self._folder = PrivateFolder("degrain-jobs-")
        # Jobs leave the other replicas to those who wait.
        self._one_at_a_time = asyncio.Semaphore(1)

    def check_room(self) -> None:
        """Raise BusyError if there are as many jobs as there may be."""
        self.expire()
        if len(self._jobs) >= self._most:
            # One that has not ended yet has its time before it.
            wait = min(*map(self.seconds_left, self._jobs.values()), self._seconds)
            raise BusyError(
                f"there are {self._most} jobs already; fetch results and delete their jobs",
                max(1, round(wait)),
            )

    async def start(self, photo: bytes, work: Work) -> Job:
        """Start a job on a photo. Raises BusyError, and RefusedError if it cannot be stored."""
        self.check_room()
        job = Job(id=secrets.token_urlsafe(18))
        self._jobs[job.id] = job
        try:
            await asyncio.to_thread(self._file(job).write_bytes, photo)
        except OSError as error:
            self.delete(job)
            raise RefusedError(507, f"the photo cannot be stored: {error.strerror}") from None
        # Not in the context of the request, whose end must not end the job.
        job.task = asyncio.create_task(self._run(job, work), context=contextvars.Context())
        return job

    async def _run(self, job: Job, work: Work) -> None:
        try:
            async with self._one_at_a_time:
                job.state = "running"
                photo = await asyncio.to_thread(self._file(job).read_bytes)
                result, job.headers = await work(photo)
                await asyncio.to_thread(self._file(job).write_bytes, result)
        except RefusedError as error:
            job.state, job.error = "failed", error.reason
        except OSError as error:
            job.state, job.error = "failed", f"the result cannot be stored: {error.strerror}"
        else:
            job.state = "done"
        finally:
            # Any other error is a bug, which the log shows.
            if not job.ended:
                job.state, job.error = "failed", "it failed; the log of the service has the reason"
            job.expires = time.monotonic() + self._seconds

    def find(self, identifier: str) -> Job:
        """The job of an identifier. Raises RefusedError if there is none (any more)."""
        self.expire()
        if (job := self._jobs.get(identifier)) is None:
            raise RefusedError(404, "there is no such job; it may have expired")
        return job

    def result(self, job: Job) -> bytes:
        """The photo of a job that is done. Raises RefusedError for another."""
        if job.state == "failed":
            raise RefusedError(422, job.error or "the job failed")
        if job.state != "done":
            raise RefusedError(409, f"the job is {job.state}; ask for it again later")
        return self._file(job).read_bytes()

    def delete(self, job: Job) -> None:
        """End a job and delete its result."""
        del self._jobs[job.id]
        if job.task is not None:
            job.task.cancel()
        with contextlib.suppress(FileNotFoundError):
            self._file(job).unlink()

    def seconds_left(self, job: Job) -> float:
        """Seconds until a job is deleted."""
        return max(0.0, job.expires - time.monotonic())

    def end(self) -> None:
        """End the jobs that wait or run, because the service ends; results stay until `close`."""
        for job in self._jobs.values():
            if job.task is not None and not job.ended:
                job.state, job.error = "failed", "the service ends; send the photo again later"
                job.task.cancel()

    def close(self) -> None:
        """End all jobs and delete their files."""
        for job in list(self._jobs.values()):
            self.delete(job)
        self._folder.close()

    def expire(self) -> None:
        """Delete jobs whose time has passed."""
        now = time.monotonic()
        for job in [job for job in self._jobs.values() if job.expires <= now]:
            self.delete(job)
        # A result may be written while its job is deleted.
        for file in self._folder.path.iterdir():
            if file.name not in self._jobs:
                file.unlink(missing_ok=True)

    def _file(self, job: Job) -> Path:
        return self._folder.path / job.id
