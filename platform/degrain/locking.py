"""A lock on a folder, so that scheduled jobs do not overlap: neither cron nor Kubernetes sees to that.

On disk it is an advisory lock of the operating system, which ends with its process. In a bucket it is an object that is made
only if it is not there (a conditional request), names when it expires, and is renewed while the job runs; one that a
killed job left behind is taken over after `LEASE_SECONDS`.
"""

import contextlib
import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from degrain.errors import JobFailedError
from degrain.storage import Location

LEASE_SECONDS = 180


@contextlib.contextmanager
def only_one(lock: Location, what: str) -> Iterator[None]:
    """Hold `lock` for the length of a block. Raises JobFailedError, naming `what` and the holder, if another has it."""
    with _bucket_lock(lock, what) if lock.remote else _file_lock(lock, what):
        yield


def _me() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"


@contextlib.contextmanager
def _file_lock(lock: Location, what: str) -> Iterator[None]:
    lock.make_parent()
    with Path(lock.path).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise _held(what, file.read(), lock) from None
        file.seek(0)
        file.truncate()
        file.write(_me())
        file.flush()
        yield


def _held(what: str, holder: str, lock: Location) -> JobFailedError:
    return JobFailedError(f"another {what} is running ({holder or 'just started'}, lock '{lock}'); wait for it to end")


@contextlib.contextmanager
def _bucket_lock(lock: Location, what: str) -> Iterator[None]:
    lease = _Lease(lock)
    holder = lease.acquire()
    if holder is not None:
        raise _held(what, holder, lock)
    stop = threading.Event()
    renewing = threading.Thread(target=lease.renew_until, args=(stop,), daemon=True)
    renewing.start()
    try:
        yield
    finally:
        stop.set()
        renewing.join()
        lease.release()


class _Lease:
    """An object that says who holds the lock, and until when."""

    def __init__(self, lock: Location) -> None:
        self._client = lock.storage.s3_client()
        self._bucket, _, self._key = lock.path.partition("/")

    def _body(self) -> bytes:
        return json.dumps({"holder": _me(), "expires": time.time() + LEASE_SECONDS}).encode()

    def acquire(self) -> str | None:
        """Take the lock; gives its holder if that is another."""
        from botocore.exceptions import ClientError

        try:
            self._client.put_object(Bucket=self._bucket, Key=self._key, Body=self._body(), IfNoneMatch="*")
        except ClientError as error:
            if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") not in (409, 412):
                raise
            return self._take_over()
        return None

    def _take_over(self) -> str | None:
        """Replace an expired lock, unless another does so first."""
        from botocore.exceptions import ClientError

        try:
            there = self._client.get_object(Bucket=self._bucket, Key=self._key)
            content = json.loads(there["Body"].read())
            if content["expires"] > time.time():
                return str(content["holder"])
            self._client.put_object(Bucket=self._bucket, Key=self._key, Body=self._body(), IfMatch=there["ETag"])
        except ClientError:
            return "another that was faster"
        return None

    def renew_until(self, stop: threading.Event) -> None:
        """Put the expiry off until told to stop; a renewal that fails is tried again, well before the lease ends."""
        from botocore.exceptions import BotoCoreError, ClientError

        while not stop.wait(LEASE_SECONDS / 6):
            with contextlib.suppress(BotoCoreError, ClientError):
                self._client.put_object(Bucket=self._bucket, Key=self._key, Body=self._body())

    def release(self) -> None:
        """Give the lock back."""
        self._client.delete_object(Bucket=self._bucket, Key=self._key)
