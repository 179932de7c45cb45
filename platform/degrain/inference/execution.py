"""Choice of precision, memory layout, compilation and memory limit for a device."""

import logging
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.util import find_spec

import torch
from torch import Tensor, nn

from degrain.errors import UserError
from degrain.inference.config import Compiled, Device, Precision

_CPU_MEMORY = 512 * 2**20
_SHARE_OF_HOST, _SHARE_OF_ACCELERATOR = 0.25, 0.5

_SHARES_HOST_MEMORY = ("cpu", "mps")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Execution:
    """Device, autocast dtype, memory format and compilation of forward passes."""

    device: torch.device
    dtype: torch.dtype
    memory_format: torch.memory_format
    compiled: bool = False

    def autocast(self) -> AbstractContextManager[object]:
        """Context in which the forward pass runs in `dtype`."""
        return torch.autocast(
            self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32
        )

    def place(self, network: nn.Module) -> nn.Module:
        """Move a network to the device and into the memory format, in place."""
        network.to(self.device).to(memory_format=self.memory_format)  # type: ignore[call-overload]
        return network

    def compile(self, network: nn.Module) -> Callable[..., Tensor]:
        """The callable for forward passes: the network or its compiled form."""
        return CompiledNetwork(network) if self.compiled else network

    @property
    def precision(self) -> str:
        """`float32` or `bfloat16`, for model cards and logs."""
        return str(self.dtype).removeprefix("torch.")

    def free_memory(self) -> int:
        """Memory limit of a pass in bytes: a share of the free memory, of the host at most 512 MiB,
        because more is not faster on a CPU.
        """
        if self.device.type not in _SHARES_HOST_MEMORY:
            free, _ = torch.accelerator.get_memory_info(self.device)
            return int(free * _SHARE_OF_ACCELERATOR)
        # Imported here, so that training and inference on CUDA need torch and NumPy alone.
        import psutil

        return min(int(psutil.virtual_memory().available * _SHARE_OF_HOST), _CPU_MEMORY)


class CompiledNetwork:
    """A network compiled by `torch.compile`; if that fails, the reason is logged and the network
    runs uncompiled.
    """

    def __init__(self, network: nn.Module) -> None:
        # Imported here, because importing the compiler takes longer than importing torch.
        from torch._dynamo.exc import TorchDynamoException
        from torch._inductor.exc import InductorError

        self._failures = (TorchDynamoException, InductorError)
        self._eager = network
        # The compiler counts the networks of a class, and leaves the ninth uncompiled, silently.
        torch.compiler.reset()
        self._run: Callable[..., Tensor] = torch.compile(network)

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Run the forward pass; the first one of each shape compiles."""
        try:
            output = self._run(*inputs)
        except self._failures as error:
            if self._run is self._eager:
                raise
            reason = next(
                (line for line in str(error).splitlines() if line.strip()), type(error).__name__
            )
            _log.warning("the network is not compiled: %s", reason)
            self._run = self._eager
            output = self._run(*inputs)
        return output


def find_device(name: Device) -> torch.device:
    """The device of this name; `auto` is the accelerator of this machine, or the CPU.

    Raises UserError for a device that is not there.
    """
    present = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    if name == "auto":
        return present
    if name not in ("cpu", present.type):
        raise UserError(
            f"there is no device {name} here, but {present.type}; set `device` to auto, or check "
            "the driver and the torch build"
        )
    return torch.device(name)


def choose_execution(
    device: torch.device, precision: Precision = "auto", compiled: Compiled = "auto"
) -> Execution:
    """Choose bfloat16 autocast on devices with bfloat16 instructions, else float32; compile on
    CUDA.

    The memory format is channels_last. docs/performance.md has the measurements: CPUs without
    bfloat16 instructions emulate it slower than float32, and on CPUs compilation takes longer than
    it saves in short runs. A request that the machine cannot fulfil is logged with the reason.
    """
    if precision == "auto":
        precision = "bfloat16" if _computes_bfloat16(device) else "float32"
        if precision == "float32":
            _log.info("float32 on %s: it has no bfloat16 instructions", device)
    requested = compiled == "on" or (compiled == "auto" and device.type == "cuda")
    obstacle = _compilation_obstacle(device) if requested else None
    if obstacle:
        _log.warning("the network is not compiled: %s", obstacle)
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    return Execution(device, dtype, torch.channels_last, compiled=requested and obstacle is None)


def _computes_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "xpu":
        return bool(torch.xpu.is_bf16_supported())
    if device.type == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return False


def _compilation_obstacle(device: torch.device) -> str | None:
    """The reason why torch.compile cannot run here; None if it can."""
    if device.type == "cpu" and not any(shutil.which(name) for name in ("g++", "clang++")):
        return "there is no C++ compiler (g++ or clang++); install one"
    if device.type == "cuda" and find_spec("triton") is None:
        return "the package triton is missing; install the torch build for CUDA"
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < (7, 0):
        return "the GPU is too old for Triton, which needs compute capability 7.0"
    return None
