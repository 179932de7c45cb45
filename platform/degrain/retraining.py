"""Retraining: ingests new photos, runs a study on them, and promotes better models.

A patch set's version is a hash of its content, so it changes if and only if the photos changed. If
a retraining on that version has finished before, the job ends. Otherwise a study runs; its
comparison scores the challengers and the champion on the same test photos, and an alias moves only
to a better model.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from croniter import CroniterError, croniter

from degrain.errors import UserError
from degrain.patchsets.ingest.config import IngestConfig
from degrain.patchsets.ingest.run import ingest
from degrain.storage.lease import Lease
from degrain.storage.location import Location, Storage
from degrain.tracking.registry import alias_holders
from degrain.tracking.runs import Tracker
from degrain.tuning.config import StudyConfig
from degrain.tuning.result import StudyResult
from degrain.tuning.study import Log, Progress, run_study

STUDIED_TAG = "studied_patch_set"
"""Tag of a finished retraining's run; an interrupted retraining is repeated."""


@dataclass(frozen=True)
class RetrainingResult:
    """The decision of one retraining."""

    decision: str
    """`unchanged` (no new photos), `promoted`, or `kept` (no challenger was better)."""
    reason: str
    champion: str | None
    """Version that holds the alias `champion`."""
    challenger: str | None
    """Version that this retraining registered."""
    study: StudyResult | None = None

    def to_summary(self) -> dict[str, object]:
        """Return the content of the summary file."""
        return {
            "decision": self.decision,
            "reason": self.reason,
            "champion": self.champion,
            "challenger": self.challenger,
            "comparison": [r.to_dict() for r in self.study.comparison.rows] if self.study else [],
        }


def retrain(
    ingest_config: IngestConfig,
    study_config: StudyConfig,
    storage: Storage,
    tracker: Tracker,
    *,
    lease: Lease,
    folder: Location,
    log: Log,
    progress: Progress,
) -> RetrainingResult:
    """Ingest photos and run a study if they changed. Needs a running Ray.

    The lease is checked before a patch set is published and before models are registered. Raises
    LeaseLostError if another job holds it then.
    """
    done, check = progress("ingest", "pairs"), lease.check
    patch_set = ingest(ingest_config, storage, progress=done, before_publishing=check).patch_set
    version = patch_set.manifest.version
    log(f"patch set: {patch_set.uri} ({patch_set.manifest.pairs} pairs)")
    if _studied(tracker, version):
        champion = alias_holders(tracker.client, tracker.config.model).get("champion")
        reason = f"patch set {version} has been studied before"
        return RetrainingResult("unchanged", reason, champion.version if champion else None, None)
    with tracker.run(f"retraining-{version}", "retraining", tags={"patch_set": version}) as run:
        study = run_study(
            study_config,
            patch_set,
            tracker,
            folder=folder,
            log=log,
            progress=progress,
            parent=run,
            before_publishing=check,
        )
        decision = next(d for d in study.decisions if d.alias == "champion")
        outcome = "promoted" if decision.moved else "kept"
        run.tags({"decision": outcome, "reason": decision.reason, STUDIED_TAG: version})
    challenger = study.registered[0].version if study.registered else None
    return RetrainingResult(outcome, decision.reason, decision.version, challenger, study)


def _studied(tracker: Tracker, version: str) -> bool:
    """Whether a retraining on this patch set has finished."""
    found = tracker.client.search_runs(
        [tracker.experiment_id],
        filter_string=f"tags.{STUDIED_TAG} = '{version}'",
        max_results=1,
    )
    return bool(found)


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
