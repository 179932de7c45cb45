"""How a network is run on a device: the one place that decides precision, memory layout, compilation and memory."""

import logging
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from degrain.errors import UserError

Precision: TypeAlias = Literal["auto", "float32", "bfloat16"]
PRECISIONS: tuple[Precision, ...] = ("auto", "float32", "bfloat16")
Compiled: TypeAlias = Literal["auto", "on", "off"]
COMPILED: tuple[Compiled, ...] = ("auto", "on", "off")

_CPU_MEMORY = 512 * 2**20
_FREE_SHARE = {"cpu": 0.25, "cuda": 0.5}

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Execution:
    """Device, autocast type, memory layout and compilation of a network's passes."""

    device: torch.device
    dtype: torch.dtype
    memory_format: torch.memory_format
    compiled: bool = False

    def autocast(self) -> AbstractContextManager[object]:
        """Context in which the forward pass runs in `dtype`."""
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32)

    def place(self, network: nn.Module) -> nn.Module:
        """Move a network to the device and into the memory layout, in place."""
        return network.to(self.device).to(memory_format=self.memory_format)  # type: ignore[call-overload, no-any-return]

    def compile(self, network: nn.Module) -> Callable[..., Tensor]:
        """What forward passes go through: the network itself, or its compiled form with the same weights."""
        return CompiledNetwork(network) if self.compiled else network

    @property
    def precision(self) -> str:
        """`float32` or `bfloat16`, as a card or a log names it."""
        return str(self.dtype).removeprefix("torch.")

    @property
    def bytes_per_value(self) -> int:
        """Bytes of one value of an activation."""
        return self.dtype.itemsize

    def free_memory(self) -> int:
        """Bytes that a pass may take: a share of what is free, on the CPU at most 512 MiB (more makes nothing faster)."""
        if self.device.type == "cuda":
            return int(torch.cuda.mem_get_info(self.device)[0] * _FREE_SHARE["cuda"])
        # Here alone, so that networks run where nothing but torch is installed.
        import psutil

        return min(int(psutil.virtual_memory().available * _FREE_SHARE["cpu"]), _CPU_MEMORY)


class CompiledNetwork:
    """A network as `torch.compile` makes it, or as it is if that fails, which is logged with the reason."""

    def __init__(self, network: nn.Module) -> None:
        # Here alone, because importing the compiler takes longer than importing torch.
        from torch._dynamo.exc import TorchDynamoException
        from torch._inductor.exc import InductorError

        self._failures = (TorchDynamoException, InductorError)
        self._eager = network
        self._run: Callable[..., Tensor] = torch.compile(network)

    def __call__(self, *inputs: Tensor) -> Tensor:
        """The forward pass; the first one compiles, and so does the first of another shape."""
        try:
            output = self._run(*inputs)
        except self._failures as error:
            if self._run is self._eager:
                raise
            reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            _log.warning("the network is not compiled: %s", reason)
            self._run = self._eager
            output = self._run(*inputs)
        return output


def choose_execution(device: torch.device, precision: Precision = "auto", compiled: Compiled = "auto") -> Execution:
    """bfloat16 autocast with channels_last where the device computes bfloat16 in hardware, else float32; compiled on CUDA.

    Measured in docs/performance.md. CPUs without bfloat16 instructions emulate it slower than float32; there compiling
    takes longer than it saves, unless a run is long. What was asked for and cannot be had is logged with the reason.
    Raises UserError for a CUDA device where there is none.
    """
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError("there is no CUDA device here; use --device cpu, or check the driver and the torch build")
    if precision == "auto":
        precision = "bfloat16" if _computes_bfloat16(device) else "float32"
        if precision == "float32":
            _log.info("float32 on %s: it has no bfloat16 instructions", device)
    wanted = compiled == "on" or (compiled == "auto" and device.type == "cuda")
    obstacle = _why_not_compiled(device) if wanted else None
    if obstacle:
        _log.warning("the network is not compiled: %s", obstacle)
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    return Execution(device, dtype, torch.channels_last, compiled=wanted and obstacle is None)


def _computes_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return False


def _why_not_compiled(device: torch.device) -> str | None:
    """What torch.compile lacks here; None if nothing."""
    if device.type == "cpu" and not any(shutil.which(name) for name in ("g++", "clang++")):
        return "there is no C++ compiler (g++ or clang++); install one"
    if device.type == "cuda" and find_spec("triton") is None:
        return "the package triton is not there; install the torch build for CUDA"
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < (7, 0):
        return "the GPU is older than what Triton compiles for (compute capability 7.0)"
    return None
