"""The search on Ray Tune, with bodies that report made-up scores."""

import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray.tune

from degrain.tuning.config import Objective, StudyConfig
from degrain.tuning.search import TrialPlan, search
from degrain.tuning.space import search_space
from degrain.tuning.trial import Failed, Task, Trial, to_report

pytestmark = pytest.mark.ray


CONFIG = StudyConfig(models=("red10",), trials=4, steps=10)


def searched(
    plan: TrialPlan,
    body: Any,  # noqa: ANN401 - what the search uses of a TrialBody
    objective: Objective = "psnr",
    **observe: Callable[..., Any],
) -> list[Trial]:
    """The trials of a search, one at a time."""
    silent = dict.fromkeys(("started", "reported", "ended"), lambda *_: None)
    return search(
        plan.queue(),
        [],
        suggester=plan.suggester,
        algorithm="random",
        objective=objective,
        body=body,
        name="trials",
        parallel=1,
        observer=SimpleNamespace(**{**silent, **observe}),
    )


def planned(trials: int) -> TrialPlan:
    config = replace(CONFIG, trials=trials)
    return TrialPlan(config, [search_space("red10", "small")], config.trial_length(1))


def test_trials_share_a_process_even_if_a_stopped_one_is_slow_to_leave(
    ray_cluster: None,
) -> None:
    plan = planned(4)
    processes: dict[int, set[float]] = {}

    class Body:
        workers, groups = CONFIG.fit_to(1, 0).trial_workers, None

        def __call__(self, arguments: dict[str, Any]) -> None:
            try:
                for progress in range(10, 101, 10):
                    score = 30.0 - Task.of(arguments).number
                    ray.tune.report({"progress": progress, "val_psnr": score, "step": os.getpid()})
            finally:
                # Ray Tune waits 2 s by default.
                time.sleep(3)

    trials = searched(
        plan,
        Body(),
        started=lambda trial: processes.setdefault(trial.number, set()),
        reported=lambda trial, metrics: processes[trial.number].add(metrics["step"]),
    )
    assert [t.status for t in trials] == ["finished", "stopped", "stopped", "stopped"]
    assert [t.error for t in trials] == [None] * 4
    assert len(set.union(*processes.values())) == 1


def test_a_lost_trial_goes_on_and_one_that_fails_does_not(
    ray_cluster: None, tmp_path: Path
) -> None:
    class Body:
        workers, groups = CONFIG.fit_to(1, 0).trial_workers, None

        def __call__(self, arguments: dict[str, Any]) -> None:
            number = Task.of(arguments).number
            attempts = tmp_path / str(number)
            with attempts.open("a") as file:
                file.write("x")
            ray.tune.report({"progress": 50, "val_psnr": 30.0, "val_ssim": 0.9, "step": 5})
            if number == 0 and attempts.read_text() == "x":
                os.kill(os.getpid(), signal.SIGKILL)
            if number == 1:
                ray.tune.report(to_report(Failed("training diverged")))
                return
            ray.tune.report({"progress": 100, "val_psnr": 31.0, "val_ssim": 0.8, "step": 10})

    first, second = searched(planned(2), Body())
    assert (first.status, first.error, first.curve) == ("finished", None, [(50, 30), (100, 31)])
    assert (tmp_path / "0").read_text() == "xx"
    assert (second.status, second.error) == ("failed", "training diverged")
    assert (tmp_path / "1").read_text() == "x"


def test_the_best_validation_is_that_of_the_objective(ray_cluster: None) -> None:
    class Body:
        workers, groups = CONFIG.fit_to(1, 0).trial_workers, None

        def __call__(self, arguments: dict[str, Any]) -> None:
            for step, (psnr, ssim) in enumerate(((30.0, 0.9), (31.0, 0.8)), start=1):
                scores = {"val_psnr": psnr, "val_ssim": ssim}
                ray.tune.report({"progress": 50 * step, "step": step, **scores})

    for objective, step, curve in (("psnr", 2, [30, 31]), ("ssim", 1, [0.9, 0.8])):
        (trial,) = searched(planned(1), Body(), objective)
        assert trial.best["step"] == step
        assert [score for _, score in trial.curve] == curve
