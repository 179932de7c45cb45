"""Logs the trials of a study to MLflow, to Ray's metrics and the screen.

Calls to MLflow take milliseconds to minutes, and Ray Tune's events wait for this observer. A
background thread makes them, in the order of the events. It also writes the state file, after the
calls of the same event, so that a killed study resumes every trial that MLflow does not have whole.
"""

import contextlib
import copy
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Self

from mlflow.entities import Metric

from degrain.errors import JobFailedError
from degrain.monitoring import TrainingGauges, record_trial
from degrain.patchsets.patch_set import PatchSet
from degrain.tracking.call_queue import CallQueue
from degrain.tracking.runs import Run, Tracker, stamped
from degrain.training.session import Metrics
from degrain.tuning.sampler import OUTCOME_TAG, EarlierTrial
from degrain.tuning.state import StudyState
from degrain.tuning.trial import ENDED, Trial


@dataclass
class _OpenTrial:
    """A trial that has started."""

    gauges: TrainingGauges
    started: float
    """Reading of the monotonic clock, seconds."""
    progress: float = 0.0
    """Percentage of the trial that is done."""
    run: Run | None = None
    """Set by the background thread."""


class TrialRuns:
    """Logs each trial to a run in MLflow and to a line on the screen.

    The context manager waits at its end until MLflow has everything. If the search was interrupted,
    it marks the open runs as killed. The methods raise the error of an earlier call to MLflow.
    """

    def __init__(
        self,
        trials: int,
        tracker: Tracker,
        parent: Run,
        patch_set: PatchSet,
        tags: Mapping[str, str],
        log: Callable[[str], None],
        state: StudyState,
    ) -> None:
        self._trials = trials
        self._tracker = tracker
        self._parent = parent
        self._patch_set = patch_set
        self._tags = tags
        self._log = log
        self._state = state
        self._calls = CallQueue()
        self._open: dict[int, _OpenTrial] = {}
        """Trials that run, by number."""
        self._ended = sum(trial.status in ENDED for trial in state.trials.values())

    def __enter__(self) -> Self:
        self._calls.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self._calls.__exit__(kind, *rest)
        for found in self._open.values():
            if found.run is not None:
                # The error of the search matters more than the failure to set the status.
                with contextlib.suppress(JobFailedError):
                    found.run.finish("KILLED", "The study was interrupted.")

    def started(self, trial: Trial) -> None:
        """Start the run of a trial."""
        if trial.number not in self._open:
            gauges = TrainingGauges(trial.draw.model, trial.name)
            self._open[trial.number] = _OpenTrial(gauges, time.monotonic())
            call = self._start_run
        else:
            call = self._record
        self._calls.add(partial(call, self._open[trial.number], copy.deepcopy(trial)))

    def reported(self, trial: Trial, metrics: Metrics) -> None:
        """Log the metrics of a validation."""
        found = self._open[trial.number]
        found.progress = metrics["progress"]
        found.gauges.set(metrics)
        seconds = {"seconds": time.monotonic() - found.started}
        timed = stamped({**seconds, **metrics}, step=int(metrics["step"]))
        self._calls.add(partial(self._log_metrics, found, copy.deepcopy(trial), timed))

    def ended(self, trial: Trial) -> None:
        """Finish the run, and print the outcome."""
        found = self._open.pop(trial.number, None)
        if found is not None:
            found.gauges.end()
        record_trial(trial.draw.model, trial.status)
        self._calls.add(partial(self._end_run, found, copy.deepcopy(trial)))
        self._ended += 1
        self._log(f"  trial {self._ended}/{self._trials}  {_outcome_line(trial)}")

    # What follows runs in the background thread, on copies of the trials.

    def _start_run(self, found: _OpenTrial, trial: Trial) -> None:
        """Start the run of a trial, or reopen that of one that was interrupted."""
        reopened = self._tracker.reopen(trial.run_id) if trial.run_id else None
        found.run = reopened or self._tracker.start(
            trial.name, "trial", parent=self._parent, tags=self._tags
        )
        self._record(found, trial)
        if reopened is None or not reopened.has_params():
            found.run.params({**trial.config.tracked_parameters(), "parameters": trial.parameters})
        note = f"One of {self._trials} trials: {describe_trial(trial)}."
        found.run.describe(note, self._patch_set)

    def _log_metrics(self, found: _OpenTrial, trial: Trial, metrics: Sequence[Metric]) -> None:
        assert found.run is not None
        found.run.log(metrics)
        self._record(found, trial)

    def _end_run(self, found: _OpenTrial | None, trial: Trial) -> None:
        if found is not None:
            assert found.run is not None
            tags: dict[str, object] = {"status": trial.status}
            if trial.error:
                tags["error"] = trial.error
            if trial.halved:
                tags["batch_size_after_out_of_memory"] = trial.config.batch_size
            tags[OUTCOME_TAG] = json.dumps(EarlierTrial.of(trial).to_dict())
            found.run.tags(tags)
            status = "FAILED" if trial.status == "failed" else "FINISHED"
            found.run.finish(status, _ending(trial, found.progress))
        self._record(found, trial)

    def _record(self, found: _OpenTrial | None, trial: Trial) -> None:
        if found is not None and found.run is not None:
            trial.run_id = found.run.id
        self._state.record(trial)


def describe_trial(trial: Trial) -> str:
    """The network of a trial and its searched values, as a list."""
    arguments = [f"{name} {value}" for name, value in trial.draw.arguments.items()]
    config = trial.config
    rate = f"learning rate {config.learning_rate:g}"
    return ", ".join([trial.draw.model, *arguments, config.loss, rate])


def _outcome_line(trial: Trial) -> str:
    """A trial's configuration and outcome, for the screen."""
    network = " ".join([trial.draw.model, *(f"{k} {v}" for k, v in trial.draw.arguments.items())])
    description = f"{network}, {trial.config.loss}, lr {trial.config.learning_rate:g}"
    if trial.status == "failed":
        outcome = f"failed: {trial.error}"
    else:
        outcome = f"val PSNR {trial.best['val_psnr']:.2f} dB, SSIM {trial.best['val_ssim']:.3f}"
        if trial.status == "stopped":
            outcome += f"  (stopped at step {trial.best['step']:.0f})"
    return f"{description:<46}  {outcome}"


def _ending(trial: Trial, progress: float) -> str:
    """One sentence on how the trial ended, after `progress` percent of it."""
    if trial.status == "failed":
        return f"It failed: {trial.error}"
    changed = "".join(
        f" At {each['progress']:.0f}% it went on from trial {each['number']:.0f}, with the "
        f"learning rate times {each['factor']:g}."
        for each in trial.inherited
    )
    score = f"{trial.best['val_psnr']:.2f} dB on the val split"
    if trial.status == "stopped":
        return f"It was stopped early, after {progress:.0f}% of its length, at {score}."
    return f"It finished at {score}.{changed}"
