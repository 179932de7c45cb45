"""A study ends with an error if no trial can be refitted."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from degrain.errors import JobFailedError
from degrain.inference.config import STARTER
from degrain.registry.resolver import Resolver
from degrain.storage.location import Storage
from degrain.tuning import study
from degrain.tuning.config import StudyConfig
from degrain.tuning.space import search_space
from degrain.tuning.starts import StartingModel, Starts
from degrain.tuning.state import StudyState
from degrain.tuning.trial import Trial


def test_trials_that_failed_after_a_validation_are_not_refitted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail_after_validation(queue: Iterator[Trial], *_: object, **__: object) -> list[Trial]:
        trials = list(queue)
        for trial in trials:
            trial.best = {"val_psnr": 20.0}
            trial.status, trial.error = "failed", "diverged"
        return trials

    monkeypatch.setattr(study, "search", fail_after_validation)
    monkeypatch.setattr(study, "parallel_trials", lambda _: 1)
    config = StudyConfig(models=("red10",), trials=2).fit_to(2, 0)
    spaces = [search_space("red10", "small")]
    monkeypatch.setattr(study, "spaces_of", lambda *_: spaces)
    unused: Any = SimpleNamespace(manifest=None)
    state = StudyState(Storage().locate("unused"), config, data="unused", run_id="unused")
    running = study._Study(
        config=config,
        patch_set=unused,
        starts=Starts(StartingModel(STARTER, *Resolver(None, Storage()).load(STARTER))),
        tracker=unused,
        run=unused,
        tags={},
        state=state,
        splits=unused,
        log=lambda _: None,
        progress=lambda _label, _unit: lambda _done, _total: None,
    )
    with pytest.raises(JobFailedError, match="all 2 trials failed, the first with: diverged"):
        running.search()
