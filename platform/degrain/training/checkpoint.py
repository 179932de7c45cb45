"""Checkpoints: everything a run needs to go on as if it had never stopped.

Networks, EMA, optimizers, step, random states and configuration, as one file: a line with a hash of what follows, and what
`torch.save` writes. It is read with `weights_only=True`, which loads tensors and plain values and runs no code.
"""

import hashlib
import io
import random
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import torch

from degrain.errors import UserError
from degrain.training.config import TrainingConfig
from degrain.training.step import Learner, TrainingState

Snapshot: TypeAlias = Mapping[str, Any]
"""What a checkpoint holds, on the CPU, and unaffected by further training."""

_MAGIC = b"degrain checkpoint 1 "
FREE_FIELDS = frozenset({"validate_every", "validation_patches", "micro_batch", "log_every", "patience"})
"""What may differ between the run that wrote a checkpoint and the one that goes on from it."""


class DamagedCheckpointError(ValueError):
    """The file is no whole checkpoint."""


def take_snapshot(state: TrainingState, metrics: Mapping[str, float] | None = None) -> Snapshot:
    """The state as it is now, and the metrics of its validation, if there was one."""
    content = {
        "config": state.config.to_dict(),
        "step": state.step,
        "best_psnr": state.best_psnr,
        "stale": state.stale,
        "ema": state.ema.network.state_dict(),
        "denoiser": _learned(state.denoiser),
        "adversary": _learned(state.adversary) if state.adversary else None,
        "random": _random_states(state.execution.device),
        "metrics": dict(metrics) if metrics else None,
    }
    copied: Snapshot = _copied(content)
    return copied


def encode(snapshot: Snapshot) -> bytes:
    """A snapshot as a file."""
    buffer = io.BytesIO()
    torch.save(dict(snapshot), buffer)
    content = buffer.getvalue()
    return _MAGIC + _hash(content) + b"\n" + content


def decode(file: bytes) -> Snapshot:
    """The snapshot in a file. Raises DamagedCheckpointError if it is not whole."""
    line, _, content = file.partition(b"\n")
    if not line.startswith(_MAGIC):
        raise DamagedCheckpointError("it does not begin as a checkpoint")
    if line.removeprefix(_MAGIC) != _hash(content):
        raise DamagedCheckpointError("its content is not what was written")
    snapshot: Snapshot = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return snapshot


def restore(state: TrainingState, snapshot: Snapshot) -> None:
    """Bring `state` to where the snapshot was taken.

    Raises UserError if the run it belongs to was configured otherwise: going on would be neither the old run nor the
    new one.
    """
    _check_same(snapshot["config"], state.config)
    state.step, state.best_psnr, state.stale = snapshot["step"], snapshot["best_psnr"], snapshot["stale"]
    state.ema.network.load_state_dict(snapshot["ema"])
    for learner, learned in ((state.denoiser, snapshot["denoiser"]), (state.adversary, snapshot["adversary"])):
        if learner is not None:
            learner.network.load_state_dict(learned["network"])
            learner.optimizer.load_state_dict(learned["optimizer"])
    _set_random_states(snapshot["random"], state.execution.device)


def _check_same(before: Mapping[str, Any], config: TrainingConfig) -> None:
    now = config.to_dict()
    differing = [k for k in {**before, **now} if k not in FREE_FIELDS and before.get(k) != now.get(k)]
    if differing:
        changes = ", ".join(f"{k} {before.get(k)!r} -> {now.get(k)!r}" for k in differing)
        raise UserError(f"cannot resume with another configuration ({changes}); use the old values or a new run name")


def _learned(learner: Learner) -> dict[str, Any]:
    return {"network": learner.network.state_dict(), "optimizer": learner.optimizer.state_dict()}


def _copied(content: Any) -> Any:  # noqa: ANN401 - nested mappings, lists and tensors
    if isinstance(content, torch.Tensor):
        return content.detach().to("cpu", copy=True)
    if isinstance(content, Mapping):
        return {key: _copied(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return type(content)(_copied(value) for value in content)
    return content


def _hash(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).hexdigest().encode()


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
