"""`degrain retrain`: new photos, a study, and a new champion if it is better."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn

from degrain.cli.console import Console
from degrain.cli.option_types import option_types
from degrain.cli.options import TrackingOptions
from degrain.errors import UserError
from degrain.patchsets.ingest.config import IngestConfig
from degrain.tuning.config import StudyConfig

if TYPE_CHECKING:
    from degrain.retraining import RetrainingResult
    from degrain.storage.location import Location, Storage
    from degrain.tracking.runs import Tracker


@dataclass(frozen=True, kw_only=True)
class Retrain(TrackingOptions):
    """Ingest new photos and, if there are any, run a study and promote its model if it beats the
    champion.

    Exits with status 0 if nothing is new. With a schedule it repeats until interrupted.
    """

    ingest: IngestConfig
    studies: str = "runs/studies"
    """Folder or s3:// URI for checkpoints and tables."""
    schedule: str | None = None
    """Cron expression, e.g. '0 3 * * 1', in local time. None: retrain once."""
    study: StudyConfig = field(default_factory=StudyConfig)

    def run(self, console: Console) -> dict[str, object]:
        """Retrain once and return the outcome, or on schedule until interrupted."""
        from degrain.storage.location import Storage
        from degrain.tracking.config import load_tracking_config
        from degrain.tracking.runs import Tracker

        if self.schedule is not None:
            self._check_schedule(self.schedule)
        storage = Storage.from_environment()
        tracking = load_tracking_config(self.mlflow)
        out, studies = storage.locate(self.ingest.out), storage.locate(self.studies)
        for folder in (out, studies):
            folder.check_writable()
        tracker = Tracker.open(tracking, storage)
        if self.schedule is not None:
            self._repeat(self.schedule, storage, tracker, out, studies, console)
        return self._retrain(storage, tracker, out, studies, console).to_summary()

    def _check_schedule(self, schedule: str) -> None:
        from degrain.retraining import check_schedule

        check_schedule(schedule)
        if self.summary is not None:
            raise UserError(
                "`summary` is the result of one retraining; leave it out with `schedule`"
            )

    def _retrain(
        self,
        storage: "Storage",
        tracker: "Tracker",
        out: "Location",
        studies: "Location",
        console: Console,
    ) -> "RetrainingResult":
        from degrain.cluster import start_ray
        from degrain.retraining import retrain
        from degrain.storage.lease import exclusive
        from degrain.tuning.study import fit_to_cluster

        start_ray()
        with exclusive(out / "retrain.lock", "retraining") as lease:
            result = retrain(
                self.ingest,
                fit_to_cluster(self.study),
                storage,
                tracker,
                lease=lease,
                folder=studies,
                log=console.print,
                progress=console.progress,
            )
        if result.study is not None:
            console.print(f"\n{result.study.comparison.to_markdown()}\n")
        console.print(describe(result))
        return result

    def _repeat(
        self,
        schedule: str,
        storage: "Storage",
        tracker: "Tracker",
        out: "Location",
        studies: "Location",
        console: Console,
    ) -> NoReturn:
        from degrain.cli.execution import report_error
        from degrain.cluster import shut_down_ray
        from degrain.retraining import wait_for

        while True:
            console.print(f"waiting for '{schedule}'")
            due = wait_for(schedule)
            console.print(f"{due:%Y-%m-%d %H:%M}: looking for new photos")
            try:
                self._retrain(storage, tracker, out, studies, console)
            # The disk may be free or the server back next time.
            except Exception as error:  # noqa: BLE001
                report_error(error, option_types(Retrain))
            finally:
                # A cluster of this machine would hold its memory until the next time.
                shut_down_ray()


def describe(result: "RetrainingResult") -> str:
    """Describe the outcome of a retraining in one line."""
    champion = f"the champion is version {result.champion}"
    if result.champion is None:
        champion = "there is no champion"
    return f"{result.decision}: {result.reason}; {champion}"


COMMAND = Retrain
