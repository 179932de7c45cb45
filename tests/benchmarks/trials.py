"""Trials per hour of a search, against the pattern of Ray's documentation.

The guide "Hyperparameter Tuning with Ray Tune" of Ray Train starts a TorchTrainer in each trial of
Ray Tune. A trial of degrain trains in the trial's own process. Both train the same tiny network by
the same loop on the same patches, at different learning rates, validate it once and write a
checkpoint. Degrain's search also logs each trial to MLflow. Each search has a Ray of its own, which
is running before the time is measured.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.torch
import ray.tune
import torch
from local_ray import start_local_ray
from ray.tune.integration.ray_train import TuneReportCallback
from table import Settings, Table, progress
from training import make_patch_set

from degrain.loading.patches import Block, ResidentPatches
from degrain.patchsets.patch_set import PatchSet
from degrain.storage.location import Storage
from degrain.tracking.config import TrackingConfig
from degrain.tracking.runs import Tracker
from degrain.training.checkpoint import Snapshot
from degrain.training.config import TrainingConfig
from degrain.training.distributed.splits import open_splits
from degrain.training.loop import train
from degrain.training.session import LocalSession, Metrics
from degrain.tuning.config import FittedStudy, StudyConfig
from degrain.tuning.search import TrialPlan, search, spaces_of, trial_body
from degrain.tuning.space import SpaceChanges
from degrain.tuning.state import StudyState
from degrain.tuning.trial import Trial
from degrain.tuning.trial_runs import TrialRuns

PARALLEL, TRIALS, TURNS = 2, 12, 2
MODEL, STEPS = "fast16", 20
LOWEST_RATE, HIGHEST_RATE = 1e-3, 4e-3
SPACE = {
    "width": 8,
    "depth": 1,
    "loss": "psnr",
    "learning_rate": {"log_uniform": [LOWEST_RATE, HIGHEST_RATE]},
}
STUDY = StudyConfig(
    models=(MODEL,),
    trials=TRIALS,
    steps=STEPS,
    batch_size=4,
    crop=32,
    balance=0,
    validation_patches=8,
    spaces=SpaceChanges({MODEL: SPACE}),
).fit_to(PARALLEL, 0)


def planned(study: FittedStudy, patch_set: PatchSet) -> tuple[TrialPlan, Iterator[Trial]]:
    """A study's plan and its trials, which are validated once, at their end.

    Early stopping would otherwise end some of them, which Ray's pattern would train to the end.
    """
    plan = TrialPlan(study, spaces_of(study, patch_set.manifest), study.trial_length(PARALLEL))

    def trials() -> Iterator[Trial]:
        for trial in plan.queue():
            trial.config = replace(trial.config, validate_every=STEPS)
            yield trial

    return plan, trials()


def by_degrain(patch_set: PatchSet, trials: int, folder: Path) -> float:
    """Seconds of the search of `degrain tune`."""
    start_ray(cpus=PARALLEL)
    storage, study = Storage(), replace(STUDY, trials=trials)
    tracker = Tracker.open(
        TrackingConfig(tracking_uri=f"sqlite:///{folder}/mlflow.db", artifacts=str(folder)), storage
    )
    with tracker.run("study", "study") as run:
        state = StudyState(storage.locate(folder) / "study", study, patch_set.uri, run.id)
        plan, queue = planned(study, patch_set)
        began = time.perf_counter()
        _, splits = open_splits(study.training(), patch_set)
        with TrialRuns(trials, tracker, run, patch_set, {}, lambda _: None, state) as runs:
            ended = search(
                queue,
                [],
                suggester=plan.suggester,
                algorithm=study.search,
                objective=study.objective,
                body=trial_body(study, splits, {}, state.folder),
                name="trials",
                parallel=PARALLEL,
                observer=runs,
            )
        seconds = time.perf_counter() - began
    assert [trial.status for trial in ended] == ["finished"] * trials
    return seconds


def by_ray(patch_set: PatchSet, trials: int, folder: Path) -> float:
    """Seconds of a search in the pattern of Ray's documentation."""
    # Ray's pattern takes a CPU for a trial's driver and one for its worker. With two CPUs it would
    # run one trial at a time.
    start_ray(cpus=2 * PARALLEL)
    _, queue = planned(STUDY, patch_set)
    training = next(queue).config.to_dict()
    rate = ray.tune.loguniform(LOWEST_RATE, HIGHEST_RATE)
    tuner = ray.tune.Tuner(
        train_driver_fn,
        param_space={
            "storage_path": str(folder),
            "train_loop_config": {
                "patches": patch_set.uri,
                "training": {**training, "learning_rate": rate},
            },
        },
        tune_config=ray.tune.TuneConfig(
            metric="val_psnr", mode="max", num_samples=trials, max_concurrent_trials=PARALLEL
        ),
        run_config=ray.tune.RunConfig(name="search", storage_path=str(folder), verbose=0),
    )
    began = time.perf_counter()
    results = tuner.fit()
    seconds = time.perf_counter() - began
    assert results.num_errors == 0, results.errors
    assert [result.metrics["step"] for result in results] == [STEPS] * trials
    return seconds


