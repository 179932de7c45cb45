"""A study of a thousand trials, with training replaced by stored curves and pauses.

    python tests/benchmarks/run.py study
    python tests/benchmarks/study.py 200 16 1.5      # trials, trials at a time, seconds

Search, early stopping, Ray Tune, MLflow (a server on SQLite) and the study's state file are real. A
trial reports the curve of one of the recorded trainings (`search_trainings.json`), with a pause of
so many seconds before each of its ten validations.

Overhead is the wall time of the search over the shortest time in which the same pauses fit, in the
order of the trials, into as many places as run at a time, minus one.
"""

import heapq
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[2] / name) for name in ("platform", "models")]

import psutil  # noqa: E402
import ray.tune  # noqa: E402
from local_ray import start_local_ray  # noqa: E402
from mlflow_server import mlflow_server  # noqa: E402
from table import Settings, Table, progress  # noqa: E402

from degrain.patchsets.catalog import write_catalog  # noqa: E402
from degrain.patchsets.check_rules import CheckRules  # noqa: E402
from degrain.patchsets.geometry import PatchGeometry  # noqa: E402
from degrain.patchsets.ingest.publish import publish  # noqa: E402
from degrain.patchsets.manifest import Manifest, Shard, cutter  # noqa: E402
from degrain.patchsets.patch_set import PatchSet  # noqa: E402
from degrain.storage.location import Location, Storage  # noqa: E402
from degrain.storage.sealed import FileDigest  # noqa: E402
from degrain.tracking.config import TrackingConfig  # noqa: E402
from degrain.tracking.runs import Tracker  # noqa: E402
from degrain.training.distributed.workers import Workers  # noqa: E402
from degrain.tuning.config import StudyConfig  # noqa: E402
from degrain.tuning.search import (  # noqa: E402
    TrialPlan,
    search,
    spaces_of,
)
from degrain.tuning.state import StudyState  # noqa: E402
from degrain.tuning.trial import Task, Trial  # noqa: E402
from degrain.tuning.trial_runs import TrialRuns  # noqa: E402

TRIALS, PARALLEL, SECONDS = 1000, 16, 2.0
MODELS = ("fast16", "mwcnn", "nafnet16", "red10")
CURVES = Path(__file__).with_name("search_trainings.json")


@dataclass(frozen=True)
class Replay:
    """The body of a trial: it reports a stored curve, with a pause before each validation."""

    curves: Sequence[Sequence[float]]
    seconds: float
    workers: Workers
    groups = None

    def __call__(self, arguments: dict[str, Any]) -> None:
        """Report the curve of the trial."""
        number = Task.of(arguments).number
        curve = random.Random(number).choice(self.curves)
        for place, score in enumerate(curve):
            time.sleep(self.seconds)
            ray.tune.report(
                {
                    "step": 100 * (place + 1),
                    "progress": 100 * (place + 1) / len(curve),
                    "train_loss": 0.01,
                    "val_psnr": score,
                    "val_ssim": 0.8,
                    "learning_rate": 1e-3,
                    "patches_per_second": 1000.0,
                    "data_wait_share": 0.01,
                }
            )


class Timed(TrialRuns):
    """Logs trials, and adds up the seconds for which Ray Tune's events wait for that."""

    seconds = 0.0
    first: float | None = None
    """When the first trial reported."""

    def started(self, trial: Trial) -> None:
        """See TrialRuns."""
        began = time.perf_counter()
        super().started(trial)
        self.seconds += time.perf_counter() - began

    def reported(self, trial: Trial, metrics: Any) -> None:  # noqa: ANN401
        """See TrialRuns."""
        began = time.perf_counter()
        self.first = self.first or began
        super().reported(trial, metrics)
        self.seconds += time.perf_counter() - began

    def ended(self, trial: Trial) -> None:
        """See TrialRuns."""
        began = time.perf_counter()
        super().ended(trial)
        self.seconds += time.perf_counter() - began


def ideal(pauses: Sequence[float], places: int) -> float:
    """Seconds of a schedule that starts each trial, in order, at the first place that is free."""
    free = [0.0] * places
    for pause in pauses:
        heapq.heappush(free, heapq.heappop(free) + pause)
    return max(free)


