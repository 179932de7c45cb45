"""Shows a run's progress on the screen, and logs it to MLflow and to Ray's metrics."""

from collections.abc import Callable, Mapping
from typing import Protocol

from degrain.monitoring import TrainingGauges
from degrain.training.distributed.events import (
    Planned,
    PreemptionCheckpoint,
    Progress,
    Started,
    ValidationEvent,
    WarningEvent,
    WorkerEvent,
)
from degrain.training.session import Metrics
from degrain.words import counted


class MetricLog(Protocol):
    """A store of curves and pictures."""

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Log metrics at a step."""
        ...

    def files(self, contents: Mapping[str, bytes], folder: str) -> None:
        """Log files below a folder."""
        ...


class ProgressLog:
    """Shows and logs the events of a run of `steps` steps.

    `log` prints a permanent line, `status` a line that the next output replaces.
    """

    def __init__(
        self,
        steps: int,
        metric_log: MetricLog,
        gauges: TrainingGauges,
        *,
        log: Callable[[str], None],
        status: Callable[[str], None],
    ) -> None:
        self._steps = steps
        self._metric_log = metric_log
        self._gauges = gauges
        self._log = log
        self._status = status
        self._groups = 0

    def __call__(self, event: WorkerEvent) -> None:
        """Show and log one event."""
        match event:
            case Started(step, workers):
                self._started(step, workers)
            case Planned(steps):
                self._steps = steps
                self._log(
                    f"  {steps} steps fit into the budget"
                    if steps > 1
                    else "  warning: preparation left time for one step alone; give a larger budget"
                )
                self._metric_log.metrics({"planned_steps": steps})
            case Progress(metrics):
                self._status(self._line(metrics))
                self._gauges.set(metrics)
                self._metric_log.metrics(metrics, step=int(metrics["step"]))
            case ValidationEvent(metrics, samples):
                step = int(metrics["step"])
                self._gauges.set(metrics)
                scores = {key: metrics[key] for key in ("val_psnr", "val_ssim")}
                self._log(
                    f"{self._line(metrics)}  val PSNR {scores['val_psnr']:.2f} dB, SSIM "
                    f"{scores['val_ssim']:.3f}"
                )
                self._metric_log.metrics(scores, step=step)
                self._metric_log.files({f"step-{step:08d}.png": samples}, "samples")
            case PreemptionCheckpoint(step):
                self._log(f"  checkpoint written at step {step}, before the workers end")
            case WarningEvent(text):
                self._log(f"  warning: {text}")

    def _started(self, step: int, workers: int) -> None:
        self._groups += 1
        if self._groups > 1 or step:
            again = "training continues" if self._groups > 1 else "resumed"
            self._log(f"  {again} from step {step} with {counted(workers, 'worker')}")

    def _line(self, metrics: Metrics) -> str:
        if metrics["step"] == 0:
            return "  the starting model:"
        return (
            f"  step {metrics['step']:.0f}/{self._steps}  loss {metrics['train_loss']:.5f}  "
            f"{metrics['patches_per_second']:.0f} patches/s  data {metrics['data_wait_share']:.1%}"
            f"  {metrics['worker_memory_mib']:.0f} MiB  {duration(metrics['seconds_left'])} left"
        )


def duration(seconds: float) -> str:
    """Format a duration: `45 s`, `12 min`, `3 h 20 min`."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"
