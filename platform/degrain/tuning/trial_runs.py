"""Logs the trials of a study to MLflow and the screen."""

from collections.abc import Callable, Mapping

from degrain.interrupts import defer_interrupts
from degrain.tracking.runs import Run, Tracker
from degrain.training.session import Metrics
from degrain.tuning.search import Trial


class TrialRuns:
    """Logs each trial to a run in MLflow and to a line on the screen."""

    def __init__(
        self,
        trials: int,
        tracker: Tracker,
        parent: Run,
        tags: Mapping[str, str],
        log: Callable[[str], None],
    ) -> None:
        self._trials = trials
        self._tracker = tracker
        self._parent = parent
        self._tags = tags
        self._log = log
        self._runs: dict[int, Run] = {}
        """Open runs by trial number."""
        self._ended = 0

    def started(self, trial: Trial) -> None:
        """Start the run of a trial."""
        if trial.number not in self._runs:
            with defer_interrupts():
                run = self._tracker.start(trial.name, "trial", parent=self._parent, tags=self._tags)
                self._runs[trial.number] = run
            run.params({**trial.config.tracked_parameters(), "parameters": trial.parameters})

    def reported(self, trial: Trial, metrics: Metrics) -> None:
        """Log the metrics of a validation."""
        self._runs[trial.number].metrics(metrics, step=int(metrics["step"]))

    def ended(self, trial: Trial) -> None:
        """Finish the run, and print the outcome."""
        run = self._runs.pop(trial.number, None)
        if run is not None:
            run.tags({"status": trial.status, **({"error": trial.error} if trial.error else {})})
            run.finish("FAILED" if trial.status == "failed" else "FINISHED")
        self._ended += 1
        arguments = " ".join(f"{k} {v}" for k, v in trial.draw.arguments.items())
        description = (
            f"{trial.draw.model} {arguments}, {trial.draw.loss}, lr {trial.draw.learning_rate:g}"
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
