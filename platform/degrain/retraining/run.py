"""One retraining: news, ingest, study, decision.

    news      pairs that the last studied patch set does not have, by their names, sizes and times
    ingest    a patch set of all pairs; only new ones are read
    drift     new pairs and known ones, and the champion on both
    study     search around the champion, refits, comparison with the champion, gates
    decide    promoted or kept

From the end of the ingest on, a record in the folder of the studies names the patch set and the
study. A retraining that finds one goes on with that study, and ends it before it looks for news.

A retraining is of one model, one folder of patch sets and one choice of corpora. Others may share
the folder of studies, the experiment and the server: what is looked up is this one's.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from degrain.corpora.record import PairRecord
from degrain.errors import JobFailedError, UserError
from degrain.monitoring import record_drift, record_retraining
from degrain.patchsets.ingest.config import IngestConfig
from degrain.patchsets.ingest.run import ingest
from degrain.patchsets.patch_set import PatchSet
from degrain.registry.gates import describe_rule
from degrain.registry.promotion import champion_of
from degrain.registry.versions import ModelVersion, alias_holders, load_registered
from degrain.retraining.delivery import compare_delivery
from degrain.retraining.news import News, find_news, new_pairs, read_catalog
from degrain.retraining.record import MOST_FAILURES, RetrainingRecord, read_record
from degrain.retraining.result import RetrainingResult
from degrain.storage.json_file import json_bytes
from degrain.storage.lease import Lease, LeaseLostError
from degrain.storage.location import Location, Storage
from degrain.tracking.client import ServerUnavailableError
from degrain.tracking.runs import Run, Tracker
from degrain.tuning.config import StudyConfig
from degrain.tuning.publish import StudyResult
from degrain.tuning.state import STATE_FILE, StudyState, new_name, read_state
from degrain.tuning.study import Log, Progress, fit_to_cluster, run_study

STUDIED_TAG = "studied_patch_set"
"""Tag of a finished retraining's run."""
IDENTITY_TAG = "degrain.retraining"
"""Tag of a retraining's run with its `Retraining.identity`."""