def train_driver_fn(config: dict[str, Any]) -> None:
    """The body of a Tune trial: starts Ray Train."""
    ray.train.torch.TorchTrainer(
        train_fn_per_worker,
        train_loop_config=config["train_loop_config"],
        scaling_config=ray.train.ScalingConfig(num_workers=1),
        run_config=ray.train.RunConfig(
            name=f"train-trial_id={ray.tune.get_context().get_trial_id()}",
            storage_path=config["storage_path"],
            callbacks=[TuneReportCallback()],
        ),
    ).fit()


class ReportingSession(LocalSession):
    """A session that reports to Ray Train, as its documentation shows."""

    def report(
        self,
        metrics: Metrics,
        snapshot: Callable[[], Snapshot],
        samples: Callable[[], bytes],
    ) -> None:
        """Report the metrics with a checkpoint."""
        with tempfile.TemporaryDirectory() as folder:
            torch.save(snapshot(), Path(folder, "checkpoint.pt"))
            checkpoint = ray.train.Checkpoint.from_directory(folder)
            ray.train.report(dict(metrics), checkpoint=checkpoint)


def train_fn_per_worker(train_loop_config: dict[str, Any]) -> None:
    """The body of the worker of a trial."""
    patch_set = PatchSet.open(train_loop_config["patches"], Storage())
    train(
        TrainingConfig(**train_loop_config["training"]),
        ReportingSession(read_split(patch_set, "train"), read_split(patch_set, "val")),
    )


def read_split(patch_set: PatchSet, split: str) -> ResidentPatches:
    """Read a split into this process."""
    blocks: list[Block] = [patch_set.read_shard(shard) for shard in patch_set.shards(split)]
    return ResidentPatches(blocks)


def alone(patch_set: PatchSet, trials: int, folder: Path) -> float:
    """Seconds of one training in this process, without Ray, after another that warms up."""
    _, queue = planned(STUDY, patch_set)
    config = next(queue).config
    train_patches, val_patches = read_split(patch_set, "train"), read_split(patch_set, "val")
    for _ in range(2):
        began = time.perf_counter()
        train(config, LocalSession(train_patches, val_patches))
    return time.perf_counter() - began


def start_ray(*, cpus: int) -> None:
    """Start Ray without Tune's own tables."""
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    start_local_ray(cpus=cpus)


WAYS: dict[str, Callable[[PatchSet, int, Path], float]] = {
    "degrain": by_degrain,
    "ray": by_ray,
    "alone": alone,
}


def measure(way: str, patches: Path, trials: int) -> float:
    """Seconds of one way, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, __file__, way, str(patches), str(trials)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=folder,
        )
        done.check_returncode()
        return float(json.loads(done.stdout.splitlines()[-1]))


def run(settings: Settings) -> list[Table]:
    """Trials per hour of both ways, in turns."""
    os.environ["OMP_NUM_THREADS"] = "1"
    trials, turns = (2, 1) if settings.quick else (TRIALS, TURNS)
    per_hour: dict[str, list[float]] = {"degrain": [], "ray": []}
    with tempfile.TemporaryDirectory() as temporary:
        patches = make_patch_set(Path(temporary))
        training_seconds = measure("alone", patches, 1)
        for _ in range(turns):
            for way, found in per_hour.items():
                found.append(3600 * trials / measure(way, patches, trials))
                progress(f"{way}: {found[-1]:.0f} trials per hour")
    degrain, documented = (statistics.median(found) for found in per_hour.values())
    return [
        Table(
            (f"{trials} trials, {PARALLEL} at a time", "trials per hour", "degrain is faster by"),
            [
                ("degrain, a trial trains in its own process, MLflow", f"{degrain:.0f}", ""),
                (
                    "Ray's documentation, a TorchTrainer of one worker in each trial",
                    f"{documented:.0f}",
                    f"{degrain / documented:.1f}",
                ),
            ],
            f"{MODEL} of width {SPACE['width']}, {STEPS} steps of {STUDY.batch_size} crops of "
            f"{STUDY.crop}, one validation. The training alone, in a running process, takes "
            f"{training_seconds:.2f} s.",
        )
    ]


if __name__ == "__main__":
    way, patches, trials = sys.argv[1:]
    seconds = WAYS[way](PatchSet.open(patches, Storage()), int(trials), Path.cwd())
    print(json.dumps(seconds))
