"""The search on Ray Tune, with bodies that report made-up scores."""

import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray.tune

from degrain.tuning.config import StudyConfig
from degrain.tuning.plan import TrialPlan
from degrain.tuning.search import search
from degrain.tuning.spaces import search_space

pytestmark = pytest.mark.ray


def test_trials_share_a_process_even_if_a_stopped_one_is_slow_to_leave(
    ray_cluster: None, tmp_path: Path
) -> None:
    config = StudyConfig(models=("red10",), trials=4, steps=10)
    plan = TrialPlan(config, [search_space("red10", "small")], parallel=1)
    processes: dict[int, set[float]] = {}

    class Body:
        workers = config.fit_to(1, 0).trial_workers

        def __call__(self, arguments: dict[str, Any]) -> None:
            try:
                for progress in range(10, 101, 10):
                    score = 30.0 - arguments["trial"]["number"]
                    ray.tune.report({"progress": progress, "val_psnr": score, "step": os.getpid()})
            finally:
                # Ray Tune waits 2 s by default.
                time.sleep(3)

    observer = SimpleNamespace(
        started=lambda trial: processes.setdefault(trial.number, set()),
        reported=lambda trial, metrics: processes[trial.number].add(metrics["step"]),
        ended=lambda trial: None,
    )
    trials = search(
        plan.queue(),
        [],
        suggester=plan.suggester,
        algorithm="random",
        objective="psnr",
        body=Body(),  # type: ignore[arg-type]
        name="trials",
        parallel=1,
        observer=observer,
    )
    assert [t.status for t in trials] == ["finished", "stopped", "stopped", "stopped"]
    assert [t.error for t in trials] == [None] * 4
    assert len(set.union(*processes.values())) == 1
