"""Cron schedules: their check, and the next time that is due, across restarts of the process."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from croniter import CroniterError, croniter

from degrain.errors import UserError
from degrain.storage.json_file import json_bytes
from degrain.storage.location import Location

SCHEDULE_FILE = "schedule.json"


def check_schedule(schedule: str) -> None:
    """Raise UserError unless `schedule` is a cron expression that matches a future time."""
    try:
        croniter(schedule, datetime.now()).get_next()
    except (CroniterError, ValueError):
        raise UserError(
            f"'{schedule}' is not a cron schedule with a future time; write five fields, "
            "e.g. '0 3 * * 1' for Mondays at 3:00"
        ) from None


@dataclass
class Schedule:
    """A cron expression in local time, and a small file that has the last time that was done.

    Times that pass while a retraining runs, while the machine is off, or while no process waits are
    missed; they are due together, once.
    """

    expression: str
    file: Location
    now: Callable[[], datetime] = datetime.now

    def wait(self) -> datetime:
        """Sleep until a time is due, which may be at once; returns the last due one."""
        after = self._last()
        due: datetime = croniter(self.expression, after).get_next(datetime)
        while (left := (due - self.now()).total_seconds()) > 0:
            time.sleep(min(left, 60))
        latest: datetime = croniter(self.expression, self.now()).get_prev(datetime)
        return max(due, latest)

    def done(self, due: datetime) -> None:
        """Store that the time, and all earlier ones, are done."""
        content = {"schedule": self.expression, "done": due.isoformat()}
        self.file.write_bytes(json_bytes(content))

    def _last(self) -> datetime:
        """The last time that was done. With a new or another schedule: now."""
        if self.file.exists():
            try:
                content = json.loads(self.file.read_bytes())
                if content["schedule"] == self.expression:
                    return datetime.fromisoformat(content["done"])
            except (ValueError, KeyError, TypeError) as error:
                raise UserError(
                    f"'{self.file}' is damaged ({error}); delete it to begin the schedule now"
                ) from None
        start = self.now()
        self.done(start)
        return start
