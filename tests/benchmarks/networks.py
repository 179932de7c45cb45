"""Speed of every network's forward pass and training step, against what a user would write; needs PyTorch and NumPy alone.

    python tests/benchmarks/networks.py                      # CPU
    python tests/benchmarks/networks.py --device cuda        # GPU, also the share of its peak

Plain is float32, contiguous, eager, Adam; degrain is what `degrain.imaging.execution` chooses and `train_step` does. All
of a network's figures are taken in turns within one run. Prints a Markdown table for docs/performance.md.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

# So that it runs from a checkout where nothing is installed.
for root in ("platform", "models"):
    sys.path.insert(0, str(Path(__file__).parents[2] / root))

import torch
from torch import nn
from torch.nn.functional import mse_loss

from degrain.data.loader import Batch
from degrain.imaging.execution import choose_execution
from degrain.training.config import TrainingConfig
from degrain.training.step import TrainingState, train_step
from denoisenets import create_model, describe, list_models

PEAK_TERAFLOPS = {"H100": 989.0, "H200": 989.0, "A100": 312.0, "L40S": 362.0, "L4": 121.0, "RTX 4090": 165.0}
"""Dense bfloat16 with float32 sums, as the maker states it."""


class Turns:
    """Times several ways of doing one thing, one after the other, several times over."""

    def __init__(self, device: torch.device, repeats: int) -> None:
        self.device, self.repeats = device, repeats

    def seconds(self, ways: dict[str, Callable[[], object]]) -> dict[str, float]:
        """The shortest time of each way, which other work on the machine disturbs least; a first call does not count."""
        for way in ways.values():
            way()
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(self.repeats):
            for name, way in ways.items():
                self._wait()
                began = time.perf_counter()
                way()
                self._wait()
                times[name].append(time.perf_counter() - began)
        return {name: min(taken) for name, taken in times.items()}

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def plain_forward(network: nn.Module, noisy: torch.Tensor) -> Callable[[], object]:
    """float32, contiguous, eager."""

    def run() -> None:
        with torch.inference_mode():
            network(noisy)

    return run


def our_forward(network: nn.Module, noisy: torch.Tensor) -> Callable[[], object]:
    """As a denoiser runs it."""
    execution = choose_execution(noisy.device)
    run_network = execution.compile(execution.place(network))
    x = noisy.contiguous(memory_format=execution.memory_format)

    def run() -> None:
        with torch.inference_mode(), execution.autocast():
            run_network(x)

    return run


def plain_step(network: nn.Module, batch: Batch) -> Callable[[], object]:
    """The step a user would write: float32, contiguous, eager, Adam."""
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-6)
    noisy, clean = batch.noisy.contiguous(), batch.clean.contiguous()

    def run() -> None:
        loss = mse_loss(network(noisy), clean)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return run


def our_step(name: str, batch: Batch) -> Callable[[], object]:
    """The step that the training loop does, moving average and clipping included."""
    config = TrainingConfig(model=name, learning_rate=1e-6, steps=10**6, batch_size=len(batch))
    state = TrainingState.create(config, batch.noisy.device)
    channels_last = Batch(*(x.contiguous(memory_format=torch.channels_last) for x in (batch.noisy, batch.clean)))
    return lambda: train_step(state, channels_last)


def with_tf32(way: Callable[[], object]) -> Callable[[], object]:
    """The same with TensorFloat-32, which PyTorch leaves off."""

    def run() -> None:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        way()
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False

    return run


def peak_of(device: torch.device) -> float | None:
    """The card's peak in bfloat16, if it is a known one."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for known, peak in PEAK_TERAFLOPS.items() if known in name), None)


def bench(name: str, device: torch.device, pixels: int, repeats: int) -> str:
    """One network's row: crops of 128 pixels, or the smallest it takes, `pixels` in all."""
    described = describe(name)
    side = described.contract.size.padded(128)
    count = max(pixels // side**2, 1)
    noisy = torch.rand(count, 3, side, side, device=device)
    batch = Batch(noisy, torch.rand_like(noisy))
    cuda = device.type == "cuda"
    cells = [name, f"{described.parameters / 1e6:.2f}", f"{described.macs_per_pixel / 1e3:.0f}", f"{count}x{side}"]
    turns = Turns(device, repeats)
    for kind, flops in (("forward", 2), ("step", 6)):
        plain = create_model(name).to(device)
        if kind == "forward":
            ways = {"plain": plain_forward(plain, noisy), "ours": our_forward(create_model(name).to(device), noisy)}
        else:
            ways = {"plain": plain_step(plain, batch), "ours": our_step(name, batch)}
        if cuda:
            ways["tf32"] = with_tf32(ways["plain"])
        taken = turns.seconds(ways)
        cells += [f"{taken['plain'] * 1e3:.0f}", f"{taken['ours'] * 1e3:.0f}", f"{taken['plain'] / taken['ours']:.2f}"]
        if cuda:
            reached = flops * described.macs_per_pixel * count * side**2 / taken["ours"] / 1e12
            peak = peak_of(device)
            share = f" ({reached / peak:.0%})" if peak else ""
            cells += [f"{taken['tf32'] / taken['ours']:.2f}", f"{reached:.0f}{share}"]
        del plain, ways
    return f"| {' | '.join(cells)} |"


def main() -> int:
    """Print the table."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--device", default="cpu")
    options.add_argument("--models", nargs="*", default=list_models(), help="networks (default: all)")
    options.add_argument("--pixels", type=int, help="pixels of a batch (default: 16 crops of 128; on CUDA 64)")
    options.add_argument("--repeats", type=int, default=5)
    told = options.parse_args()
    device = torch.device(told.device)
    cuda = device.type == "cuda"
    pixels = told.pixels or (2**20 if cuda else 2**18)
    chosen = choose_execution(device)
    machine = torch.cuda.get_device_name(device) if cuda else f"{torch.get_num_threads()} threads"
    print(f"torch {torch.__version__}, {machine}; degrain: {chosen.precision}, compiled: {chosen.compiled}\n")
    ratio = "plain ms | degrain ms | ratio" + (" | ratio to TF32 | TFLOP/s (share of peak)" if cuda else "")
    columns = 2 * (5 if cuda else 3)
    print(f"| network | M parameters | kMAC/pixel | crops | forward: {ratio} | step: {ratio} |")
    print("|---|---:|---:|---:|" + "---:|" * columns)
    for name in told.models:
        print(bench(name, device, pixels, told.repeats), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
