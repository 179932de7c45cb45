"""The network that docs/own-network.md adds: one file and two lines, and it is everywhere."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from documented import ROOT, blocks

USE = """
import numpy as np
from degrain.inference.config import InferenceConfig
from degrain.inference.denoiser import NetworkDenoiser
from degrain.loading.patches import ResidentPatches
from degrain.training.config import TrainingConfig, by_recipe
from degrain.training.loop import train
from degrain.training.session import LocalSession
from degrain.tuning.config import StudyConfig
from degrain.tuning.space import search_space
from denoisenets import list_models

assert "tiny" in list_models()
space = search_space("tiny", StudyConfig(models=("tiny",)).scale or "small")
draw = space.draw(lambda _, domain: domain.middle)
assert draw.arguments == {"width": 16}
pixels = np.random.default_rng(0).integers(0, 256, (16, 64, 64, 3), dtype=np.uint8)
patches = ResidentPatches([(pixels, pixels)])
config = by_recipe(TrainingConfig(**draw.to_dict(), steps=2, validate_every=2))
state = train(config, LocalSession(patches, patches))
weights = state.ema.network.state_dict()
denoiser = NetworkDenoiser("tiny", config.arguments, weights, config=InferenceConfig(memory=16))
assert denoiser(pixels[0]).shape == (64, 64, 3)
"""


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The code with the network of the page."""
    for folder in ("platform", "models"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    code, diff = blocks(ROOT / "docs" / "own-network.md")[:2]
    assert (code.language, diff.language) == ("python", "diff")
    (tmp_path / "models" / "denoisenets" / "tiny.py").write_text(code.code)
    subprocess.run(["git", "apply", "-"], input=diff.code, text=True, cwd=tmp_path, check=True)
    return tmp_path


def run(copy: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words],
        env={"PYTHONPATH": f"{copy / 'platform'}:{copy / 'models'}", "OMP_NUM_THREADS": "1"},
        cwd=copy,
        capture_output=True,
        text=True,
    )


def test_a_network_of_one_file_and_two_lines_is_searched_trained_and_used(copy: Path) -> None:
    done = run(copy, "-c", USE)
    assert done.returncode == 0, done.stderr


def test_it_is_a_name_that_commands_know(copy: Path) -> None:
    code = "import sys; from degrain.cli.main import main; sys.exit(main(sys.argv[1:]))"
    for words in (
        "train --data x --model tinny",
        "tune --data x --models tinny",
        "import x.pth --licence MIT --network tinny",
    ):
        done = run(copy, "-c", code, *words.split())
        assert done.returncode == 2
        assert "'tinny'; did you mean 'tiny'?" in done.stderr
