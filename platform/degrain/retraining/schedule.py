"""Cron expressions: their check, and the wait for their next time."""

import time
from collections.abc import Callable
from datetime import datetime

from croniter import CroniterError, croniter

from degrain.errors import UserError


def check_schedule(schedule: str) -> None:
    """Raise UserError unless `schedule` is a cron expression that matches a future time."""
    try:
        croniter(schedule, datetime.now()).get_next()
    except (CroniterError, ValueError):
        raise UserError(
            f"'{schedule}' is not a cron schedule with a future time; write five fields, "
            "e.g. '0 3 * * 1' for Mondays at 3:00"
        ) from None


def wait_for(schedule: str, now: Callable[[], datetime] = datetime.now) -> datetime:
    """Sleep until the next time of the cron expression, in local time; returns that time."""
    due: datetime = croniter(schedule, now()).get_next(datetime)
    while (left := (due - now()).total_seconds()) > 0:
        time.sleep(min(left, 60))
    return due
