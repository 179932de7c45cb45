"""A study: search, refit, compare, register.

    search      trials of each architecture on Ray Tune, over patches that are in memory once
    refit       the best trial of each architecture, at full length, by Ray Train DDP
    compare     untouched, NLM, the refits and the present alias holders, on the whole photos of the test split
    register    the refits that are best by PSNR and by SSIM on the val split; aliases move by the comparison

In MLflow the study is a parent run and each trial and refit its child.
"""

import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from degrain.data.catalog import CatalogRow
from degrain.data.patches import PatchSet
from degrain.data.resident import ResidentSplit, make_resident
from degrain.errors import JobFailedError, UserError
from degrain.evaluation.comparison import Comparison, compare
from degrain.evaluation.figures import save_crops
from degrain.imaging.denoiser import Denoiser, NetworkDenoiser, Untouched
from degrain.imaging.filters import NonLocalMeans
from degrain.imaging.metrics import PATCH_PROTOCOL, PROTOCOL
from degrain.storage import Location, Storage
from degrain.tracking.promotion import Decision, Scored, decide
from degrain.tracking.registry import ModelVersion, holders, load_registered, register
from degrain.tracking.runs import Run, Tracker
from degrain.training.config import TrainingConfig
from degrain.training.loop import spread
from degrain.training.session import Metrics
from degrain.training.trainer import Trained, check_resources, train_distributed, trained_card
from degrain.tuning.search import Observer, Trial, search
from degrain.tuning.space import SCALES, Scale, draw_trials, search_space

