"""Speed of every network's forward pass and training step against plain PyTorch.

Plain is float32, contiguous, eager, Adam; degrain is `train_step` and the execution that
`degrain.inference.execution` chooses. All variants of a network are timed in turns. Imports PyTorch
and NumPy only.
"""

import time
from collections.abc import Callable

import torch
from table import Settings, Table, progress
from torch import nn
from torch.nn.functional import mse_loss

from degrain.inference.execution import choose_execution
from degrain.loading.batches import Batch
from degrain.training.config import TrainingConfig
from degrain.training.step import TrainingState, train_step
from denoisenets import create_model, describe, list_models

PEAK_TERAFLOPS = {
    "H100": 989.0,
    "H200": 989.0,
    "A100": 312.0,
    "L40S": 362.0,
    "L4": 121.0,
    "RTX 4090": 165.0,
}
"""Dense bfloat16 with float32 accumulation, by the data sheets."""


class Stopwatch:
    """Times several functions in turns, so that other load on the machine affects all alike."""

    def __init__(self, device: torch.device, repeats: int) -> None:
        self.device, self.repeats = device, repeats

    def seconds(self, functions: dict[str, Callable[[], object]]) -> dict[str, float]:
        """The shortest time of each function, after one call that is not counted."""
        for function in functions.values():
            function()
        times: dict[str, list[float]] = {name: [] for name in functions}
        for _ in range(self.repeats):
            for name, function in functions.items():
                self._synchronize()
                start = time.perf_counter()
                function()
                self._synchronize()
                times[name].append(time.perf_counter() - start)
        return {name: min(measured) for name, measured in times.items()}

    def _synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def plain_forward(network: nn.Module, noisy: torch.Tensor) -> Callable[[], object]:
    """float32, contiguous, eager."""

    def run() -> None:
        with torch.inference_mode():
            network(noisy)

    return run


def degrain_forward(network: nn.Module, noisy: torch.Tensor) -> Callable[[], object]:
    """The forward pass of `NetworkDenoiser`."""
    execution = choose_execution(noisy.device)
    run_network = execution.compile(execution.place(network))
    x = noisy.contiguous(memory_format=execution.memory_format)

    def run() -> None:
        with torch.inference_mode(), execution.autocast():
            run_network(x)

    return run


def plain_step(network: nn.Module, batch: Batch) -> Callable[[], object]:
    """A plain step: float32, contiguous, eager, Adam."""
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-6)
    noisy, clean = batch.noisy.contiguous(), batch.clean.contiguous()

    def run() -> None:
        loss = mse_loss(network(noisy), clean)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return run


def degrain_step(name: str, batch: Batch) -> Callable[[], object]:
    """The step of the training loop, including moving average and clipping."""
    config = TrainingConfig(model=name, learning_rate=1e-6, steps=10**6, batch_size=len(batch))
    state = TrainingState.create(config, batch.noisy.device)
    channels_last = Batch(
        *(x.contiguous(memory_format=torch.channels_last) for x in (batch.noisy, batch.clean))
    )
    return lambda: train_step(state, channels_last)


def with_tf32(function: Callable[[], object]) -> Callable[[], object]:
    """The same function with TensorFloat-32, which PyTorch disables by default."""

    def run() -> None:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        function()
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False

    return run


def peak_of(device: torch.device) -> float | None:
    """The peak of a GPU in bfloat16, TFLOP/s; None for an unknown one."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for known, peak in PEAK_TERAFLOPS.items() if known in name), None)


def measure(name: str, device: torch.device, pixels: int, repeats: int) -> tuple[str, ...]:
    """One network's row, for crops of 128 pixels or the smallest that it accepts.

    `pixels` is the number of pixels in a batch.
    """
    described = describe(name)
    side = described.contract.size.padded(128)
    count = max(pixels // side**2, 1)
    noisy = torch.rand(count, 3, side, side, device=device)
    batch = Batch(noisy, torch.rand_like(noisy))
    cells = [
        name,
        f"{described.parameters / 1e6:.2f}",
        f"{described.macs_per_pixel / 1e3:.0f}",
        f"{count}x{side}",
    ]
    stopwatch = Stopwatch(device, repeats)
    for kind, flops in (("forward", 2), ("step", 6)):
        plain, ours = create_model(name).to(device), create_model(name).to(device)
        if kind == "forward":
            functions = {
                "plain": plain_forward(plain, noisy),
                "degrain": degrain_forward(ours, noisy),
            }
        else:
            functions = {"plain": plain_step(plain, batch), "degrain": degrain_step(name, batch)}
        if device.type == "cuda":
            functions["tf32"] = with_tf32(functions["plain"])
        seconds = stopwatch.seconds(functions)
        cells += [f"{seconds[variant] * 1e3:.0f}" for variant in ("plain", "degrain")]
        cells.append(f"{seconds['plain'] / seconds['degrain']:.2f}")
        if device.type == "cuda":
            reached = flops * described.macs_per_pixel * count * side**2 / seconds["degrain"] / 1e12
            peak = peak_of(device)
            share = f" ({reached / peak:.0%})" if peak else ""
            cells += [f"{seconds['tf32'] / seconds['degrain']:.2f}", f"{reached:.0f}{share}"]
        del plain, ours, functions
    return tuple(cells)


def run(settings: Settings) -> list[Table]:
    """Milliseconds of a forward pass and a training step; on CUDA also the share of the peak."""
    device = torch.device(settings.device)
    cuda = device.type == "cuda"
    pixels = settings.pixels or (2**14 if settings.quick else 2**20 if cuda else 2**18)
    models = settings.models or (("red10",) if settings.quick else list_models())
    columns = ["network", "M parameters", "kMAC/pixel", "crops"]
    for kind in ("forward", "step"):
        columns += [f"{kind}: plain ms", "degrain ms", "ratio"]
        columns += ["ratio to TF32", "TFLOP/s (share of peak)"] if cuda else []
    rows = []
    for name in models:
        rows.append(measure(name, device, pixels, 1 if settings.quick else 5))
        progress(" | ".join(rows[-1]))
    chosen = choose_execution(device)
    machine = torch.cuda.get_device_name(device) if cuda else f"{torch.get_num_threads()} threads"
    caption = (
        f"torch {torch.__version__}, {machine}; degrain: {chosen.precision}, "
        f"compiled: {chosen.compiled}."
    )
    return [Table(columns, rows, caption)]
