"""Checkpoints: everything a run needs to go on as if it had never stopped.

Network, EMA, optimizer, step, random states and configuration, as one file. It is written by `torch.save` and read with
`weights_only=True`, which loads tensors and plain values and runs no code.
"""

import io
import random
from typing import Any

import numpy as np
import torch

from degrain.errors import UserError
from degrain.training.step import TrainingState

CHECKPOINT_FILE = "checkpoint.pt"
# What may differ between the run that wrote a checkpoint and the one that goes on from it.
_FREE_FIELDS = frozenset({"validate_every", "validation_patches"})


def save_checkpoint(state: TrainingState) -> bytes:
    """The state as bytes."""
    content = {
        "config": state.config.to_dict(),
        "step": state.step,
        "network": state.network.state_dict(),
        "ema": state.ema.network.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "random": _random_states(state.execution.device),
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def read_checkpoint(content: bytes) -> dict[str, Any]:
    """The content of a checkpoint, on the CPU."""
    loaded: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return loaded


def restore(state: TrainingState, content: bytes) -> None:
    """Bring `state` to where the checkpoint was written.

    Raises UserError if the run it belongs to was configured otherwise: going on would be neither the old run nor the
    new one.
    """
    loaded = read_checkpoint(content)
    config = state.config.to_dict()
    differing = [k for k, v in loaded["config"].items() if k not in _FREE_FIELDS and config.get(k) != v]
    if differing:
        changes = ", ".join(f"{k} {loaded['config'][k]!r} -> {config.get(k)!r}" for k in differing)
        raise UserError(f"cannot resume with another configuration ({changes}); use the old values or a new run name")
    state.step = loaded["step"]
    state.network.load_state_dict(loaded["network"])
    state.ema.network.load_state_dict(loaded["ema"])
    state.optimizer.load_state_dict(loaded["optimizer"])
    _set_random_states(loaded["random"], state.execution.device)


def _random_states(device: torch.device) -> dict[str, Any]:
    numpy_state = np.random.get_state(legacy=False)
    assert isinstance(numpy_state, dict)
    states: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "python": random.getstate(),
        "numpy": {
            **numpy_state,
            "state": {"key": numpy_state["state"]["key"].tolist(), "pos": numpy_state["state"]["pos"]},
        },
    }
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def _set_random_states(states: dict[str, Any], device: torch.device) -> None:
    torch.set_rng_state(states["torch"])
    random.setstate(states["python"])
    numpy_state = states["numpy"]
    key = np.array(numpy_state["state"]["key"], dtype=np.uint32)
    np.random.set_state({**numpy_state, "state": {"key": key, "pos": numpy_state["state"]["pos"]}})
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
