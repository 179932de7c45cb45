"""The lease in a bucket, on a real S3 server: conditional requests throughout."""

import json
import os
import signal
import sys
import time

import pytest
from lease_holder import lease_holder

from degrain.errors import JobFailedError
from degrain.storage.lease import LEASE_SECONDS, BucketLease, LeaseLostError, exclusive
from degrain.storage.location import Location, Storage

SECONDS = 2.0


@pytest.fixture
def lock(bucket: str) -> Location:
    return Storage.from_environment().locate(f"s3://{bucket}/retrain.lock")


def content(lock: Location) -> dict:
    return json.loads(lock.read_bytes())


def test_second_job_is_refused_while_the_first_runs(lock: Location) -> None:
    with (
        exclusive(lock, "retraining"),
        pytest.raises(
            JobFailedError, match=f"another retraining is running .process {os.getpid()}"
        ),
        exclusive(lock, "retraining"),
    ):
        pytest.fail("two hold the lock")


def test_lease_is_free_after_its_block(lock: Location) -> None:
    for _ in range(2):
        with exclusive(lock, "retraining") as lease:
            lease.check()
    assert content(lock)["seconds"] == 0


def test_expired_lease_is_taken_over(lock: Location) -> None:
    expired = {"holder": "a dead process", "token": "1", "seconds": 1}
    lock.write_bytes(json.dumps(expired).encode())
    with pytest.raises(JobFailedError, match="a dead process"), exclusive(lock, "retraining"):
        pytest.fail("two hold the lock")
    time.sleep(4)
    with exclusive(lock, "retraining"):
        assert content(lock)["seconds"] == LEASE_SECONDS


def test_lease_is_renewed_before_it_expires(lock: Location) -> None:
    with exclusive(lock, "retraining", lease_seconds=3) as lease:
        time.sleep(6)
        running = pytest.raises(JobFailedError, match="another retraining is running")
        with running, exclusive(lock, "retraining"):
            pytest.fail("two hold the lock")
        lease.check()


def test_lease_survives_a_write_whose_answer_was_lost(lock: Location) -> None:
    lease = BucketLease(lock, "retraining", 60)
    assert lease.acquire() is None
    lease._etag = '"0123"'  # that of the write before: the last answer did not arrive
    lease.check()
    lease.check()


def test_lost_lease_is_neither_renewed_nor_released(lock: Location) -> None:
    first, second = (BucketLease(lock, "retraining", seconds) for seconds in (0, 60))
    assert first.acquire() is None
    assert second.acquire() is None
    held = lock.read_bytes()
    with pytest.raises(LeaseLostError, match=r"lost its lock .* nothing was published"):
        first.check()
    first.release()
    assert lock.read_bytes() == held
    second.check()


def test_job_that_was_stopped_past_its_lease_publishes_nothing(lock: Location) -> None:
    """SIGSTOP past the lease; another job takes over; the first wakes up, and loses."""
    with lease_holder(lock, SECONDS) as first:
        os.kill(first.pid, signal.SIGSTOP)
        time.sleep(SECONDS + 3)
        with exclusive(lock, "retraining") as second:
            held = content(lock)
            os.kill(first.pid, signal.SIGCONT)
            out, _ = first.communicate("go on\n", timeout=600)
            assert "published" not in out.splitlines()
            assert out.startswith("error: this retraining lost its lock")
            second.check()
            after = content(lock)
            assert (after["holder"], after["token"]) == (held["holder"], held["token"])


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells processes of a machine apart")
def test_lease_of_a_killed_process_of_this_machine_is_free_at_once(lock: Location) -> None:
    running = pytest.raises(JobFailedError, match="another retraining is running")
    with lease_holder(lock, 10_000), running, exclusive(lock, "retraining"):
        pytest.fail("two hold the lock")
    assert content(lock)["seconds"] > 0
    with exclusive(lock, "retraining"):
        pass