@dataclass(frozen=True, kw_only=True)
class Retraining:
    """The arguments that the steps of a retraining share."""

    ingest: IngestConfig
    study: StudyConfig
    min_new_pairs: int
    """Fewer new pairs are left for a later retraining."""
    tracker: Tracker
    studies: Location
    """Folder of studies, and of the record."""
    log: Log
    progress: Progress
    start_ray: Callable[[], None]
    """Called before a study; what ends earlier needs no cluster."""

    @property
    def identity(self) -> str:
        """A digest of the model, the folder of patch sets, and the corpora in any order."""
        out = self._storage.locate(self.ingest.out).identity
        parts = [self.tracker.config.model, out, *sorted(self.ingest.corpus)]
        return hashlib.blake2b(json.dumps(parts).encode(), digest_size=8).hexdigest()

    @property
    def _record_file(self) -> Location:
        return self.studies / f"retraining-{self.identity}.json"

    @property
    def _storage(self) -> Storage:
        return self.studies.storage

    def plan(self) -> RetrainingResult:
        """What `run` would do now; nothing is written."""
        record = read_record(self._record_file)
        if record is not None and self._continues(record) and not self._has_ended(record):
            reason = f"the retraining of study {record.study} was interrupted and would go on"
            return RetrainingResult("planned", reason, self._champion())
        news = self._news()
        decision = "planned" if len(news.pairs) >= self.min_new_pairs else "unchanged"
        return RetrainingResult(
            decision,
            f"{self._reason(news.describe(), len(news.pairs))}{self._rule(news)}",
            self._champion(),
            new_pairs=len(news.pairs),
        )

    def _rule(self, news: News) -> str:
        """What a model must show, by the test scenes that are known."""
        scenes = {r.scene for r in (news.known or {}).values() if r.split == "test"}
        if not scenes:
            return ""
        return f"; gates: {describe_rule(len(scenes), self.tracker.config)}"

    def run(self, lease: Lease) -> RetrainingResult:
        """Retrain if there is enough that is new, or go on with an interrupted retraining.

        The lease is checked before a patch set is published and before models are registered.
        Raises LeaseLostError if another job holds it then.
        """
        record = self._interrupted()
        if record is not None:
            try:
                patch_set = PatchSet.open(record.patch_set, self._storage)
                earlier = read_catalog(patch_set.root, record.since)
                return self._carry_out(record, patch_set, earlier, lease)
            except UserError as error:
                # Such as photos that have changed since: it would stop every later one too.
                self.log(f"the interrupted retraining cannot go on ({error}); a new one begins")
                self._record_file.remove()
        news = self._news()
        count = len(news.pairs)
        self.log(f"news: {news.describe()}")
        if count < self.min_new_pairs:
            return self._unchanged(self._reason(news.describe(), count), count)
        patch_set = self._ingest(lease)
        if reason := self._nothing_to_study(patch_set, news):
            return self._unchanged(reason, count)
        name = new_name()
        record = RetrainingRecord(patch_set.uri, name, "", self._options, news.since, count)
        return self._carry_out(record, patch_set, news.known, lease)

    def _carry_out(
        self,
        record: RetrainingRecord,
        patch_set: PatchSet,
        earlier: Mapping[str, PairRecord] | None,
        lease: Lease,
    ) -> RetrainingResult:
        """Drift, study, decision; the record is removed at the end."""
        version = patch_set.manifest.version
        self.start_ray()
        with self.tracker.run(
            f"retraining-{version}",
            "retraining",
            tags={"patch_set": version, IDENTITY_TAG: self.identity},
            resume=record.run_id or None,
        ) as run:
            record = replace(record, run_id=run.id)
            record.write(self._record_file)
            drift = self._drift(patch_set, earlier, run)
            study = self._study(patch_set, run, record, earlier, lease)
            decision = champion_of(study.decisions)
            outcome = "promoted" if decision.moved else "kept"
            run.tags({"decision": outcome, "reason": decision.reason, STUDIED_TAG: version})
        record_retraining(outcome)
        self._record_file.remove()
        return RetrainingResult(
            outcome,
            decision.reason,
            decision.version,
            challenger=study.registered[0].version if study.registered else None,
            new_pairs=record.new_pairs,
            drift=drift,
            patch_set=version,
            study=study,
        )

    def _news(self) -> News:
        return find_news(self.ingest, self._storage, self._known_patch_set())

    def _reason(self, news: str, count: int) -> str:
        if 0 < count < self.min_new_pairs:
            return f"{news}; at least {self.min_new_pairs} are needed"
        return news

    def _unchanged(self, reason: str, new_pairs: int) -> RetrainingResult:
        return RetrainingResult("unchanged", reason, self._champion(), new_pairs=new_pairs)

    def _champion(self) -> str | None:
        champion = alias_holders(self.tracker.client, self.tracker.config.model).get("champion")
        return champion.version if champion else None

    def _known_patch_set(self) -> str | None:
        """Version of the patch set that was studied last, else of that of the champion."""
        finished = self._finished_runs()
        if finished:
            return str(finished[0].data.tags[STUDIED_TAG])
        champion = self._champion()
        if champion is None:
            return None
        version = self.tracker.client.get_model_version(self.tracker.config.model, champion)
        patch_set: str | None = version.tags.get("patch_set")
        return patch_set

    def _finished_runs(self, version: str | None = None) -> list[Any]:
        """The newest finished retraining, of a version or of any."""
        which = "LIKE '%'" if version is None else f"= '{version}'"
        return list(
            self.tracker.client.search_runs(
                [self.tracker.experiment_id],
                filter_string=f"tags.{STUDIED_TAG} {which} and tags.`{IDENTITY_TAG}` = "
                f"'{self.identity}'",
                max_results=1,
                order_by=["attributes.start_time DESC"],
            )
        )

    def _ingest(self, lease: Lease) -> PatchSet:
        done, check = self.progress("ingest", "pairs"), lease.check
        result = ingest(self.ingest, self._storage, progress=done, before_publishing=check)
        manifest = result.patch_set.manifest
        self.log(f"patch set: {result.patch_set.uri} ({manifest.pairs} pairs)")
        return result.patch_set

    def _nothing_to_study(self, patch_set: PatchSet, news: News) -> str | None:
        """Why a new patch set needs no study; None if it does."""
        version = patch_set.manifest.version
        if self._finished_runs(version):
            return f"patch set {version} has been studied before"
        new = new_pairs(patch_set.catalog, news.known)
        refused = [pair.refused for pair in new if pair.refused is not None]
        if refused:
            self.log(f"refused: {len(refused)} of {len(new)} new pairs, the first: {refused[0]}")
        if len(new) - len(refused) >= self.min_new_pairs:
            return None
        return f"{len(refused)} of {len(new)} new pairs were refused, the first: {refused[0]}"

    def _drift(
        self, patch_set: PatchSet, earlier: Mapping[str, PairRecord] | None, run: Run
    ) -> list[str]:
        """Compare new pairs with those of the earlier patch set; report to the log and the run."""
        if earlier is None:
            return []
        champion = self._champion()
        denoiser = None
        if champion is not None:
            uri = ModelVersion(self.tracker.config.model, champion).uri
            denoiser, _ = load_registered(self.tracker.client, uri)
        new = {pair.id for pair in new_pairs(patch_set.catalog, earlier)}
        progress = self.progress("drift", "photos")
        report = compare_delivery(patch_set.catalog, new, patch_set.source, denoiser, progress)
        if report is None:
            return []
        self.log(report.describe())
        for found in report.findings:
            if found.difference is not None:
                record_drift(found.trait, found.difference)
        run.files(report.files(), "drift")
        run.tags({"drift": ", ".join(report.drifted) or "none"})
        return report.drifted

    def _interrupted(self) -> RetrainingRecord | None:
        """The record of an interrupted retraining with the same options."""
        record = read_record(self._record_file)
        if record is None:
            return None
        if self._has_ended(record):
            self._record_file.remove()
            return None
        if not self._continues(record):
            self.log(
                f"the retraining of study {record.study} was interrupted and had other options; a "
                "new one begins"
            )
            return None
        self.log(f"the retraining of study {record.study} was interrupted and goes on")
        return record

    def _continues(self, record: RetrainingRecord) -> bool:
        return record.options == self._options

    @property
    def _options(self) -> dict[str, Any]:
        """The study's options as they are read from a record."""
        options: dict[str, Any] = json.loads(json_bytes(self.study.to_dict()))
        return options

    def _has_ended(self, record: RetrainingRecord) -> bool:
        """Whether a retraining was interrupted after its decision."""
        return any(run.info.run_id == record.run_id for run in self._finished_runs())

    def _study(
        self,
        patch_set: PatchSet,
        run: Run,
        record: RetrainingRecord,
        earlier: Mapping[str, PairRecord] | None,
        lease: Lease,
    ) -> StudyResult:
        """Run or resume the study; docs/retraining.md has what a failure does to the record."""
        state = self._state_of(record.study)
        try:
            return run_study(
                state.config if state else fit_to_cluster(self._around_champion()),
                patch_set,
                self.tracker,
                folder=self.studies,
                log=self.log,
                progress=self.progress,
                parent=run,
                before_publishing=lease.check,
                name=record.study,
                resume=state,
                earlier_scenes=None if earlier is None else {p.scene for p in earlier.values()},
            )
        except (ServerUnavailableError, LeaseLostError):
            raise
        except JobFailedError:
            failures = record.failures + 1
            if failures < MOST_FAILURES:
                replace(record, failures=failures).write(self._record_file)
            else:
                self._record_file.remove()
            raise

    def _around_champion(self) -> StudyConfig:
        """The study, whose search is around the champion unless the user named another model."""
        champion = self._champion()
        if champion is None or self.study.start is not None:
            return self.study
        return replace(self.study, start=ModelVersion(self.tracker.config.model, champion).uri)

    def _state_of(self, name: str) -> StudyState | None:
        """The state of a study that has begun."""
        if not (self.studies / name / STATE_FILE).exists():
            return None
        return read_state(self.studies, name)
