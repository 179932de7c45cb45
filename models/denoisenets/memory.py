"""How much memory a network's forward pass takes, found without taking it."""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class _LivePeak(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of all tensors that operations make, from their making to their end."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self._now = 0
        self._live: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        output = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(output):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return output

    def _count(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self._live:
            self._live[key] = storage.nbytes()
            self._now += storage.nbytes()
            self.peak = max(self.peak, self._now)
            weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self._now -= self._live.pop(key)


def activation_bytes(build: Callable[[], nn.Module], side: int) -> float:
    """Peak bytes of float32 activations per pixel of a forward pass without gradients, for frames of `side` pixels.

    The network is built on the meta device, where tensors have shapes and no memory. What a backend needs beside the
    tensors, such as copies in another layout, is not in it.
    """
    with torch.device("meta"), torch.inference_mode():
        network = build().eval()
        with _LivePeak() as live:
            network(torch.empty(1, 3, side, side))
    return float(live.peak / side**2)
