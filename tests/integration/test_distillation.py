"""Distillation as a user runs it: noisy photos without clean partners, and a teacher."""

from pathlib import Path

import numpy as np
import pytest
from integration.support import SCENES, TEMPLATES, run_here, write_pairs, write_tracking

import degrain
from degrain.imaging.codecs import decode
from degrain.imaging.metrics import score_photo

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs in `photos`, more noisy photos in `alone`, and the patch set of both in `patches`."""
    folder = tmp_path_factory.mktemp("distillation")
    corpus = write_pairs(folder / "photos", SCENES)
    alone = write_pairs(folder / "more", ["forest", "garden"], side=96) / "noisy"
    write_tracking(folder)
    ingest = ["--corpus", f"pairs={corpus}", f"noisy={alone}", "--out", folder / "patches"]
    done = run_here("ingest", [*ingest, "--patch-size", 32, *TEMPLATES], folder)
    assert done.status == 0, done.err
    assert done.summary["pairs"] == len(SCENES) + 2
    return folder


def train(folder: Path, out: Path, *options: object) -> list[object]:
    argv: list[object] = ["--data", folder / "patches", "--model", "red10"]
    argv += ["--arguments", '{"width": 8}', "--steps", 30, "--batch-size", 4, "--out", out]
    return [*argv, "--mlflow", folder / "mlflow.yaml", *options]


def test_a_student_learns_from_noisy_photos_and_the_starter(
    folder: Path, tmp_path: Path, ray_cluster: None
) -> None:
    done = run_here("train", train(folder, tmp_path, "--teacher", "starter"), tmp_path)
    assert done.status == 0, done.err
    student = degrain.load(str(tmp_path / str(done.summary["name"]) / "model"))
    noisy, clean = (
        decode((folder / "photos" / kind / f"{SCENES[0]}_0.png").read_bytes())
        for kind in ("noisy", "clean")
    )
    assert score_photo(student(noisy), clean).psnr > score_photo(noisy, clean).psnr
    resumed = run_here(
        "train",
        ["--resume", done.summary["name"], "--out", tmp_path, "--mlflow", folder / "mlflow.yaml"],
        tmp_path,
    )
    assert resumed.status == 0, resumed.err
    again = degrain.load(str(tmp_path / str(done.summary["name"]) / "model"))
    assert np.array_equal(student(noisy), again(noisy))


def test_noisy_photos_without_a_teacher_are_refused(
    folder: Path, tmp_path: Path, ray_cluster: None
) -> None:
    done = run_here("train", train(folder, tmp_path), tmp_path)
    assert done.status == 2
    assert "noisy photos without clean partners" in done.err
    assert "name a model with `teacher`" in done.err or "--teacher" in done.err


def test_an_unknown_teacher_is_refused(folder: Path, tmp_path: Path, ray_cluster: None) -> None:
    argv = train(folder, tmp_path, "--teacher", tmp_path / "missing")
    done = run_here("train", argv, tmp_path)
    assert done.status == 2
    assert "missing" in done.err


def test_a_noisy_photo_cannot_be_a_test_scene(
    folder: Path, tmp_path: Path, ray_cluster: None
) -> None:
    argv = ["--corpus", f"pairs={folder / 'photos'}", f"noisy={folder / 'more' / 'noisy'}"]
    argv += ["--out", tmp_path, "--patch-size", "32", *TEMPLATES]
    argv += ["--test-scenes", "noisy/forest_0.png"]
    done = run_here("ingest", argv, tmp_path)
    assert done.status == 2
    assert "cannot be in test: its photo has no clean partner" in done.err
