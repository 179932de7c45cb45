"""The files of a model: weights, card, manifest, and what MLflow loads it by.

A model is a folder with `weights.safetensors` and `card.json`, which has the network's name and
arguments, its training data and its scores. Loading builds the network with `denoisenets` and
unpickles nothing, so that a model file cannot run code. `MLmodel` is for MLflow's own loading: its
Python function is `degrain.registry.served`, a module of the installed package, so that there is
neither a pickle nor a script in the folder. `manifest.json` has size and SHA-256 of each file; the
registry stores the SHA-256 of the manifest as a tag of the version, so that the artifact store
alone cannot replace a file of a registered model, nor add one.
"""

import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import safetensors.torch
import yaml
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec
from safetensors import SafetensorError
from torch import Tensor

from degrain import __version__
from degrain.errors import UserError
from degrain.inference.config import InferenceConfig
from degrain.inference.denoiser import NetworkDenoiser
from degrain.registry.card import CARD_FORMAT, ModelCard
from degrain.storage.json_file import json_bytes

WEIGHTS_FILE = "weights.safetensors"
CARD_FILE = "card.json"
MANIFEST_FILE = "manifest.json"
STARTER_FOLDER = Path(__file__).parent.parent / "starter"
_UNREADABLE = (OSError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError)
"""Errors of reading files that are not a model's."""
_MANIFEST_FORMAT = 1
_WRITTEN_BY_MLFLOW = "registered_model_meta"
"""File that MLflow adds to the folder when it loads a version from an embedded store."""
_PACKAGES = ("mlflow", "numpy", "safetensors", "torch")
_EXAMPLE_SIDE = 8
"""Pixels."""
_EXAMPLE = {"artifact_path": "input_example.json", "serving_input_path": "serving_input.json"}


def write_model(folder: Path, weights: Mapping[str, Tensor], card: ModelCard) -> None:
    """Write a network's files into the empty `folder`."""
    # safetensors requires contiguous memory; channels_last weights are strided.
    plain = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
    safetensors.torch.save_file(plain, folder / WEIGHTS_FILE)
    (folder / CARD_FILE).write_bytes(json_bytes(asdict(card)))
    _write_mlmodel(folder)
    write_manifest(folder)


def read_model(
    folder: Path,
    config: InferenceConfig | None = None,
    *,
    name: str | None = None,
    digest: str | None = None,
) -> tuple[NetworkDenoiser, ModelCard]:
    """Read a network's weights and card as a denoiser.

    `digest` is the SHA-256 of the folder's manifest; None: the folder may have none. Raises
    UserError if weights or card are missing or have another format, or if a file differs from the
    manifest.
    """
    check_manifest(folder, name or str(folder), digest)
    try:
        raw = json.loads((folder / CARD_FILE).read_text())
        kind = raw.get("format") if isinstance(raw, dict) else None
        if kind != CARD_FORMAT:
            raise ValueError(
                f"its card has format {kind}, but this version of degrain reads {CARD_FORMAT}"
            )
        card = ModelCard(**raw)
        weights = safetensors.torch.load_file(folder / WEIGHTS_FILE)
        denoiser = NetworkDenoiser(
            card.model, card.arguments, weights, name=name, crop=card.crop, config=config
        )
    except UserError:
        raise
    except _UNREADABLE as error:
        short = " ".join(str(error).split())[:200]
        raise UserError(
            f"'{folder}' is not a degrain model: {short}; name a folder written by `degrain train`"
        ) from None
    return denoiser, card


def manifest_digest(folder: Path) -> str:
    """The SHA-256 of the manifest in `folder`, which covers all its files."""
    return _sha256(folder / MANIFEST_FILE)


def check_manifest(folder: Path, name: str, expected: str | None = None) -> None:
    """Compare the files of the model `name` in `folder` with its manifest, if it has one.

    With `expected`, the SHA-256 of the manifest, it must have one. Raises UserError for a file that
    was changed, removed or added.
    """
    file = folder / MANIFEST_FILE
    if expected is None and not file.exists():
        return
    if not file.exists() or (expected is not None and _sha256(file) != expected):
        raise _changed(name, f"{MANIFEST_FILE} is not the one that was registered")
    listed = _read(file, name)
    found = {path for path in _names(folder) if path != _WRITTEN_BY_MLFLOW}
    if added := sorted(found - set(listed)):
        raise _changed(name, f"'{added[0]}' is not in {MANIFEST_FILE}")
    for path, entry in listed.items():
        if path not in found:
            raise _changed(name, f"'{path}' is missing")
        if _entry(folder / path) != entry:
            raise _changed(name, f"'{path}' does not have the SHA-256 of {MANIFEST_FILE}")


def write_manifest(folder: Path) -> None:
    """Write the manifest of the files in `folder`."""
    files = {name: _entry(folder / name) for name in _names(folder)}
    (folder / MANIFEST_FILE).write_bytes(json_bytes({"format": _MANIFEST_FORMAT, "files": files}))


def _changed(name: str, reason: str) -> UserError:
    return UserError(
        f"model '{name}' was changed after it was written: {reason}; it is not loaded. Restore its "
        "files from a backup, or train and register it again"
    )


def _read(file: Path, name: str) -> Mapping[str, object]:
    """The entries of a manifest by path. Raises UserError for another format."""
    try:
        content = json.loads(file.read_bytes())
        if content["format"] != _MANIFEST_FORMAT:
            raise ValueError
        return dict(content["files"])
    except (ValueError, KeyError, TypeError):
        raise _changed(name, f"{MANIFEST_FILE} is not of format {_MANIFEST_FORMAT}") from None


def _names(folder: Path) -> list[str]:
    """The paths of all files but the manifest, relative to `folder`."""
    paths = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(path for path in paths if path != MANIFEST_FILE)


def _entry(file: Path) -> dict[str, object]:
    return {"bytes": file.stat().st_size, "sha256": _sha256(file)}


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _write_mlmodel(folder: Path) -> None:
    """Write `MLmodel`, its requirements and its input example into a model folder."""
    photos = Schema([TensorSpec(np.dtype(np.uint8), (-1, -1, -1, 3))])
    model = Model(
        signature=ModelSignature(inputs=photos, outputs=photos),
        saved_input_example_info={"type": "ndarray", **_EXAMPLE},
    )
    # As `mlflow.pyfunc.add_to_model` does it, whose import prints warnings and takes a second.
    model.add_flavor(
        "python_function",
        loader_module="degrain.registry.served",
        python_version=platform.python_version(),
        env={"virtualenv": "python_env.yaml"},
    )
    model.save(folder / "MLmodel")
    environment = {
        "python": platform.python_version(),
        "build_dependencies": ["pip", "setuptools", "wheel"],
        "dependencies": ["-r requirements.txt"],
    }
    (folder / "python_env.yaml").write_text(yaml.safe_dump(environment))
    (folder / "requirements.txt").write_text("\n".join(_requirements()) + "\n")
    example = np.arange(_EXAMPLE_SIDE**2 * 3).reshape(1, _EXAMPLE_SIDE, _EXAMPLE_SIDE, 3).tolist()
    (folder / _EXAMPLE["artifact_path"]).write_text(json.dumps(example))
    (folder / _EXAMPLE["serving_input_path"]).write_text(json.dumps({"inputs": example}))


def _requirements() -> list[str]:
    """The installed versions, without a build's suffix such as `+cpu`."""
    installed = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return [f"{k}=={v.partition('+')[0]}" for k, v in {"degrain": __version__, **installed}.items()]
