"""The files with which MLflow loads and serves a model folder: `MLmodel` and those that it names.

The Python function of `MLmodel` is `degrain.tracking.served`, a module of the installed package. So
the folder contains neither a pickle nor a script, and loading a model runs no code of its folder.
"""

import importlib.metadata
import json
import platform
from pathlib import Path

import numpy as np
import yaml
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec

from degrain import __version__

_PACKAGES = ("mlflow", "numpy", "safetensors", "torch")
_EXAMPLE_SIDE = 8
"""Pixels."""
_EXAMPLE = {"artifact_path": "input_example.json", "serving_input_path": "serving_input.json"}


def write_mlmodel(folder: Path) -> None:
    """Write `MLmodel`, its requirements and its input example into a model folder."""
    photos = Schema([TensorSpec(np.dtype(np.uint8), (-1, -1, -1, 3))])
    model = Model(
        signature=ModelSignature(inputs=photos, outputs=photos),
        saved_input_example_info={"type": "ndarray", **_EXAMPLE},
    )
    # As `mlflow.pyfunc.add_to_model` does it, whose import prints warnings and takes a second.
    model.add_flavor(
        "python_function",
        loader_module="degrain.tracking.served",
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
