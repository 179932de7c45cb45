"""A lease on a folder, which prevents that scheduled jobs overlap; neither cron nor KubeRay does.

On disk it is an advisory lock of the operating system, which ends with its process. In a bucket it
is an object with its holder, who renews it; its age is what the bucket's server says, because the
clocks of two machines may differ by more than a lease lasts. Every write of it is a conditional
request (`If-None-Match`, `If-Match` with the ETag of the holder's last write), so a former holder
can neither renew nor release a lease that another job acquired. A job calls `Lease.check` before it
publishes results; the call confirms the lease with one more conditional write. A lease whose holder
was a process of this machine that has ended is free at once.
"""

import contextlib
import fcntl
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from degrain.errors import JobFailedError
from degrain.storage.location import ATTEMPTS, Location
from degrain.storage.retry import is_failure_of_server, retry

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import GetObjectOutputTypeDef

LEASE_SECONDS = 180.0
"""Seconds after which a lease in a bucket expires without renewal, such as that of a killed job."""
_CONDITION_FAILED = (409, 412)
"""HTTP statuses of a conditional request whose condition is false."""


class LeaseLostError(JobFailedError):
    """Another job holds the lease now."""


class Lease(Protocol):
    """An exclusive right to publish."""

    def check(self) -> None:
        """Raise LeaseLostError unless the lease is still held."""
        ...


@contextlib.contextmanager
def exclusive(lock: Location, job: str, *, lease_seconds: float = LEASE_SECONDS) -> Iterator[Lease]:
    """Hold the lease `lock` during a block; `job` names the kind of job in messages.

    Raises JobFailedError, which names the holder, if another job holds it.
    """
    held = _bucket_lease(lock, job, lease_seconds) if lock.remote else _file_lock(lock, job)
    with held as lease:
        yield lease


def _this_process() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"


def _process_identity() -> dict[str, object]:
    """What tells this process from all others of the machine; empty where that is not known.

    Host names and process ids are not enough: containers may share both.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = os.readlink("/proc/self/ns/pid")  # noqa: PTH115 - it names no file
    except OSError:
        return {}
    return {
        "machine": f"{boot} {namespace}",
        "pid": os.getpid(),
        "began": _start_ticks(os.getpid()),
    }


def _start_ticks(pid: int) -> int | None:
    """When a process of this machine began, in ticks since the machine did; None if it has ended.

    psutil adds the time at which the machine began, which changes when its clock is set.
    """
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if state in "ZX" else int(fields[18])


def _now() -> float:
    """Seconds on a clock that nobody sets, and that counts while the machine sleeps (on Linux)."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def _has_ended(content: Mapping[str, Any]) -> bool:
    """Whether the holder of a lease was a process of this machine that has ended."""
    if "machine" not in content or content["machine"] != _process_identity().get("machine"):
        return False
    return bool(_start_ticks(content["pid"]) != content["began"])


def _has_expired(lease: "GetObjectOutputTypeDef", content: Mapping[str, Any]) -> bool:
    """Whether a lease was released, or not renewed in time."""
    answered = parsedate_to_datetime(lease["ResponseMetadata"]["HTTPHeaders"]["date"])
    age = (answered - lease["LastModified"]).total_seconds()
    seconds = content["seconds"]
    # Both times are rounded to seconds.
    return bool(seconds == 0 or age > seconds + 1)


def _already_held(job: str, holder: str, lock: Location) -> JobFailedError:
    return JobFailedError(
        f"another {job} is running ({holder or 'just started'}, lock '{lock}'); wait for it to end"
    )


class _FileLease:
    """A lock of the operating system, which holds until its process ends."""

    def check(self) -> None:
        """Do nothing."""


@contextlib.contextmanager
def _file_lock(lock: Location, job: str) -> Iterator[Lease]:
    lock.make_parent()
    with Path(lock.path).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise _already_held(job, file.read(), lock) from None
        file.seek(0)
        file.truncate()
        file.write(_this_process())
        file.flush()
        yield _FileLease()


@contextlib.contextmanager
def _bucket_lease(lock: Location, job: str, lease_seconds: float) -> Iterator[Lease]:
    lease = BucketLease(lock, job, lease_seconds)
    holder = lease.acquire()
    if holder is not None:
        raise _already_held(job, holder, lock)
    stop = threading.Event()
    renewing = threading.Thread(target=lease.renew_until, args=(stop,), daemon=True)
    renewing.start()
    try:
        yield lease
    finally:
        stop.set()
        renewing.join()
        lease.release()


