"""Networks, training step and loop, loader and denoiser need PyTorch and NumPy alone."""

import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path

import pytest
import torch
from documented import ROOT
from packaging.requirements import Requirement

USE = """
import numpy as np
import degrain.training.checkpoint
from degrain.loading.patches import ResidentPatches
from degrain.inference.config import InferenceConfig
from degrain.inference.denoiser import NetworkDenoiser
from degrain.training.config import TrainingConfig
from degrain.training.loop import train
from degrain.training.session import LocalSession

pixels = np.zeros((8, 32, 32, 3), np.uint8)
patches = ResidentPatches([(pixels, pixels)])
arguments = {"width": 4}
config = TrainingConfig(
    model="unet", arguments=arguments, steps=2, batch_size=2, validate_every=2
)
state = train(config, LocalSession(patches, patches))
weights = state.ema.network.state_dict()
denoiser = NetworkDenoiser("unet", arguments, weights, config=InferenceConfig(memory=16))
assert denoiser(pixels[0]).shape == (32, 32, 3)
print("done")
"""


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A folder with the packages of PyTorch, its dependencies, and NumPy."""
    packages = Path(torch.__file__).parents[1]
    names = {"torch", "torchgen", "functorch", "numpy", "numpy.libs", "mpmath", "markupsafe"}
    names |= {Requirement(line).name.replace("-", "_").lower() for line in requires("torch") or []}
    names |= {"typing_extensions.py", "isympy.py"}
    for name in names:
        if (packages / name).exists():
            (tmp_path / name).symlink_to(packages / name)
    return tmp_path


def run(code: str, packages: Path) -> subprocess.CompletedProcess[str]:
    path = ":".join(map(str, (ROOT / "platform", ROOT / "models", packages)))
    # -S leaves the installed packages out.
    command = [sys.executable, "-S", "-c", code]
    return subprocess.run(
        command, env={"PYTHONPATH": path}, capture_output=True, text=True, timeout=600, check=False
    )


@pytest.mark.slow
def test_training_and_denoising_need_torch_and_numpy_alone(bare: Path) -> None:
    done = run(USE, bare)
    assert done.stdout == "done\n", done.stderr


def test_codecs_need_imagecodecs(bare: Path) -> None:
    assert "No module named 'imagecodecs'" in run("import degrain.imaging.codecs", bare).stderr


def test_import_degrain_imports_no_other_package(bare: Path) -> None:
    code = "import sys; before = set(sys.modules); import degrain; degrain.load; "
    code += "print({m for m in set(sys.modules) - before if m.split('.')[0] in "
    code += "('torch', 'numpy', 'mlflow', 'ray', 'PIL')})"
    assert run(code, bare).stdout == "set()\n"
