"""Retraining: look for new photos, and put a better champion in place if they make one.

Ingest finds out whether there is anything new, because a patch set's version is a hash of its content. If a retraining on
that version has ended before, there is nothing to do. Otherwise a study runs; its comparison scores the challengers and the
champion on the same test photos, and an alias moves only to a better model.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from croniter import CroniterError, croniter

from degrain.data.ingest import IngestConfig, ingest
from degrain.errors import UserError
from degrain.storage import Location, Storage
from degrain.tracking.registry import holders
from degrain.tracking.runs import Tracker
from degrain.tuning.study import Progress, Say, StudyConfig, StudyResult, run_study

STUDIED_TAG = "studied_patch_set"
"""Marks a retraining that ended well; one that was interrupted is done again."""


@dataclass(frozen=True)
class Retrained:
    """What one retraining decided."""

    decision: str
    """`unchanged` (nothing new), `promoted`, or `kept` (the challengers were not better)."""
    reason: str
    champion: str | None
    """Version that holds the alias `champion` now."""
    challenger: str | None
    """Version that was registered now."""
    study: StudyResult | None = None

    def to_summary(self) -> dict[str, object]:
        """The outcome as `--summary` writes it."""
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
    folder: Location,
    say: Say,
    progress: Progress,
) -> Retrained:
    """Ingest what is new and, if there is something, run a study on it. Needs a running Ray."""
    patch_set = ingest(ingest_config, storage, start_ray=lambda: None, progress=progress("ingest", "pairs")).patch_set
    version = patch_set.manifest.version
    say(f"patch set: {patch_set.uri} ({patch_set.manifest.pairs} pairs)")
    name = tracker.config.model
    champion = holders(tracker.client, name).get("champion")
    if _studied(tracker, version):
        reason = f"patch set {version} has been studied before"
        return Retrained("unchanged", reason, champion.version if champion else None, None)
    with tracker.run(f"retraining-{version}", "retraining", tags={"patch_set": version}) as run:
        study = run_study(study_config, patch_set, storage, tracker, folder=folder, say=say, progress=progress, parent=run)
        decision = next(d for d in study.decisions if d.alias == "champion")
        run.tags({"decision": "promoted" if decision.moved else "kept", "reason": decision.reason, STUDIED_TAG: version})
    challenger = study.registered[0].version if study.registered else None
    return Retrained("promoted" if decision.moved else "kept", decision.reason, decision.version, challenger, study)


def _studied(tracker: Tracker, version: str) -> bool:
    """Whether a retraining on this patch set has ended well."""
    found = tracker.client.search_runs(
        [tracker.experiment_id], filter_string=f"tags.{STUDIED_TAG} = '{version}'", max_results=1
    )
    return bool(found)


def check_schedule(schedule: str) -> None:
    """Raise UserError unless `schedule` is a cron expression that names a time which will come."""
    try:
        croniter(schedule, datetime.now()).get_next()
    except (CroniterError, ValueError):
        raise UserError(
            f"'{schedule}' is not a cron schedule that ever comes; write five fields, e.g. '0 3 * * 1' for Mondays at 3:00"
        ) from None


def wait_for(schedule: str, now: Callable[[], datetime] = datetime.now) -> datetime:
    """Sleep until the next time that the cron expression names, in local time; gives that time."""
    due: datetime = croniter(schedule, now()).get_next(datetime)
    while (left := (due - now()).total_seconds()) > 0:
        time.sleep(min(left, 60))
    return due