class BucketLease:
    """The lease object in a bucket, and the ETag of this process's last write of it."""

    def __init__(self, lock: Location, job: str, lease_seconds: float) -> None:
        self._lock = lock
        self._job = job
        self._seconds = lease_seconds
        self._client = lock.storage.s3_client()
        self._bucket, _, self._key = lock.path.partition("/")
        self._etag: str | None = None
        """ETag of this process's last write; None while the lease is not held."""
        self._confirmed = 0.0
        """Time of that write by `_now`, which counts while a process is stopped."""
        self._writing = threading.Lock()
        self._token = uuid.uuid4().hex
        """Identifies this lease, because process ids and host names are not unique."""

    def acquire(self) -> str | None:
        """Acquire a free or expired lease; returns None, or the holder if another job holds it."""
        began = _now()
        if self._put(IfNoneMatch="*"):
            return None
        from botocore.exceptions import ClientError

        # More than once, for answers that are lost.
        for _ in range(ATTEMPTS):
            try:
                existing, content = self._read()
            except ClientError as error:
                if is_failure_of_server(error):
                    raise
                break
            if content.get("token") == self._token:
                # The answer to our write was lost, and boto3 has sent it again.
                self._etag, self._confirmed = existing["ETag"], began
                return None
            if not _has_expired(existing, content) and not _has_ended(content):
                return str(content["holder"])
            began = _now()
            if self._put(IfMatch=existing["ETag"]):
                return None
        return "started at the same time"

    def renew_until(self, stop: threading.Event) -> None:
        """Renew until `stop` is set or the lease is lost; failed renewals are retried."""
        while not stop.wait(self._seconds / 6):
            if not self._renew():
                return

    def check(self) -> None:
        """Raise LeaseLostError unless a conditional write confirms the lease now."""
        if not self._renew() or _now() - self._confirmed > self._seconds:
            raise LeaseLostError(
                f"this {self._job} lost its lock '{self._lock}': it was stopped or offline for "
                f"more than {self._seconds:g} s, and another job may have started; nothing was "
                "published, run it again"
            )

    def release(self) -> None:
        """Give the lease back, if this process still holds it."""
        from botocore.exceptions import BotoCoreError, ClientError

        if self._etag is not None:
            with contextlib.suppress(BotoCoreError, ClientError):
                self._put(seconds=0, IfMatch=self._etag)

    def _renew(self) -> bool:
        """Renew the lease; False if another job holds it, True if the bucket is unavailable."""
        from botocore.exceptions import BotoCoreError, ClientError

        with self._writing:
            if self._etag is None:
                return False
            try:
                if not self._put(IfMatch=self._etag) and not self._renew_unconfirmed():
                    self._etag = None
            except (BotoCoreError, ClientError):
                pass
            return self._etag is not None

    def _renew_unconfirmed(self) -> bool:
        """Renew our lease after a lost response; returns False if another job holds it."""
        for _ in range(ATTEMPTS):
            existing, content = self._read()
            if content.get("token") != self._token:
                return False
            if self._put(IfMatch=existing["ETag"]):
                return True
        return False

    def _read(self) -> tuple["GetObjectOutputTypeDef", Mapping[str, Any]]:
        """The answer about the object, and its content."""

        def read() -> tuple["GetObjectOutputTypeDef", Mapping[str, Any]]:
            answer = self._client.get_object(Bucket=self._bucket, Key=self._key)
            return answer, json.loads(answer["Body"].read())

        # boto3 repeats no request whose body is cut.
        return retry(read)

    def _put(self, *, seconds: float | None = None, **condition: str) -> bool:
        """Write the object, which lasts for `seconds`, if `condition` is true; returns whether it
        was written.
        """
        from botocore.exceptions import ClientError

        now = _now()
        content = {
            "holder": _this_process(),
            **_process_identity(),
            "token": self._token,
            "seconds": self._seconds if seconds is None else seconds,
        }
        try:
            written = self._client.put_object(
                Bucket=self._bucket,
                Key=self._key,
                Body=json.dumps(content).encode(),
                **condition,  # type: ignore[arg-type]
            )
        except ClientError as error:
            if (
                error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
                in _CONDITION_FAILED
            ):
                return False
            raise
        self._etag, self._confirmed = written["ETag"], now
        return True
