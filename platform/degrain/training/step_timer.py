"""Time and loss of the steps between two progress reports, and the time of all."""

import time
from collections.abc import Iterable, Iterator

import torch

from degrain.loading.batches import Batch


class StepTimer:
    """Measures loss and time of the steps since the last interval; losses stay on the device.

    `seconds` is the training time before `step`, in earlier processes of the run.
    """

    def __init__(self, step: int, seconds: float = 0.0) -> None:
        self._began = time.perf_counter() - seconds
        self.restart(step)

    @property
    def seconds(self) -> float:
        """Training time so far, validations included."""
        return time.perf_counter() - self._began

    def restart(self, step: int) -> None:
        """Start a new interval at `step`."""
        self._step = step
        self._started = time.perf_counter()
        self._waited = 0.0
        self._losses: list[torch.Tensor] = []

    def timed(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Yield the batches, and measure the time spent waiting for each."""
        iterator = iter(batches)
        while True:
            started = time.perf_counter()
            batch = next(iterator, None)
            self._waited += time.perf_counter() - started
            if batch is None:
                return
            yield batch

    def loss(self, value: torch.Tensor) -> None:
        """Record the loss of one step."""
        self._losses.append(value)

    def interval(self, step: int) -> tuple[float, float, float, int]:
        """End the interval; returns its mean loss, seconds, seconds spent waiting, and steps."""
        loss = torch.stack(self._losses).mean(dtype=torch.float64).item()
        measured = (loss, time.perf_counter() - self._started, self._waited, step - self._step)
        self.restart(step)
        return measured
