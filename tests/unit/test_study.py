"""A study ends with an error if no trial can be refitted."""

from typing import Any

import pytest

from degrain.errors import JobFailedError
from degrain.inference.config import STARTER
from degrain.storage.location import Storage
from degrain.tracking.registry import load_model
from degrain.tuning import study
from degrain.tuning.config import StudyConfig


def test_trials_that_failed_after_a_validation_are_not_refitted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail_after_validation(trials: list[study.Trial], **_: object) -> None:
        for trial in trials:
            trial.best = {"val_psnr": 20.0}
            trial.status, trial.error = "failed", "diverged"

    monkeypatch.setattr(study, "search", fail_after_validation)
    monkeypatch.setattr(study, "parallel_trials", lambda _: 1)
    unused: Any = None
    running = study._Study(
        config=StudyConfig(models=("red10",), trials=2).fit_to(2, 0),
        patch_set=unused,
        starter=load_model(STARTER, None, Storage())[0],
        tracker=unused,
        run=unused,
        tags={},
        folder=unused,
        splits=unused,
        log=lambda _: None,
        progress=lambda _label, _unit: lambda _done, _total: None,
    )
    with pytest.raises(JobFailedError, match="all 2 trials failed, the first with: diverged"):
        running.search()
