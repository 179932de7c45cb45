"""Reads the weights out of checkpoints that others published, without running what is in them."""

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from degrain.errors import UserError

WRAPPERS = ("params_ema", "params", "state_dict", "model", "net", "model_state_dict")
"""Keys below which training programs store weights, the preferred first: averaged weights are
better than those of the last step.
"""
_DEEPEST = 2
"""Wrappers inside each other that are opened."""
_PREFIX = "module."
"""Added by DataParallel and DistributedDataParallel."""


def read_weights(file: Path) -> dict[str, Tensor]:
    """Read the tensors of a PyTorch checkpoint or a .safetensors file by name.

    Raises UserError for a file that is missing, is not a checkpoint, contains pickled objects
    beside tensors, or has values that are not finite.
    """
    if not file.is_file():
        raise UserError(f"'{file}' does not exist; name a file with weights, .pth or .safetensors")
    content = _read_safetensors(file) if file.suffix == ".safetensors" else _read_checkpoint(file)
    weights = _unwrapped(content, file)
    if all(name.startswith(_PREFIX) for name in weights):
        weights = {name.removeprefix(_PREFIX): value for name, value in weights.items()}
    for name, value in weights.items():
        if not value.isfinite().all():
            raise UserError(
                f"'{file}': '{name}' has values that are not finite; the training that wrote it "
                "diverged, or the file is damaged: download it again"
            )
    return weights


def _read_safetensors(file: Path) -> Mapping[str, Tensor]:
    import safetensors
    import safetensors.torch

    try:
        return safetensors.torch.load_file(file)
    except (safetensors.SafetensorError, OSError) as error:
        raise _unreadable(file, error) from None


def _read_checkpoint(file: Path) -> object:
    try:
        with warnings.catch_warnings(action="ignore"):  # about pickle protocols of other versions
            content: object = torch.load(file, weights_only=True, map_location="cpu")
    except pickle.UnpicklingError as error:
        if "Unsupported global" not in str(error) and "Unsupported class" not in str(error):
            raise _unreadable(file, error) from None
        raise UserError(
            f"'{file}' contains pickled objects, not tensors alone; loading them could run any "
            "code; in an environment where you trust the file, store its weights with "
            "torch.save(model.state_dict(), FILE), and name that file"
        ) from None
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, IndexError) as error:
        raise _unreadable(file, error) from None
    return content


def _unreadable(file: Path, error: Exception) -> UserError:
    # PyTorch's messages go on with advice for programmers.
    short = " ".join(str(error).split()).partition(". ")[0][:120] or type(error).__name__
    return UserError(
        f"'{file}' is not a PyTorch checkpoint or .safetensors file ({short}); download it again, "
        "or name another file"
    )


def _unwrapped(content: object, file: Path) -> dict[str, Tensor]:
    """The state dict inside a checkpoint, which training programs store below some key."""
    for _ in range(_DEEPEST):
        if isinstance(content, Mapping):
            inside = [content[key] for key in WRAPPERS if isinstance(content.get(key), Mapping)]
            content = inside[0] if inside else content
    if not isinstance(content, Mapping) or not content:
        raise UserError(
            f"'{file}' contains no weights by name; store a model's state_dict with torch.save"
        )
    weights: dict[str, Any] = {str(name): value for name, value in content.items()}
    if other := [name for name, value in weights.items() if not isinstance(value, Tensor)]:
        raise UserError(
            f"'{file}' contains '{other[0]}', which is not a tensor, beside its weights; its "
            f"weights must be at the top or below one of {', '.join(WRAPPERS)}"
        )
    return weights
