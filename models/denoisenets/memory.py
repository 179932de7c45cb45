"""Peak activation memory of a forward pass, measured without allocating it."""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class PeakMemory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Tracks the bytes of all live tensors that operations return."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self._current = 0
        self._live: dict[int, int] = {}

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401
        types: Any,  # noqa: ANN401
        args: Any = (),  # noqa: ANN401
        kwargs: Any = None,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        output = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(output):
            if isinstance(tensor, Tensor):
                self._add(tensor.untyped_storage())
        return output

    def _add(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self._live:
            self._live[key] = storage.nbytes()
            self._current += storage.nbytes()
            self.peak = max(self.peak, self._current)
            weakref.finalize(storage, self._remove, key)

    def _remove(self, key: int) -> None:
        self._current -= self._live.pop(key)


def activation_bytes_per_pixel(
    build: Callable[[], nn.Module], side: int, dtype: torch.dtype = torch.float32
) -> float:
    """Peak bytes of activations per input pixel of a forward pass without gradients, for an input
    of `side` x `side` pixels, in float32 or under autocast to `dtype`.

    Memory that a backend needs beside the tensors, such as copies in another layout, is not
    counted.
    """
    # Autocast does not know the meta device. Fake tensors of the CPU take three times as long.
    device = torch.device("meta") if dtype == torch.float32 else FakeTensorMode()
    autocast = torch.autocast("cpu", dtype=dtype, enabled=dtype != torch.float32)
    with device, torch.inference_mode():
        network = build().eval()
        with PeakMemory() as memory, autocast:
            network(torch.empty(1, 3, side, side))
    return float(memory.peak / side**2)
