"""A study: search, refit, compare, register.

    search      trials of each architecture on Ray Tune, over patches that are in memory once
    refit       the best trial of each architecture, at full length, by Ray Train DDP
    compare     untouched, NLM, the refits and the present alias holders, on the whole photos of the test split
    register    the refits that are best by PSNR and by SSIM on the val split; aliases move by the comparison

In MLflow the study is a parent run and each trial and refit its child.
"""

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from degrain.data.patches import PatchSet
from degrain.data.spread import spread
from degrain.errors import JobFailedError, UserError
from degrain.evaluation.comparison import Comparison, compare
from degrain.evaluation.figures import save_crops
from degrain.imaging.denoiser import Denoiser, NetworkDenoiser, Untouched
from degrain.imaging.filters import create_filter
from degrain.imaging.metrics import PATCH_PROTOCOL, PROTOCOL
from degrain.storage import Location, Storage, json_bytes
from degrain.tracking.config import BASELINES
from degrain.tracking.outbox import Outbox
from degrain.tracking.promotion import ALIASES, Decision, Scored, decide
from degrain.tracking.registry import ModelVersion, holders, load_registered, register
from degrain.tracking.runs import Run, Tracker, interrupts_deferred
from degrain.training.config import Batches, Mix, TrainingConfig
from degrain.training.session import Metrics
from degrain.training.trainer import Job, Splits, Trained, Workers, open_splits, trained_card
from degrain.training.watch import Watch
from degrain.tuning.search import Observer, Trial, search
from degrain.tuning.space import SCALES, Scale, draw_trials, search_space