Say = Callable[[str], None]
"""Prints a line for the user."""


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
        for name in ("steps", "refit_steps", "batch_size", "workers", "validation_patches", "test_photos"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.batch_size % self.workers:
            raise ValueError(f"batch_size {self.batch_size} is not a multiple of {self.workers} workers")

    def training(self, **changes: object) -> TrainingConfig:
        """The configuration that trials and refits share, with `changes`."""
        base = TrainingConfig(
            batch_size=self.batch_size,
            crop=self.crop,
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
    parent: Run | None = None,
) -> StudyResult:
    """Run a whole study on a patch set. Needs a running Ray.

    Checkpoints, table and picture go to `folder`/<name of the study>. Raises JobFailedError if no trial succeeds.
    """
    for model in config.models:
        _check_crop(config, model, patch_set)
    check_resources(config.workers, config.gpus)
    name = time.strftime("study-%Y%m%d-%H%M%S")
    place = folder / name
    tags = {
        "patch_set": patch_set.manifest.version,
        "patch_set.uri": patch_set.uri,
        "val_protocol": PATCH_PROTOCOL,
    }
    with tracker.run(name, "study", parent=parent, tags={**tags, "test_protocol": PROTOCOL}) as run:
        run.params(asdict(config))
        train_split, val_split = make_resident(patch_set, "train"), make_resident(patch_set, "val")
        trials = _make_trials(config)
        _search(config, trials, train_split, val_split, place, tracker, run, tags, say)
        refits = _refit(config, trials, train_split, val_split, place, tracker, run, tags, say)
        comparison, present = _compare(config, refits, patch_set, storage, tracker, say)
        registered, decisions = _register(refits, comparison, present, patch_set, tracker)
        result = StudyResult(run.id, trials, refits, comparison, registered, decisions, _local_folder(place))
        _write_report(result, run)
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

    def __init__(self, trials: int, tracker: Tracker, parent: Run, tags: dict[str, str], say: Say) -> None:
        self._trials = trials
        self._tracker = tracker
        self._parent = parent
        self._tags = tags
        self._say = say
        self._runs: dict[int, Run] = {}
        self._ended = 0

    def started(self, trial: Trial) -> None:
        if trial.number not in self._runs:
            run = self._tracker.start(trial.name, "trial", parent=self._parent, tags=self._tags)
            run.params({**trial.config.to_dict(), "parameters": trial.parameters})
            self._runs[trial.number] = run

    def reported(self, trial: Trial, metrics: Metrics) -> None:
        self._runs[trial.number].metrics(metrics, step=int(metrics["step"]))

    def ended(self, trial: Trial) -> None:
        run = self._runs.get(trial.number)
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


def _search(
    config: StudyConfig,
    trials: list[Trial],
    train_split: ResidentSplit,
    val_split: ResidentSplit,
    place: Location,
    tracker: Tracker,
    run: Run,
    tags: dict[str, str],
    say: Say,
) -> None:
    say(f"search: {len(trials)} trials of {', '.join(config.models)}, {config.steps} steps each at most")
    search(
        trials,
        train_split=train_split,
        val_split=val_split,
        folder=place,
        name="trials",
        gpus_per_trial=config.gpus,
        observer=_TrialRuns(len(trials), tracker, run, tags, say),
    )
    if not any(t.best for t in trials):
        raise JobFailedError(f"all {len(trials)} trials failed; the first: {trials[0].error}")


def _refit(
    config: StudyConfig,
    trials: list[Trial],
    train_split: ResidentSplit,
    val_split: ResidentSplit,
    place: Location,
    tracker: Tracker,
    parent: Run,
    tags: dict[str, str],
    say: Say,
) -> list[Refit]:
    refits: list[Refit] = []
    for model in config.models:
        able = [t for t in trials if t.draw.model == model and t.best and t.status != "failed"]
        if not able:
            say(f"refit: {model} is left out, all its trials failed")
            continue
        winner = max(able, key=lambda t: t.best["val_psnr"])
        training = replace(
            winner.config,
            steps=config.refit_steps,
            validate_every=-(-config.refit_steps // 3),
            ema_decay=ema_decay(config.refit_steps),
        )
        say(f"refit: {winner.name}, {config.refit_steps} steps on {config.workers} workers")
        with tracker.run(f"refit-{model}", "refit", parent=parent, tags=tags) as run:
            run.params({**training.to_dict(), "workers": config.workers, "parameters": winner.parameters})
            trained = train_distributed(
                training,
                train_split=train_split,
                val_split=val_split,
                folder=place,
                name=f"refit-{model}",
                workers=config.workers,
                gpus_per_worker=config.gpus,
                on_report=_reporter(run, training, say),
            )
        refits.append(Refit(winner, run, trained))
    return refits


def _reporter(run: Run, training: TrainingConfig, say: Say) -> Callable[[Metrics], None]:
    def report(metrics: Metrics) -> None:
        run.metrics(metrics, step=int(metrics["step"]))
        say(
            f"  step {metrics['step']:.0f}/{training.steps}  loss {metrics['train_loss']:.5f}  val PSNR "
            f"{metrics['val_psnr']:.2f} dB, SSIM {metrics['val_ssim']:.3f}  "
            f"{metrics['patches_per_second']:.0f} patches/s"
        )

    return report


def _compare(
    config: StudyConfig,
    refits: Sequence[Refit],
    patch_set: PatchSet,
    storage: Storage,
    tracker: Tracker,
    say: Say,
) -> tuple[Comparison, dict[str, ModelVersion]]:
    """The comparison, and the present alias holders, each of which has a row named by its version's URI."""
    rows = patch_set.photos("test")
    photos: list[CatalogRow] = [rows[i] for i in spread(len(rows), config.test_photos)]
    present = holders(tracker.client, tracker.config.model)
    denoisers: list[Denoiser] = [Untouched(), NonLocalMeans()]
    denoisers += [
        NetworkDenoiser(r.trained.config.model, r.trained.config.arguments, r.trained.weights, name=r.name) for r in refits
    ]
    for version in sorted(set(present.values()), key=lambda v: int(v.version)):
        denoisers.append(load_registered(tracker.client, version.uri)[0])
    megapixels = sum((p.height or 0) * (p.width or 0) for p in photos) / 1e6
    of_all = f" of {len(rows)}" if len(photos) < len(rows) else ""
    say(f"compare: {len(denoisers)} denoisers on {len(photos)}{of_all} whole test photos ({megapixels:.1f} megapixels)")
    return compare(denoisers, photos, storage), present


def _register(
    refits: Sequence[Refit],
    comparison: Comparison,
    present: dict[str, ModelVersion],
    patch_set: PatchSet,
    tracker: Tracker,
) -> tuple[list[ModelVersion], list[Decision]]:
    """Register the refits that are best by PSNR and by SSIM on the val split, and move the aliases they earned."""
    best = {max(refits, key=lambda r: r.trained.metrics[metric]).name for metric in ("val_psnr", "val_ssim")}
    versions: dict[str, ModelVersion] = {}
    challengers: list[Scored] = []
    for refit in refits:
        if refit.name in best:
            test = comparison.row(refit.name).score
            scores = {"psnr": test.psnr, "ssim": test.ssim, "photos": len(comparison.photos)}
            card = trained_card(refit.trained, patch_set.manifest.version, {PROTOCOL: scores})
            versions[refit.name] = register(tracker, refit.run, refit.trained.weights, card)
            challengers.append(Scored(versions[refit.name].version, test))
    scored = {alias: Scored(v.version, comparison.row(v.label).score) for alias, v in present.items()}
    baselines = {name: comparison.row(name).score for name in ("untouched", "nlm")}
    decisions = decide(challengers, scored, baselines, tracker.config)
    for decision in decisions:
        if decision.moved and decision.version is not None:
            tracker.client.set_registered_model_alias(tracker.config.model, decision.alias, decision.version)
    held = {
        version: tuple(sorted(d.alias for d in decisions if d.version == version))
        for version in (v.version for v in versions.values())
    }
    return [replace(v, aliases=held[v.version]) for v in versions.values()], decisions


def _local_folder(place: Location) -> Path:
    """Where the report is written: the study's folder, or a temporary one if that is in a bucket."""
    folder = Path(tempfile.mkdtemp(prefix="degrain-")) if place.remote else Path(place.path)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _write_report(result: StudyResult, run: Run) -> None:
    """Table, picture and summary, to the study's folder and to its run in MLflow."""
    best = max(result.refits, key=lambda r: result.comparison.row(r.name).score.psnr)
    table = result.folder / "comparison.md"
    table.write_text(result.comparison.to_markdown() + "\n")
    save_crops(result.comparison, ["nlm", best.name], result.picture)
    summary = result.folder / "summary.json"
    summary.write_text(json.dumps(result.to_summary(), indent=1))
    for path in (table, result.picture, summary):
        run.file(path)
    for row in result.comparison.rows:
        key = row.model.replace(" ", "-")
        run.metrics({f"test_psnr.{key}": row.score.psnr, f"test_ssim.{key}": row.score.ssim})
    for refit in result.refits:
        row = result.comparison.row(refit.name)
        refit.run.metrics({"test_psnr": row.score.psnr, "test_ssim": row.score.ssim}, step=0)
