"""What a user sees of a run, on the screen and in MLflow, made of what its workers report."""

from collections.abc import Callable, Mapping
from typing import Protocol

from degrain.training.mailbox import Began, Letter, Progress, Rescued, Validated, Warned
from degrain.training.session import Metrics


class Log(Protocol):
    """Where curves and pictures go."""

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Metrics at a step."""
        ...

    def files(self, contents: Mapping[str, bytes], folder: str) -> None:
        """Files below a folder."""
        ...


class Watch:
    """Tells the user and the log of a run of `steps` steps.

    `say` prints a line that stays, `status` one that the next replaces.
    """

    def __init__(self, steps: int, log: Log, *, say: Callable[[str], None], status: Callable[[str], None]) -> None:
        self._steps = steps
        self._log = log
        self._say = say
        self._status = status
        self._groups = 0

    def __call__(self, letter: Letter) -> None:
        """Tell of one letter."""
        match letter:
            case Began(step, workers):
                self._began(step, workers)
            case Progress(metrics):
                self._status(self._pace(metrics))
                self._log.metrics(metrics, step=int(metrics["step"]))
            case Validated(metrics, samples):
                step = int(metrics["step"])
                scores = {key: metrics[key] for key in ("val_psnr", "val_ssim")}
                self._say(f"{self._pace(metrics)}  val PSNR {scores['val_psnr']:.2f} dB, SSIM {scores['val_ssim']:.3f}")
                self._log.metrics(scores, step=step)
                self._log.files({f"step-{step:08d}.png": samples}, "samples")
            case Rescued(step):
                self._say(f"  checkpoint written at step {step}, before the workers go")
            case Warned(text):
                self._say(f"  warning: {text}")

    def _began(self, step: int, workers: int) -> None:
        self._groups += 1
        if self._groups > 1 or step:
            again = "training goes on" if self._groups > 1 else "resumed"
            self._say(f"  {again} from step {step} with {workers} worker{'s' if workers > 1 else ''}")

    def _pace(self, metrics: Metrics) -> str:
        return (
            f"  step {metrics['step']:.0f}/{self._steps}  loss {metrics['train_loss']:.5f}  "
            f"{metrics['patches_per_second']:.0f} patches/s  data {metrics['data_wait_share']:.1%}  "
            f"{metrics['worker_memory_mib']:.0f} MiB  {duration(metrics['seconds_left'])} left"
        )


def duration(seconds: float) -> str:
    """A time as a user reads it: `45 s`, `12 min`, `3 h 20 min`."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"