Say = Callable[[str], None]
"""Prints a line for the user."""
Progress = Callable[[str, str], Callable[[int, int], None]]
"""Begins a progress display of a label and a unit; gives what is told (done, in all)."""


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """What a study does."""

    models: Sequence[str] = ("red10", "mwcnn")
    """Architectures, see `denoisenets.list_models()`."""
    trials: int = 6
    """Configurations tried, over all architectures; at least one each."""
    steps: int = 240
    """Optimizer steps of a trial that is not stopped early."""
    refit_steps: int = 900
    """Optimizer steps of a refit."""
    batch_size: int = 8
    """Patches per step over all workers."""
    crop: int | None = 64
    """Side of the random crop from each patch, pixels; None takes whole patches."""
    mix: Mix = "natural"
    """Whether cameras and ISOs are shown as often as they are there, or equally often."""
    batches: Batches = "auto"
    """Whether patches are in memory whole, or streamed."""
    workers: int = 2
    """Ray Train workers of a refit."""
    gpus: float = 0
    """GPUs per trial and per worker."""
    scale: Scale = "small"
    """Which search space: `small` networks for CPUs, or those of the `paper`s for GPUs."""
    validation_patches: int = 48
    """Patches a validation scores."""
    test_photos: int = 40
    """Whole photos of the test split that the comparison takes at most, spread evenly."""
    seed: int = 0
    """Seeds the draw of trials and all training."""

    def __post_init__(self) -> None:
        if not self.models:
            raise ValueError("name at least one model")
        if len(set(self.models)) != len(self.models):
            raise ValueError(f"a model is named twice: {', '.join(self.models)}")
        if self.scale not in SCALES:
            raise ValueError(f"unknown scale '{self.scale}'; known: {', '.join(SCALES)}")
        for model in self.models:
            search_space(model, self.scale)
        if self.trials < len(self.models):
            raise ValueError(f"{len(self.models)} models need at least as many trials, got {self.trials}")
        for name in ("steps", "refit_steps", "batch_size", "validation_patches", "test_photos"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, got {self.seed}")
        if not 0 <= self.gpus < float("inf"):
            raise ValueError(f"gpus must be a number that is not negative, got {self.gpus}")
        self.refit_workers.check_batch(self.batch_size)

    @property
    def refit_workers(self) -> Workers:
        """Who trains a refit."""
        return Workers(least=self.workers, most=self.workers, gpus=self.gpus)

    def training(self, **changes: object) -> TrainingConfig:
        """The configuration that trials and refits share, with `changes`."""
        base = TrainingConfig(
            batch_size=self.batch_size,
            crop=self.crop,
            mix=self.mix,
            batches=self.batches,
            validation_patches=self.validation_patches,
            seed=self.seed,
        )
        return replace(base, **changes)  # type: ignore[arg-type]


def ema_decay(steps: int) -> float:
    """An average over the last fiftieth of a short run, and over at least a hundred steps."""
    return max(0.99, 1 - 50 / steps)


@dataclass(frozen=True)
class Refit:
    """The winner of one architecture, trained at full length."""

    trial: Trial
    run: Run
    trained: Trained

    @property
    def name(self) -> str:
        """Its row in the comparison."""
        return self.trial.draw.model


@dataclass(frozen=True)
class StudyResult:
    """What came out of a study."""

    run_id: str
    trials: list[Trial]
    refits: list[Refit]
    comparison: Comparison
    registered: list[ModelVersion]
    decisions: list[Decision]
    folder: Path
    """Where the table, the picture and the summary lie."""

    @property
    def picture(self) -> Path:
        """Crops side by side."""
        return self.folder / "comparison.png"

    def to_summary(self) -> dict[str, object]:
        """The study as `--summary` writes it."""
        return {
            "study_run_id": self.run_id,
            "trials": [t.to_dict() for t in self.trials],
            "refits": [{"model": r.name, "run_id": r.run.id, **r.trained.metrics} for r in self.refits],
            "comparison": [row.to_dict() for row in self.comparison.rows],
            "test_photos": self.comparison.photos,
            "registered": [asdict(v) for v in self.registered],
            "decisions": [asdict(d) for d in self.decisions],
            "picture": str(self.picture),
        }


def run_study(
    config: StudyConfig,
    patch_set: PatchSet,
    storage: Storage,
    tracker: Tracker,
    *,
    folder: Location,
    say: Say,
    progress: Progress,
    parent: Run | None = None,
) -> StudyResult:
    """Run a whole study on a patch set. Needs a running Ray.

    Checkpoints, table and picture go to `folder`/<name of the study>. Raises JobFailedError if no trial succeeds, UserError,
    before the search, for patches or photos that the study cannot use.
    """
    for model in config.models:
        _check_crop(config, model, patch_set)
    config.refit_workers.check_cluster()
    test_photos = patch_set.photos("test")
    patch_set.source.check([test_photos[i] for i in spread(len(test_photos), config.test_photos)])
    name = time.strftime("study-%Y%m%d-%H%M%S")
    tags = {
        "patch_set": patch_set.manifest.version,
        "patch_set.uri": patch_set.uri,
        "val_protocol": PATCH_PROTOCOL,
    }
    with tracker.run(name, "study", parent=parent, tags={**tags, "test_protocol": PROTOCOL}) as run:
        run.params(asdict(config))
        resolved, splits = open_splits(config.training(), patch_set)
        config = replace(config, batches=resolved.batches)
        study = _Study(config, patch_set, storage, tracker, run, tags, folder / name, splits, say, progress)
        trials = study.search()
        refits = study.refit(trials)
        comparison, present = study.compare(refits)
        registered, decisions = study.register(refits, comparison, present)
        result = StudyResult(run.id, trials, refits, comparison, registered, decisions, _local_folder(study.folder))
        study.write_report(result)
    return result


def _check_crop(config: StudyConfig, model: str, patch_set: PatchSet) -> None:
    try:
        config.training(model=model).crop_of(patch_set.manifest.geometry.patch_size)
    except ValueError as error:
        raise UserError(str(error)) from None


def _make_trials(config: StudyConfig) -> list[Trial]:
    trials: list[Trial] = []
    for number, draw in enumerate(draw_trials(config.models, config.trials, config.scale, config.seed)):
        training = config.training(
            steps=config.steps,
            validate_every=-(-config.steps // 4),
            ema_decay=ema_decay(config.steps),
            **draw.to_dict(),
        )
        trials.append(Trial(number, draw, training, draw.parameters))
    return trials


class _TrialRuns(Observer):
    """Gives each trial a run in MLflow and a line on the screen."""

    def __init__(self, trials: int, tracker: Tracker, parent: Run, tags: Mapping[str, str], say: Say) -> None:
        self._trials = trials
        self._tracker = tracker
        self._parent = parent
        self._tags = tags
        self._say = say
        self._runs: dict[int, Run] = {}
        """Those that have begun and not ended."""
        self._ended = 0

    def started(self, trial: Trial) -> None:
        if trial.number not in self._runs:
            with interrupts_deferred():
                run = self._tracker.start(trial.name, "trial", parent=self._parent, tags=self._tags)
                self._runs[trial.number] = run
            run.params({**trial.config.to_dict(), "parameters": trial.parameters})

    def reported(self, trial: Trial, metrics: Metrics) -> None:
        self._runs[trial.number].metrics(metrics, step=int(metrics["step"]))

    def ended(self, trial: Trial) -> None:
        run = self._runs.pop(trial.number, None)
        if run is not None:
            run.tags({"status": trial.status, **({"error": trial.error} if trial.error else {})})
            run.finish("FAILED" if trial.status == "failed" else "FINISHED")
        self._ended += 1
        arguments = " ".join(f"{k} {v}" for k, v in trial.draw.arguments.items())
        what = f"{trial.draw.model} {arguments}, {trial.draw.loss}, lr {trial.draw.learning_rate:g}"
        if trial.status == "failed":
            outcome = f"failed: {trial.error}"
        else:
            outcome = f"val PSNR {trial.best['val_psnr']:.2f} dB, SSIM {trial.best['val_ssim']:.3f}"
            if trial.status == "stopped":
                outcome += f"  (stopped at step {trial.best['step']:.0f})"
        self._say(f"  trial {self._ended}/{self._trials}  {what:<46}  {outcome}")

    def abandon(self) -> None:
        """Mark the runs that are still open, because the search was broken off."""
        for run in self._runs.values():
            run.finish("KILLED")


@dataclass(frozen=True)
class _Study:
    """A study that runs: what its four parts have in common."""

    config: StudyConfig
    patch_set: PatchSet
    storage: Storage
    tracker: Tracker
    run: Run
    tags: Mapping[str, str]
    """Of each child run."""
    folder: Location
    splits: Splits
    say: Say
    progress: Progress

    def search(self) -> list[Trial]:
        """Run the trials. Raises JobFailedError if none succeeds."""
        config, trials = self.config, _make_trials(self.config)
        self.say(f"search: {len(trials)} trials of {', '.join(config.models)}, {config.steps} steps each at most")
        observer = _TrialRuns(len(trials), self.tracker, self.run, self.tags, self.say)
        try:
            search(
                trials,
                splits=self.splits,
                folder=self.folder,
                name="trials",
                gpus_per_trial=config.gpus,
                observer=observer,
            )
        except BaseException:
            observer.abandon()
            raise
        if not any(t.best for t in trials):
            raise JobFailedError(f"all {len(trials)} trials failed; the first: {trials[0].error}")
        return trials

    def refit(self, trials: Sequence[Trial]) -> list[Refit]:
        """Train the best trial of each architecture at full length."""
        refits: list[Refit] = []
        for model in self.config.models:
            able = [t for t in trials if t.draw.model == model and t.best and t.status != "failed"]
            if able:
                refits.append(self._refit_one(max(able, key=lambda t: t.best["val_psnr"])))
            else:
                self.say(f"refit: {model} is left out, all its trials failed")
        return refits

    def _refit_one(self, winner: Trial) -> Refit:
        steps, workers, name = self.config.refit_steps, self.config.workers, f"refit-{winner.draw.model}"
        training = replace(winner.config, steps=steps, validate_every=-(-steps // 3), ema_decay=ema_decay(steps))
        self.say(f"refit: {winner.name}, {steps} steps on {workers} workers")
        with self.tracker.run(name, "refit", parent=self.run, tags=self.tags) as run:
            run.params({**training.to_dict(), "workers": workers, "parameters": winner.parameters})
            folder = self.folder / name
            with Outbox(run, kept=folder, say=self.say) as outbox:
                watch = Watch(steps, outbox, say=self.say, status=lambda _: None)
                trained = Job(training, self.splits, folder, name, self.config.refit_workers, listen=watch).run()
        return Refit(winner, run, trained)

    def compare(self, refits: Sequence[Refit]) -> tuple[Comparison, dict[str, ModelVersion]]:
        """The comparison, and the present alias holders, each of which has a row named by its version's label."""
        rows = self.patch_set.photos("test")
        photos = [rows[i] for i in spread(len(rows), self.config.test_photos)]
        present = {a: v for a, v in holders(self.tracker.client, self.tracker.config.model).items() if a in ALIASES}
        denoisers: list[Denoiser] = [Untouched(), create_filter("nlm")]
        for trained, name in ((r.trained, r.name) for r in refits):
            config = trained.config
            crop = config.crop_of(self.patch_set.manifest.geometry.patch_size)
            denoisers.append(NetworkDenoiser(config.model, config.arguments, trained.weights, name=name, crop=crop))
        versions = sorted(set(present.values()), key=lambda v: int(v.version))
        denoisers.extend(load_registered(self.tracker.client, v.uri)[0] for v in versions)
        megapixels = sum((p.height or 0) * (p.width or 0) for p in photos) / 1e6
        of_all = f" of {len(rows)}" if len(photos) < len(rows) else ""
        count = f"{len(photos)}{of_all} whole test photos ({megapixels:.1f} megapixels)"
        self.say(f"compare: {len(denoisers)} denoisers on {count}")
        return compare(denoisers, photos, self.patch_set.source, progress=self.progress("compare", "photos")), present

    def register(
        self, refits: Sequence[Refit], comparison: Comparison, present: Mapping[str, ModelVersion]
    ) -> tuple[list[ModelVersion], list[Decision]]:
        """Register the refits that are best on the val split, by PSNR and by SSIM, and move the aliases they earned."""
        tracker = self.tracker
        best = {max(refits, key=lambda r: r.trained.metrics[metric]).name for metric in ("val_psnr", "val_ssim")}
        versions: list[ModelVersion] = []
        challengers: list[Scored] = []
        for refit in refits:
            if refit.name in best:
                test = comparison.row(refit.name).score
                scores = {"psnr": test.psnr, "ssim": test.ssim, "photos": len(comparison.photos)}
                card = trained_card(refit.trained, self.patch_set.manifest, {PROTOCOL: scores})
                versions.append(register(tracker, refit.run, refit.trained.weights, card))
                challengers.append(Scored(versions[-1].version, test))
        scored = {alias: Scored(v.version, comparison.row(v.label).score) for alias, v in present.items()}
        baselines = {name: comparison.row(name).score for name in BASELINES}
        decisions = decide(challengers, scored, baselines, tracker.config)
        for decision in decisions:
            if decision.moved and decision.version is not None:
                tracker.client.set_registered_model_alias(tracker.config.model, decision.alias, decision.version)
        held = {v.version: tuple(sorted(d.alias for d in decisions if d.version == v.version)) for v in versions}
        return [replace(v, aliases=held[v.version]) for v in versions], decisions

    def write_report(self, result: StudyResult) -> None:
        """Table, picture and summary, to the study's folder and to its run in MLflow."""
        best = max(result.refits, key=lambda r: result.comparison.row(r.name).score.psnr)
        table, summary = result.folder / "comparison.md", result.folder / "summary.json"
        table.write_text(result.comparison.to_markdown() + "\n")
        save_crops(result.comparison, ["nlm", best.name], result.picture)
        summary.write_bytes(json_bytes(result.to_summary()))
        for path in (table, result.picture, summary):
            self.run.file(path)
            if self.folder.remote:
                (self.folder / path.name).write_bytes(path.read_bytes())
        for row in result.comparison.rows:
            key = row.model.replace(" ", "-")
            self.run.metrics({f"test_psnr.{key}": row.score.psnr, f"test_ssim.{key}": row.score.ssim})
        for refit in result.refits:
            row = result.comparison.row(refit.name)
            refit.run.metrics({"test_psnr": row.score.psnr, "test_ssim": row.score.ssim})


def _local_folder(place: Location) -> Path:
    """Where the report is written: the study's folder, or a temporary one if that is in a bucket."""
    folder = Path(tempfile.mkdtemp(prefix="degrain-")) if place.remote else Path(place.path)
    folder.mkdir(parents=True, exist_ok=True)
    return folder
