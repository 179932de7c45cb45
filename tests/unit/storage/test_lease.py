"""The lock on a local folder, released with its process; the lease in a bucket and wrong clocks."""

import io
import os
import re
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from lease_holder import lease_holder

from degrain.errors import JobFailedError
from degrain.storage.lease import BucketLease, LeaseLostError, exclusive
from degrain.storage.location import Location, Storage

STORAGE = Storage()


def test_lock_excludes_others_and_ends_with_its_process(tmp_path: Path) -> None:
    lock = STORAGE.locate(tmp_path / "deep" / "my job.lock")
    with lease_holder(lock) as holder:
        name = re.escape(str(lock))
        said = rf"another retraining is running \(process {holder.pid} on .+, lock '{name}'\)"
        with pytest.raises(JobFailedError, match=said), exclusive(lock, "retraining"):
            raise AssertionError("two hold the lock")
    with exclusive(lock, "retraining"):
        assert f"process {os.getpid()} on" in Path(lock.path).read_text()


def test_lock_is_released_after_its_block_and_after_an_error(tmp_path: Path) -> None:
    lock = STORAGE.locate(tmp_path / "job.lock")
    with pytest.raises(KeyError), exclusive(lock, "retraining"):
        raise KeyError
    with (
        exclusive(lock, "retraining"),
        pytest.raises(JobFailedError),
        exclusive(lock, "retraining"),
    ):
        raise AssertionError("two hold the lock")
    with exclusive(lock, "retraining"):
        pass


class Bucket:
    """A bucket of one object, with a clock of its own."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.written = self.now
        self.content: bytes | None = None
        self.version = 0

    def put_object(self, Body: bytes, **named: str) -> dict[str, str]:  # noqa: N803 - boto3's name
        expected = named.get("IfMatch", "absent")
        if expected != ("absent" if self.content is None else str(self.version)):
            answer = {"ResponseMetadata": {"HTTPStatusCode": 412}}
            raise ClientError(answer, "PutObject")  # type: ignore[arg-type]
        self.content, self.written, self.version = Body, self.now, self.version + 1
        return {"ETag": str(self.version)}

    def get_object(self, **_: str) -> dict[str, Any]:
        assert self.content is not None
        return {
            "Body": io.BytesIO(self.content),
            "ETag": str(self.version),
            "LastModified": self.written,
            "ResponseMetadata": {"HTTPHeaders": {"date": format_datetime(self.now, usegmt=True)}},
        }


@pytest.mark.parametrize("minutes", [-10, 10])
def test_a_clock_that_is_wrong_neither_takes_a_lease_nor_keeps_it(
    minutes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock of the second job's machine is ahead or behind."""
    bucket = Bucket()
    monkeypatch.setattr(Storage, "s3_client", lambda *_, **__: bucket)
    lock = Location("s3://bucket/job.lock", STORAGE)
    holder, late, second = (BucketLease(lock, "retraining", 180) for _ in range(3))
    assert holder.acquire() is None
    clock = time.time
    monkeypatch.setattr(time, "time", lambda: clock() + 60 * minutes)
    for _ in range(4):
        bucket.now += timedelta(seconds=60)
        assert second.acquire() == f"process {os.getpid()} on {os.uname().nodename}"
        holder.check()
    bucket.now += timedelta(seconds=180)
    assert second.acquire() is not None
    bucket.now += timedelta(seconds=2)
    assert second.acquire() is None
    with pytest.raises(LeaseLostError):
        holder.check()
    second.release()
    assert late.acquire() is None
