"""Checkpoints: the state of a run, from which it resumes bit for bit.

One file holds networks, EMA, optimizers, step, random states and configuration: a line with a hash,
then the hashed output of `torch.save`. It is read with `weights_only=True`, which loads tensors and
plain values and runs no code.
"""

import hashlib
import io
import random
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import torch

from degrain.errors import UserError
from degrain.training.config import RESUMABLE_CHANGES, TrainingConfig
from degrain.training.step import TrainedNetwork, TrainingState

Snapshot: TypeAlias = Mapping[str, Any]
"""The content of a checkpoint: a copy on the CPU that further training does not change."""

_MAGIC = b"degrain checkpoint 1 "


class DamagedCheckpointError(ValueError):
    """The file is not a complete checkpoint."""


def take_snapshot(state: TrainingState, metrics: Mapping[str, float] | None = None) -> Snapshot:
    """Copy the current state, and the metrics of its validation if it was validated."""
    content = {
        "config": state.config.to_dict(),
        "step": state.step,
        "seconds": state.seconds,
        "best_psnr": state.best_psnr,
        "validations_since_best": state.validations_since_best,
        "anchor": state.anchor,
        "ema": state.ema.network.state_dict(),
        "denoiser": _network_and_optimizer(state.denoiser),
        "adversary": _network_and_optimizer(state.adversary) if state.adversary else None,
        "random": _random_states(state.execution.device),
        "metrics": dict(metrics) if metrics else None,
    }
    snapshot: Snapshot = _copy_to_cpu(content)
    return snapshot


def encode(snapshot: Snapshot) -> bytes:
    """Serialise a snapshot to the bytes of a checkpoint file."""
    buffer = io.BytesIO()
    torch.save(dict(snapshot), buffer)
    content = buffer.getvalue()
    return _MAGIC + _hash(content) + b"\n" + content


def decode(file: bytes) -> Snapshot:
    """Deserialise a checkpoint file. Raises DamagedCheckpointError if it is not complete."""
    line, _, content = file.partition(b"\n")
    if not line.startswith(_MAGIC):
        raise DamagedCheckpointError("it does not start with a checkpoint header")
    if line.removeprefix(_MAGIC) != _hash(content):
        raise DamagedCheckpointError("its content does not match its hash")
    snapshot: Snapshot = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return snapshot


def restore(state: TrainingState, snapshot: Snapshot) -> None:
    """Load a snapshot into `state`.

    Raises UserError if the configurations differ in a field outside RESUMABLE_CHANGES.
    """
    _check_same(snapshot["config"], state.config)
    state.step, state.best_psnr, state.validations_since_best = (
        snapshot["step"],
        snapshot["best_psnr"],
        snapshot["validations_since_best"],
    )
    # Checkpoints of earlier versions have no time.
    state.seconds = snapshot.get("seconds", 0.0)
    state.anchor = None if snapshot["anchor"] is None else tuple(snapshot["anchor"])
    state.ema.network.load_state_dict(snapshot["ema"])
    for trained, saved in (
        (state.denoiser, snapshot["denoiser"]),
        (state.adversary, snapshot["adversary"]),
    ):
        if trained is not None:
            trained.network.load_state_dict(saved["network"])
            trained.optimizer.load_state_dict(saved["optimizer"])
    _set_random_states(snapshot["random"], state.execution.device)


def _check_same(before: Mapping[str, Any], config: TrainingConfig) -> None:
    """Raise UserError, listing the fields, if `config` differs from the snapshot's."""
    now = config.to_dict()
    differing = [
        k for k in {**before, **now} if k not in RESUMABLE_CHANGES and before.get(k) != now.get(k)
    ]
    if differing:
        changes = ", ".join(f"{k} {before.get(k)!r} -> {now.get(k)!r}" for k in differing)
        raise UserError(
            f"cannot resume with another configuration ({changes}); use the old values or a new "
            "run name"
        )


def _network_and_optimizer(trained: TrainedNetwork) -> dict[str, Any]:
    return {"network": trained.network.state_dict(), "optimizer": trained.optimizer.state_dict()}


def _copy_to_cpu(content: Any) -> Any:  # noqa: ANN401 - nested mappings, lists and tensors
    if isinstance(content, torch.Tensor):
        return content.detach().to("cpu", copy=True)
    if isinstance(content, Mapping):
        return {key: _copy_to_cpu(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return type(content)(_copy_to_cpu(value) for value in content)
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
            "state": {
                "key": numpy_state["state"]["key"].tolist(),
                "pos": numpy_state["state"]["pos"],
            },
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
