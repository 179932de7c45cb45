"""One training run of `degrain train`: tracked in MLflow, its model stored."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from degrain.monitoring import TrainingGauges
from degrain.patchsets.patch_set import PatchSet
from degrain.registry.card import ModelCard
from degrain.registry.files import write_model
from degrain.registry.versions import log_model
from degrain.storage.json_file import json_bytes
from degrain.storage.location import Location
from degrain.tracking.metric_journal import MetricJournal
from degrain.tracking.provenance import versions
from degrain.tracking.runs import Run, Tracker
from degrain.training.config import TrainingConfig
from degrain.training.distributed.job import TrainingJob
from degrain.training.distributed.plan import RunPlan
from degrain.training.distributed.progress_log import ProgressLog
from degrain.training.distributed.result import TrainingResult, describe_result, model_card
from degrain.training.distributed.splits import open_splits, patch_set_tags
from degrain.training.distributed.workers import Workers


@dataclass(frozen=True)
class TrackedResult(TrainingResult):
    """A training result and its MLflow run."""

    run_id: str


@contextlib.contextmanager
def tracked(
    run: Run,
    config: TrainingConfig,
    name: str,
    folder: Location,
    *,
    log: Callable[[str], None],
    status: Callable[[str], None] = lambda _: None,
) -> Iterator[tuple[MetricJournal, ProgressLog]]:
    """What takes the events of a training to its MLflow run, to Ray's metrics and the screen.

    Metrics that could not be sent are left in `folder`.
    """
    with (
        MetricJournal(run, log=log, unsent_folder=folder) as journal,
        TrainingGauges(config.model, name) as gauges,
    ):
        yield journal, ProgressLog(config.steps, journal, gauges, log=log, status=status)


def train_run(
    plan: RunPlan,
    patch_set: PatchSet,
    workers: Workers,
    tracker: Tracker,
    *,
    keep_best: int,
    started: float,
    log: Callable[[str], None],
    status: Callable[[str], None],
) -> TrackedResult:
    """Train by `plan`, log to MLflow, and write the model below the run's folder.

    The budget counts from `started`, seconds since the epoch. `log` prints a line, `status` one
    that the next replaces. Needs a running Ray.
    """
    (config, splits), tags = open_splits(plan.config, patch_set), patch_set_tags(patch_set)
    with (
        tracker.run(plan.name, "training", tags=tags, resume=plan.run_id) as run,
        tracked(run, config, plan.name, plan.folder, log=log, status=status) as (journal, show),
    ):
        photos = plan.write(config, patch_set, run.id)
        log(f"run {plan.name}: {_described(config, workers)}, {config.batches} patches")
        run.describe(f"Training of {_described(config, workers)}.", patch_set)
        _log_settings(run, journal, config, workers, new=plan.run_id != run.id)
        result = TrainingJob(
            config,
            splits,
            plan.folder,
            plan.name,
            workers,
            start=plan.start.weights if plan.start else None,
            teacher=plan.teacher,
            keep_best=keep_best,
            started=started,
            on_event=show,
        ).run()
        if result.metrics["step"] == 0:
            log(describe_result(result))
        _store_model(run, plan, result, model_card(result, patch_set.manifest, photos))
    return TrackedResult(result.config, result.weights, result.metrics, run.id)


def _described(config: TrainingConfig, workers: Workers) -> str:
    return f"{config.model}, {config.length} on {workers.workers.describe()}"


def _log_settings(
    run: Run, journal: MetricJournal, config: TrainingConfig, workers: Workers, *, new: bool
) -> None:
    """Log configuration and versions as files, and parameters of a `new` run, which are final."""
    if new:
        run.params({**config.tracked_parameters(), "workers": str(workers.workers)})
    described = {"config.json": config.to_dict(), "versions.json": versions()}
    journal.files({name: json_bytes(content) for name, content in described.items()}, "run")


def _store_model(run: Run, plan: RunPlan, result: TrainingResult, card: ModelCard) -> None:
    """Write the model to the run's folder, if it is local, log it to MLflow, and note its score."""
    if not plan.folder.remote:
        folder = Path(plan.folder.path) / "model"
        folder.mkdir(exist_ok=True)
        write_model(folder, result.weights, card)
    log_model(run, result.weights, card)
    run.add_note(describe_result(result))
