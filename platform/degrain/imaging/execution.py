"""How a network is run on a device: the one place that decides precision and memory layout."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import nn

from degrain.errors import UserError

Precision: TypeAlias = Literal["auto", "float32", "bfloat16"]
PRECISIONS: tuple[Precision, ...] = ("auto", "float32", "bfloat16")


@dataclass(frozen=True)
class Execution:
    """Device, autocast type and memory layout of a network's passes."""

    device: torch.device
    dtype: torch.dtype
    memory_format: torch.memory_format

    def autocast(self) -> AbstractContextManager[object]:
        """Context in which the forward pass runs in `dtype`."""
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32)

    def place(self, network: nn.Module) -> nn.Module:
        """Move a network to the device and into the memory layout, in place."""
        return network.to(self.device).to(memory_format=self.memory_format)  # type: ignore[call-overload, no-any-return]

    @property
    def precision(self) -> str:
        """`float32` or `bfloat16`, as a card or a log names it."""
        return str(self.dtype).removeprefix("torch.")


def choose_execution(device: torch.device, precision: Precision = "auto") -> Execution:
    """bfloat16 autocast with channels_last where the device computes bfloat16 in hardware, else float32.

    Measured in docs/performance.md. CPUs without bfloat16 instructions emulate it slower than float32. Raises UserError for
    a CUDA device where there is none.
    """
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError("there is no CUDA device here; use --device cpu, or check the driver and the torch build")
    if precision == "auto":
        precision = "bfloat16" if _computes_bfloat16(device) else "float32"
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    return Execution(device, dtype, torch.channels_last)


def _computes_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return False