def make_patch_set(root: Location) -> PatchSet:
    """A patch set of which nothing but its manifest is read."""
    shards = [
        Shard(key=split, split=split, patches=10_000, bits=8, bytes=10**9)
        for split in ("train", "val", "test")
    ]
    catalog = write_catalog([])
    manifest = Manifest(
        version="scale",
        cutter=cutter(),
        geometry=PatchGeometry(),
        rules=CheckRules(),
        corpora=[["pairs", "/none"]],
        shards=shards,
        catalog=FileDigest.of(catalog),
        pairs=3,
        refused=0,
        covered=1.0,
        overlap=1.0,
    )
    return publish(root, manifest, catalog)[0]


def measure(trials: int, parallel: int, seconds: float, folder: Path) -> dict[str, float]:
    """Run the study's search; returns its times."""
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    start_local_ray(cpus=parallel)
    storage = Storage()
    patch_set = make_patch_set(storage.locate(folder / "patches"))
    curves = [row["curve"] for row in json.loads(CURVES.read_text()) if len(row["curve"]) == 10]
    config = StudyConfig(models=MODELS, trials=trials, steps=1000).fit_to(parallel, 0)
    with mlflow_server(folder, f"sqlite:///{folder}/mlflow.db") as url:
        tracker = Tracker.open(TrackingConfig(tracking_uri=url), storage)
        with tracker.run("study", "study") as run:
            state = StudyState(storage.locate(folder / "study"), config, patch_set.uri, run.id)
            spaces = spaces_of(config, patch_set.manifest)
            plan = TrialPlan(config, spaces, config.trial_length(parallel))
            process, began = psutil.Process(), time.perf_counter()
            before = process.cpu_times()
            with Timed(trials, tracker, run, patch_set, {}, lambda _: None, state) as runs:
                ended = search(
                    plan.queue(),
                    [],
                    suggester=plan.suggester,
                    algorithm=config.search,
                    objective=config.objective,
                    body=Replay(curves, seconds, config.trial_workers),  # type: ignore[arg-type]
                    name="trials",
                    parallel=parallel,
                    observer=runs,
                )
            wall, after = time.perf_counter() - began, process.cpu_times()
    assert len(ended) == trials, len(ended)
    assert all(trial.status in ("finished", "stopped") for trial in ended)
    shortest = ideal([seconds * len(trial.curve) for trial in ended], parallel)
    start = (runs.first or 0) - began - seconds
    return {
        "trials": trials,
        "stopped": sum(trial.status == "stopped" for trial in ended),
        "validations": sum(len(trial.curve) for trial in ended),
        "wall": wall,
        "ideal": shortest,
        "overhead": wall / shortest - 1,
        "start": start,
        "logging": runs.seconds,
        "cpu": after.user + after.system - before.user - before.system,
        "rss_mib": process.memory_info().rss / 2**20,
        "state_bytes": (folder / "study" / "study.json").stat().st_size,
        "database_bytes": (folder / "mlflow.db").stat().st_size,
    }


def run(settings: Settings) -> list[Table]:
    """Overhead of the driver."""
    arguments = (12, 2, 0.5) if settings.quick else (TRIALS, PARALLEL, SECONDS)
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, __file__, *map(str, arguments), folder],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    return [summary(json.loads(done.stdout.splitlines()[-1]))]


def summary(found: dict[str, float]) -> Table:
    """The result as a table."""
    rows = [
        ("trials", f"{found['trials']:.0f}"),
        ("of these stopped early", f"{found['stopped']:.0f}"),
        ("validations", f"{found['validations']:.0f}"),
        ("wall time, s", f"{found['wall']:.0f}"),
        ("shortest schedule of the pauses, s", f"{found['ideal']:.0f}"),
        ("overhead", f"{found['overhead']:.1%}"),
        ("start of the first trial, s", f"{found['start']:.1f}"),
        ("wait of Ray Tune's events for the logging, s", f"{found['logging']:.0f}"),
        ("CPU of the driver, s", f"{found['cpu']:.0f}"),
        ("memory of the driver, MiB", f"{found['rss_mib']:.0f}"),
        ("state file, bytes a trial", f"{found['state_bytes'] / found['trials']:.0f}"),
        ("SQLite, bytes a trial", f"{found['database_bytes'] / found['trials']:.0f}"),
    ]
    return Table(("study", "measured"), rows)


if __name__ == "__main__":
    trials, parallel, pause = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(sys.argv[4] if len(sys.argv) > 4 else temporary)
        result = measure(trials, parallel, pause, place)
    progress(str(result))
    print(json.dumps(result))
