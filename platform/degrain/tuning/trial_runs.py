"""Logs the trials of a study to MLflow, to Ray's metrics and the screen."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from degrain.interrupts import defer_interrupts
from degrain.monitoring import TrainingGauges, record_trial
from degrain.patchsets.patch_set import PatchSet
from degrain.tracking.runs import Run, Tracker
from degrain.training.session import Metrics
from degrain.tuning.earlier import OUTCOME_TAG, EarlierTrial
from degrain.tuning.state import StudyState
from degrain.tuning.trial import ENDED, Trial


@dataclass
class _OpenRun:
    """The run of a trial that has started, and its progress."""

    run: Run
    gauges: TrainingGauges
    started: float
    """Reading of the monotonic clock, seconds."""
    progress: float = 0.0
    """Percentage of the trial that is done."""


class TrialRuns:
    """Logs each trial to a run in MLflow and to a line on the screen."""

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
        self._runs: dict[int, _OpenRun] = {}
        """Open runs by trial number."""
        self._ended = sum(trial.status in ENDED for trial in state.trials.values())

    def started(self, trial: Trial) -> None:
        """Start the run of a trial."""
        if trial.number not in self._runs:
            with defer_interrupts():
                run = self._open(trial)
                gauges = TrainingGauges(trial.draw.model, trial.name)
                self._runs[trial.number] = _OpenRun(run, gauges, time.monotonic())
            if run.id != trial.run_id:
                run.params({**trial.config.tracked_parameters(), "parameters": trial.parameters})
            note = f"One of {self._trials} trials: {describe_trial(trial)}."
            run.describe(note, self._patch_set)
            trial.run_id = run.id
        self._state.record(trial)

    def _open(self, trial: Trial) -> Run:
        """Reopen the run of a trial that was interrupted, or start one."""
        reopened = self._tracker.reopen(trial.run_id) if trial.run_id else None
        return reopened or self._tracker.start(
            trial.name, "trial", parent=self._parent, tags=self._tags
        )

    def reported(self, trial: Trial, metrics: Metrics) -> None:
        """Log the metrics of a validation."""
        found = self._runs[trial.number]
        found.progress = metrics["progress"]
        found.gauges.set(metrics)
        seconds = {"seconds": time.monotonic() - found.started}
        found.run.metrics({**seconds, **metrics}, step=int(metrics["step"]))
        self._state.record(trial)

    def ended(self, trial: Trial) -> None:
        """Finish the run, and print the outcome."""
        found = self._runs.pop(trial.number, None)
        if found is not None:
            run = found.run
            if trial.halved:
                run.tags({"batch_size_after_out_of_memory": trial.config.batch_size})
            run.tags({"status": trial.status, **({"error": trial.error} if trial.error else {})})
            run.tags({OUTCOME_TAG: json.dumps(EarlierTrial.of(trial).to_dict())})
            status = "FAILED" if trial.status == "failed" else "FINISHED"
            run.finish(status, _ending(trial, found.progress))
            found.gauges.end()
        record_trial(trial.draw.model, trial.status)
        self._state.record(trial)
        self._ended += 1
        arguments = " ".join(f"{k} {v}" for k, v in trial.draw.arguments.items())
        description = (
            f"{trial.draw.model} {arguments}, {trial.config.loss}, "
            f"lr {trial.config.learning_rate:g}"
        )
        if trial.status == "failed":
            outcome = f"failed: {trial.error}"
        else:
            outcome = f"val PSNR {trial.best['val_psnr']:.2f} dB, SSIM {trial.best['val_ssim']:.3f}"
            if trial.status == "stopped":
                outcome += f"  (stopped at step {trial.best['step']:.0f})"
        self._log(f"  trial {self._ended}/{self._trials}  {description:<46}  {outcome}")

    def kill(self) -> None:
        """Mark the open runs as killed, because the search was interrupted."""
        for found in self._runs.values():
            found.run.finish("KILLED", "The study was interrupted.")


def describe_trial(trial: Trial) -> str:
    """The network of a trial and its searched values, as a list."""
    arguments = [f"{name} {value}" for name, value in trial.draw.arguments.items()]
    config = trial.config
    rate = f"learning rate {config.learning_rate:g}"
    return ", ".join([trial.draw.model, *arguments, config.loss, rate])


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
