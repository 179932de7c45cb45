"""The starter model: what denoises before there is a champion, and what training starts from."""

from pathlib import Path

import numpy as np
import pytest
from integration.support import SCENES, TEMPLATES, run_here, write_pairs, write_tracking

import degrain
from degrain.imaging.codecs import decode
from degrain.inference.config import STARTER

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a corpus in `photos` and its patch set in `patches`."""
    folder = tmp_path_factory.mktemp("starter")
    corpus = write_pairs(folder / "photos", SCENES)
    write_tracking(folder)
    ingest = ["--corpus", f"pairs={corpus}", "--out", folder / "patches", "--patch-size", 32]
    assert run_here("ingest", [*ingest, *TEMPLATES], folder).status == 0
    return folder


def test_denoise_without_a_champion_uses_the_starter_and_says_so(
    photos: Path, tmp_path: Path, ray_cluster: None
) -> None:
    noisy = sorted((photos / "photos" / "noisy").iterdir())[0]
    argv = [noisy, "--out", tmp_path / "clean", "--mlflow", photos / "mlflow.yaml"]
    done = run_here("denoise", argv, tmp_path)
    assert done.status == 0, done.err
    assert done.out.startswith("there is no champion: using the starter model")
    written = decode((tmp_path / "clean" / f"{noisy.stem}.png").read_bytes())
    assert np.array_equal(written, degrain.load(STARTER)(decode(noisy.read_bytes())))
    assert np.array_equal(
        written, degrain.load(mlflow=photos / "mlflow.yaml")(decode(noisy.read_bytes()))
    )


@pytest.mark.soak
def test_training_from_the_starter_with_a_budget(
    photos: Path, tmp_path: Path, ray_cluster: None
) -> None:
    argv = ["--data", photos / "patches", "--start", "starter", "--budget", "20s"]
    argv += ["--out", tmp_path, "--mlflow", photos / "mlflow.yaml", "--batch-size", 2, "--crop", 32]
    done = run_here("train", argv, tmp_path)
    assert done.status == 0, done.err
    assert done.summary["model"] == "fast24"
    # A busy machine may have used up the time before the first step.
    steps = done.summary["steps"]
    planned = f"{steps} steps fit into the budget" if steps > 1 else "left time for one step alone"
    assert planned in done.out
    resumed = run_here(
        "train",
        ["--resume", done.summary["name"], "--out", tmp_path, "--mlflow", photos / "mlflow.yaml"],
        tmp_path,
    )
    assert resumed.status == 0, resumed.err
    assert resumed.summary["steps"] == steps
