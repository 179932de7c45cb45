"""Scheduled times: on time, missed ones once, across restarts."""

import time
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from degrain.errors import UserError
from degrain.retraining.schedule import SCHEDULE_FILE, Schedule, check_schedule
from degrain.storage.location import Storage

MONDAYS = "0 3 * * 1"


class Clock:
    """A clock that sleeping advances."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = datetime(2026, 11, 25, 12, 0)  # a Wednesday
        monkeypatch.setattr(time, "sleep", self.advance)

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def schedule(folder: Path, clock: Clock, expression: str = MONDAYS) -> Schedule:
    return Schedule(expression, Storage().locate(folder) / SCHEDULE_FILE, clock)


def test_it_waits_for_each_time(tmp_path: Path, clock: Clock) -> None:
    times = schedule(tmp_path, clock)
    for day in (30, 37, 44):
        due = times.wait()
        assert due == clock.now == datetime(2026, 11, 1, 3) + timedelta(days=day - 1)
        clock.advance(3600)
        times.done(due)


def test_times_missed_by_a_long_retraining_are_due_once_and_at_once(
    tmp_path: Path, clock: Clock
) -> None:
    times = schedule(tmp_path, clock)
    times.done(times.wait())
    clock.advance(17 * 86_400)  # over two Mondays
    before = clock.now
    due = times.wait()
    assert clock.now == before
    assert due == datetime(2026, 12, 14, 3)
    times.done(due)
    assert times.wait() == clock.now == datetime(2026, 12, 21, 3)


def test_a_time_that_was_missed_while_no_process_ran_is_due_at_once(
    tmp_path: Path, clock: Clock
) -> None:
    first = schedule(tmp_path, clock)
    first.done(first.wait())
    clock.advance(8 * 86_400)
    before = clock.now
    assert schedule(tmp_path, clock).wait() == datetime(2026, 12, 7, 3)
    assert clock.now == before


def test_a_time_that_was_not_done_is_due_again(tmp_path: Path, clock: Clock) -> None:
    due = schedule(tmp_path, clock).wait()
    clock.advance(600)  # killed in the middle
    assert schedule(tmp_path, clock).wait() == due


def test_another_schedule_begins_now(tmp_path: Path, clock: Clock) -> None:
    first = schedule(tmp_path, clock)
    first.done(first.wait())
    clock.advance(30 * 86_400)
    daily = schedule(tmp_path, clock, "0 4 * * *")
    assert daily.wait() > datetime(2026, 12, 30)


def test_a_damaged_file_is_named(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / SCHEDULE_FILE).write_text("{")
    with pytest.raises(UserError, match="delete it to begin the schedule now"):
        schedule(tmp_path, clock).wait()


@pytest.mark.parametrize("expression", ["daily", "0 0 30 2 *", "* * *"])
def test_a_schedule_without_a_future_time_is_refused(expression: str) -> None:
    with pytest.raises(UserError, match="is not a cron schedule"):
        check_schedule(expression)
