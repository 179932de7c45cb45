"""`degrain retrain`: new photos, a study, and a new champion if it is better."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn

from degrain.cli.console import Console
from degrain.cli.option_types import option_types
from degrain.cli.options import TrackingOptions
from degrain.errors import UserError, find_cause
from degrain.fields import check_minimum
from degrain.patchsets.ingest.config import IngestConfig
from degrain.tuning.config import StudyConfig

if TYPE_CHECKING:
    from degrain.retraining.result import RetrainingResult
    from degrain.retraining.run import Retraining
    from degrain.storage.location import Location


@dataclass(frozen=True, kw_only=True)
class Retrain(TrackingOptions):
    """Ingest new photos and, if there are enough, run a study and promote its model if it beats the
    champion.

    Exits with status 0 if nothing is new. A retraining that was interrupted goes on. With a
    schedule it repeats until interrupted.
    """

    ingest: IngestConfig
    studies: str = "runs/studies"
    """Folder or s3:// URI for checkpoints and tables."""
    min_new_pairs: int = 1
    """Pairs that must be new or changed since the last retraining; fewer wait for the next one."""
    dry_run: bool = False
    """Print what would be done, and do nothing. Photos are not read."""
    schedule: str | None = None
    """Cron expression, e.g. '0 3 * * 1', in local time; missed times are done once. None: retrain
    once."""
    notify: str | None = None
    """URL to which the decision is posted as JSON, also that of a retraining that failed. None: it
    is not posted."""
    study: StudyConfig = field(default_factory=StudyConfig)

    def __post_init__(self) -> None:
        check_minimum(self, 1, "min_new_pairs")

    def run(self, console: Console) -> dict[str, object]:
        """Retrain once and return the outcome, or on schedule until interrupted."""
        from degrain.cluster import start_ray
        from degrain.retraining.run import Retraining
        from degrain.storage.location import Storage
        from degrain.tracking.config import load_tracking_config
        from degrain.tracking.runs import Tracker

        self._check()
        storage = Storage.from_environment()
        tracking = load_tracking_config(self.mlflow)
        out, studies = storage.locate(self.ingest.out), storage.locate(self.studies)
        for folder in (out, studies):
            folder.check_writable()
        retraining = Retraining(
            ingest=self.ingest,
            study=self.study,
            min_new_pairs=self.min_new_pairs,
            tracker=Tracker.open(tracking, storage),
            studies=studies,
            log=console.print,
            progress=console.progress,
            start_ray=start_ray,
        )
        if self.dry_run:
            result = retraining.plan()
            console.print(describe(result))
            return result.to_summary()
        if self.schedule is not None:
            self._repeat(self.schedule, retraining, out, console)
        return self._retrain(retraining, out, console).to_summary()

    def _check(self) -> None:
        """Raise UserError for options that do not go together, before anything is done."""
        from degrain.retraining.notice import check_url
        from degrain.retraining.schedule import check_schedule

        if self.notify is not None:
            check_url(self.notify)
        if self.schedule is None:
            return
        check_schedule(self.schedule)
        for name, given in (("summary", self.summary is not None), ("dry_run", self.dry_run)):
            if given:
                raise UserError(f"`{name}` is for one retraining; leave it out with `schedule`")

    def _retrain(
        self, retraining: "Retraining", out: "Location", console: Console
    ) -> "RetrainingResult":
        from degrain.storage.lease import exclusive

        try:
            with exclusive(out / "retrain.lock", "retraining") as lease:
                result = retraining.run(lease)
        except Exception as error:
            known = find_cause(error) or error
            self._notify({"decision": "failed", "reason": str(known)}, console)
            raise
        if result.study is not None:
            console.print(f"\n{result.study.comparison.to_markdown()}\n")
        console.print(describe(result))
        self._notify(result.to_summary(), console)
        return result

    def _notify(self, content: dict[str, object], console: Console) -> None:
        from degrain.retraining.notice import post_notice

        if self.notify is not None:
            post_notice(self.notify, content, console.print)

    def _repeat(
        self, schedule: str, retraining: "Retraining", out: "Location", console: Console
    ) -> NoReturn:
        from degrain.cli.execution import report_error
        from degrain.cluster import shut_down_ray
        from degrain.retraining.schedule import SCHEDULE_FILE, Schedule

        times = Schedule(schedule, retraining.studies / SCHEDULE_FILE)
        while True:
            console.print(f"waiting for '{schedule}'")
            due = times.wait()
            console.print(f"{due:%Y-%m-%d %H:%M}: looking for new photos")
            try:
                self._retrain(retraining, out, console)
            # The disk may be free or the server back next time.
            except Exception as error:  # noqa: BLE001
                report_error(error, option_types(Retrain))
            finally:
                # A cluster of this machine would hold its memory until the next time.
                shut_down_ray()
            times.done(due)


def describe(result: "RetrainingResult") -> str:
    """Describe the outcome of a retraining in one line."""
    champion = f"the champion is version {result.champion}"
    if result.champion is None:
        champion = "there is no champion"
    return f"{result.decision}: {result.reason}; {champion}"


COMMAND = Retrain
