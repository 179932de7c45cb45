"""A study: search, refit, compare, register.

    search      trials of each network on Ray Tune, which share the patches in memory
    refit       the best trial of each network, at full length, by Ray Train DDP
    compare     noisy, NLM, the refits and the current alias holders, on whole test photos
    register    the refits that are best on the val split; aliases move by the comparison

In MLflow the study is a parent run and each trial and refit its child.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from degrain.corpora.record import PairRecord
from degrain.errors import JobFailedError
from degrain.imaging.metrics import PROTOCOL
from degrain.patchsets.patch_set import PatchSet
from degrain.registry.gates import describe_rule
from degrain.registry.standing import Standing
from degrain.spacing import evenly_spaced
from degrain.storage.location import Location
from degrain.tracking.runs import Run, Tracker
from degrain.training.config import TrainingConfig
from degrain.training.distributed.job import TrainingJob
from degrain.training.distributed.result import describe_result
from degrain.training.distributed.run import tracked
from degrain.training.distributed.splits import TrainingSplits, open_splits, patch_set_tags
from degrain.tuning.config import FittedStudy, StudyConfig
from degrain.tuning.publish import Publication, Refit, StudyResult, holders_without
from degrain.tuning.sampler import COLD, WarmStart, earlier_trials
from degrain.tuning.search import (
    TrialPlan,
    chosen_trials,
    parallel_trials,
    search,
    spaces_of,
    trial_body,
    trial_length,
)
from degrain.tuning.space import SearchSpace
from degrain.tuning.starts import Starts
from degrain.tuning.state import StudyState, new_name
from degrain.tuning.trial import Trial
from degrain.tuning.trial_runs import TrialRuns, describe_trial

Log: TypeAlias = Callable[[str], None]
"""Prints a line for the user."""
Progress: TypeAlias = Callable[[str, str], Callable[[int, int], None]]
"""Starts a progress bar with a label and a unit; returns its callback of (done, total)."""
Guard: TypeAlias = Callable[[], None]
"""Raises an error if the job must not publish."""


def fit_to_cluster(config: StudyConfig) -> FittedStudy:
    """Return the study with its None fields set by the cluster. Needs a running Ray."""
    import ray

    total = ray.cluster_resources()
    return config.fit_to(total.get("CPU", 1), total.get("GPU", 0))


def run_study(
    config: FittedStudy,
    patch_set: PatchSet,
    tracker: Tracker,
    *,
    folder: Location,
    log: Log,
    progress: Progress,
    parent: Run | None = None,
    before_publishing: Guard = lambda: None,
    name: str | None = None,
    resume: StudyState | None = None,
    earlier_scenes: Collection[str] | None = None,
) -> StudyResult:
    """Run a study on a patch set. Needs a running Ray.

    Checkpoints, table and picture go to `folder`/<name of the study>. `before_publishing` is called
    before models are registered and aliases move. `resume` is the state of the interrupted study
    `name`, which goes on. The gates look at the test scenes that are among `earlier_scenes` and at
    the others apart. Raises JobFailedError if no trial succeeds, and UserError, before the
    search, for patches or photos that the study cannot use.
    """
    starts = Starts.load(config, tracker, patch_set.root.storage)
    config = starts.include_network(config)
    photos = _checked_photos(config, patch_set, starts)
    standing = Standing.now(tracker, patch_set.root.storage)
    name, tags = name or new_name(), patch_set_tags(patch_set)
    log(f"study: {name}")
    for line in (*_prospects(photos, starts, tracker), *standing.lost):
        log(line)
    protocol, run_id = {"test_protocol": PROTOCOL}, resume.run_id if resume else None
    with tracker.run(name, "study", parent=parent, tags=tags | protocol, resume=run_id) as run:
        run.describe(f"Study of {', '.join(config.tuned)}.", patch_set, ("train", "val", "test"))
        state = _open_state(resume, config, patch_set, run, folder / name)
        resolved, splits = open_splits(config.training(), patch_set)
        config = replace(config, batches=resolved.batches)
        study = _Study(config, patch_set, starts, tracker, run, tags, state, splits, log, progress)
        trials = study.search()
        refits = study.refit(trials)
        result = study.conclude(trials, refits, photos, earlier_scenes, before_publishing)
        result.write_report(run)
        run.add_note(result.describe())
    return result


def log_photos(log: Log, photos: Sequence[PairRecord], total: int) -> None:
    """Tell how many photos are compared."""
    of_all = f" of {total}" if len(photos) < total else ""
    megapixels = sum((p.height or 0) * (p.width or 0) for p in photos) / 1e6
    log(f"compare: {len(photos)}{of_all} whole test photos ({megapixels:.1f} megapixels)")


def _open_state(
    resume: StudyState | None,
    config: FittedStudy,
    patch_set: PatchSet,
    run: Run,
    folder: Location,
) -> StudyState:
    """The state of a new study, or of a resumed one, whose MLflow run may be a new one."""
    state = resume or StudyState(folder, config, patch_set.uri, run.id, attempts=0)
    if state.run_id != run.id or resume is None:
        run.params(config.to_dict())
    state.run_id, state.attempts = run.id, state.attempts + 1
    # The patch set may have been moved.
    state.data = patch_set.uri
    state.write()
    return state


def _checked_photos(config: FittedStudy, patch_set: PatchSet, starts: Starts) -> list[PairRecord]:
    """The whole test photos of the comparison, evenly spaced over the split.

    Raises UserError if they have changed, or if patches or cluster do not suit the study.
    """
    spaces_of(config, patch_set.manifest, starts)
    config.refit_workers.check_cluster()
    rows = patch_set.photos("test")
    photos = [rows[i] for i in evenly_spaced(len(rows), config.test_photos)]
    patch_set.source.check(photos)
    return photos


def _prospects(photos: Sequence[PairRecord], starts: Starts, tracker: Tracker) -> list[str]:
    """What a model must show to become champion, and what keeps models from it whatever they show:
    both are known before the budget is spent.
    """
    lines = [f"gates: {describe_rule(len({p.scene for p in photos}), tracker.config)}"]
    for model in starts.models:
        seen = [p.id for p in photos if model.card.photos is not None and p in model.card.photos]
        if seen:
            lines.append(
                f"gates: {model.name} was trained on {len(seen)} of the {len(photos)} test photos, "
                f"e.g. {seen[0]}, so no model that starts from it can become champion"
            )
    return lines


@dataclass(frozen=True)
class _Study:
    """A running study: the arguments that its four steps share."""

    config: FittedStudy
    patch_set: PatchSet
    starts: Starts
    tracker: Tracker
    run: Run
    tags: Mapping[str, str]
    """Tags of each child run."""
    state: StudyState
    splits: TrainingSplits
    log: Log
    progress: Progress

    @property
    def folder(self) -> Location:
        """Folder of checkpoints, table and picture."""
        return self.state.folder

    def search(self) -> list[Trial]:
        """Run the trials. Raises JobFailedError if none succeeds."""
        config, parallel = self.config, parallel_trials(self.config)
        before = self.state.in_order()
        spaces = spaces_of(config, self.patch_set.manifest, self.starts)
        each = trial_length(config, parallel, before)
        training = config.training(**each)
        plan = TrialPlan(config, spaces, each, before, self._warm_start(spaces, training))
        length = training.length
        known = f", {len(plan.ended)} of them done" if before else ""
        models = ", ".join(config.tuned)
        if config.start is not None:
            models += f" around {config.start}"
        self.log(f"search: {config.trials} trials of {models}, {length} each at most{known}")
        with TrialRuns(
            config.trials, self.tracker, self.run, self.patch_set, self.tags, self.log, self.state
        ) as runs:
            ran = search(
                plan.queue(),
                before,
                suggester=plan.suggester,
                algorithm=config.search,
                objective=config.objective,
                body=trial_body(config, self.splits, self.starts.weights, self.folder),
                name=f"trials-{self.state.attempts}",
                parallel=parallel,
                observer=runs,
            )
        trials = [*plan.ended, *ran]
        if not any(t.usable for t in trials):
            raise JobFailedError(
                f"all {len(trials)} trials failed, the first with: {trials[0].error}"
            )
        return trials

    def _warm_start(self, spaces: Sequence[SearchSpace], training: TrainingConfig) -> WarmStart:
        """What earlier studies on the patch set teach, if the configuration asks for it."""
        if not self.config.warm_start:
            return COLD
        version, protocol = self.tags["patch_set"], self.tags["val_protocol"]
        trials = earlier_trials(self.tracker, version, protocol, training, self.run.id)
        found = WarmStart.of(trials, spaces, training, self.config.objective)
        self.log(
            f"warm start: {len(found.first)} networks begin with the best of {len(trials)} earlier "
            f"trials on this patch set; {len(found.outcomes)} are of this length"
        )
        return found

    def refit(self, trials: Sequence[Trial]) -> list[Refit]:
        """Train the chosen trials at full length."""
        chosen = chosen_trials(trials, self.config, self.log)
        length = self.config.refit_length(len(chosen))
        return [self._refit(name, trial, length) for name, trial in chosen.items()]

    def _refit(self, label: str, best: Trial, length: Mapping[str, Any]) -> Refit:
        name, training = f"refit-{label}", replace(best.config, **length)
        workers = self.config.workers_for(training.batch_size)
        self.log(f"refit: {best.name}, {training.length} on {workers.workers.describe()}")
        before = self.state.refits.get(name)
        with self.tracker.run(name, "refit", parent=self.run, tags=self.tags, resume=before) as run:
            self.state.record_refit(name, run.id)
            if run.id != before:
                described = {"workers": str(workers.workers), "parameters": best.parameters}
                run.params({**training.tracked_parameters(), **described})
            note = f"Refit of {best.name} for {training.length}: {describe_trial(best)}."
            run.describe(note, self.patch_set)
            folder = self.folder / name
            with tracked(run, training, name, folder, log=self.log) as (_, show):
                result = TrainingJob(
                    training,
                    self.splits,
                    folder,
                    name,
                    workers,
                    start=self.starts.of(training.start).weights if training.start else None,
                    on_event=show,
                ).run()
            if result.metrics["step"] == 0:
                self.log(describe_result(result))
            elif result.metrics["val_psnr"] < best.best["val_psnr"]:
                self.log(
                    f"  {name} ended below its trial ({result.metrics['val_psnr']:.2f} dB against "
                    f"{best.best['val_psnr']:.2f}): its time was too short, so give a larger "
                    "budget, or fewer networks"
                )
            run.add_note(describe_result(result))
        return Refit(label, best, run, result)

    def conclude(
        self,
        trials: Sequence[Trial],
        refits: Sequence[Refit],
        photos: Sequence[PairRecord],
        earlier_scenes: Collection[str] | None,
        before_publishing: Guard,
    ) -> StudyResult:
        """Compare and register the refits."""
        holders = holders_without(refits, self.tracker, self.state.holders or {})
        self.state.record_holders({alias: v.version for alias, v in holders.items()})
        standing = Standing.now(self.tracker, self.patch_set.root.storage, holders)
        for line in standing.lost:
            self.log(line)
        publication = Publication(
            self.config, self.patch_set, self.run, self.starts, refits, standing
        )
        log_photos(self.log, photos, len(self.patch_set.photos("test")))
        progress = self.progress("compare", "photos")
        comparison = publication.compare(photos, earlier_scenes, progress)
        before_publishing()
        registered, decisions = publication.register(comparison)
        return StudyResult(
            self.run.id, trials, refits, comparison, registered, decisions, self.folder
        )
