"""Logs the trials of a study to MLflow and the screen."""

from collections.abc import Callable, Mapping

from degrain.interrupts import defer_interrupts
from degrain.tracking.runs import Run, Tracker
from degrain.training.session import Metrics
from degrain.tuning.state import StudyState
from degrain.tuning.trial import ENDED, Trial


class TrialRuns:
    """Logs each trial to a run in MLflow and to a line on the screen."""

    def __init__(
        self,
        trials: int,
        tracker: Tracker,
        parent: Run,
        tags: Mapping[str, str],
        log: Callable[[str], None],
        state: StudyState,
    ) -> None:
        self._trials = trials
        self._tracker = tracker
        self._parent = parent
        self._tags = tags
        self._log = log
        self._state = state
        self._runs: dict[int, Run] = {}
        """Open runs by trial number."""
        self._ended = sum(trial.status in ENDED for trial in state.trials.values())

    def started(self, trial: Trial) -> None:
        """Start the run of a trial."""
        if trial.number not in self._runs:
            with defer_interrupts():
                run = self._open(trial)
                self._runs[trial.number] = run
            if run.id != trial.run_id:
                run.params({**trial.config.tracked_parameters(), "parameters": trial.parameters})
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
        self._runs[trial.number].metrics(metrics, step=int(metrics["step"]))
        self._state.record(trial)

    def ended(self, trial: Trial) -> None:
        """Finish the run, and print the outcome."""
        run = self._runs.pop(trial.number, None)
        if run is not None:
            if trial.halved:
                run.tags({"batch_size_after_out_of_memory": trial.config.batch_size})
            run.tags({"status": trial.status, **({"error": trial.error} if trial.error else {})})
            run.finish("FAILED" if trial.status == "failed" else "FINISHED")
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
        for run in self._runs.values():
            run.finish("KILLED")
