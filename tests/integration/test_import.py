"""`degrain import` on a real MLflow store, from a published file to a denoised photo."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from integration.support import ROOT, Outcome, empty_store, run_here, write_tracking
from mlflow import MlflowClient
from skimage import data as skimage_data
from unit.published_networks import PUBLISHED, random_weights

from degrain.imaging.codecs import decode, encode_png
from degrain.registry.resolver import Resolver
from degrain.storage.location import Storage
from degrain.tracking.config import load_tracking_config
from degrain.tracking.runs import connect

LICENCE = ["--licence", "MIT", "--source", "https://example.org/weights"]


def write_checkpoint(folder: Path, name: str = "nafnet") -> Path:
    file = folder / f"{name}.pth"
    torch.save({"params": random_weights(PUBLISHED[name].shapes)}, file)
    return file


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    file = tmp_path / "photo.png"
    file.write_bytes(encode_png(np.ascontiguousarray(skimage_data.astronaut()[:64, 100:164])))
    return file


def client_of(tracking: Path) -> MlflowClient:
    return connect(load_tracking_config(tracking), Storage())


def test_imported_weights_are_registered_and_denoise(tmp_path: Path, photo: Path) -> None:
    tracking, file = write_tracking(tmp_path), write_checkpoint(tmp_path)
    argv = [file, "--network", "nafnet32", "--name", "my-nafnet", "--mlflow", tracking, *LICENCE]
    done = run_here("import", argv, tmp_path)
    assert done.status == 0, done.err
    assert "degrain denoise PHOTO --out denoised --model models:/my-nafnet/1" in done.out
    assert done.summary["model"] == "models:/my-nafnet/1"

    client = client_of(tracking)
    version = client.get_model_version("my-nafnet", "1")
    run = client.get_run(version.run_id)
    assert (run.data.tags["degrain.kind"], run.info.status) == ("import", "FINISHED")
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    source = {"file": "nafnet.pth", "sha256": digest, "licence": "MIT"}
    source["origin"] = "https://example.org/weights"
    for tags in (version.tags, run.data.tags):
        assert {f"source.{key}": value for key, value in source.items()}.items() <= tags.items()
        assert "patch_set" not in tags

    denoiser, card = Resolver(tracking, Storage()).load("models:/my-nafnet/1")
    assert (card.source, card.patch_set, card.training) == (source, None, {})
    assert card.arguments == {"width": 4, "depth": 2, "levels": 4}
    out = tmp_path / "clean"
    options = ["--out", out, "--model", "models:/my-nafnet/1", "--mlflow", tracking]
    applied = run_here("denoise", [photo, *options], tmp_path)
    assert applied.status == 0, applied.err
    noisy = decode(photo.read_bytes())
    assert np.array_equal(decode((out / "photo.png").read_bytes()), denoiser(noisy))

    again = run_here("import", argv, tmp_path)
    assert again.summary["model"] == "models:/my-nafnet/2"


def test_without_a_name_the_model_of_the_tracking_file_gets_a_version(tmp_path: Path) -> None:
    tracking, file = write_tracking(tmp_path), write_checkpoint(tmp_path, "dncnn")
    argv = [file, "--network", "dncnn", "--mlflow", tracking, "--licence", "MIT"]
    done = run_here("import", argv, tmp_path)
    assert done.summary["model"] == "models:/degrain-denoiser/1"
    assert "origin" not in done.summary["source"]


@pytest.fixture
def imported(tmp_path: Path) -> tuple[Path, Outcome]:
    """FFDNet, written to a folder without a store."""
    folder = tmp_path / "models" / "ffdnet"
    file = write_checkpoint(tmp_path, "ffdnet")
    argv = [file, "--network", "ffdnet", "--out", folder, "--crop", 96, *LICENCE]
    return folder, run_here("import", argv, tmp_path)


def test_out_writes_a_model_folder_that_denoises(
    imported: tuple[Path, Outcome], tmp_path: Path, photo: Path
) -> None:
    folder, done = imported
    assert done.status == 0, done.err
    names = {path.name for path in folder.iterdir()}
    assert {"card.json", "weights.safetensors", "MLmodel", "manifest.json"} <= names
    assert [path.name for path in folder.parent.iterdir()] == ["ffdnet"]
    card = json.loads((folder / "card.json").read_text())
    assert (card["crop"], card["arguments"]["residual"]) == (96, False)
    assert not (tmp_path / "mlflow.db").exists()
    options = ["--out", tmp_path / "clean", "--model", folder, "--noise-level", 0.1]
    applied = run_here("denoise", [photo, *options], tmp_path)
    assert applied.status == 0, applied.err


def test_out_keeps_what_is_in_the_folder(imported: tuple[Path, Outcome], tmp_path: Path) -> None:
    folder, _ = imported
    argv = [tmp_path / "ffdnet.pth", "--network", "ffdnet", "--out", folder, "--licence", "MIT"]
    again = run_here("import", argv, tmp_path)
    assert again.status == 2
    assert again.err == f"error: --out '{folder}' exists and is not empty; name another folder\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--network", "nafnet33"], "unknown network 'nafnet33'; did you mean 'nafnet32'?"),
        (["--network", "pridnet"], "its authors published TensorFlow code"),
        (["--network", "drunet"], "has no tensor 'm_head.weight', but intro.weight"),
        (["--network", "nafnet32", "--arguments", '{"depth": 1}'], "its depth is 2, not 1; leave"),
        (["--network", "nafnet32", "--licence", " "], "--licence must not be empty"),
        (["--network", "nafnet32", "--name", "a/b"], "--name must not be empty or contain"),
        (["--network", "nafnet32", "--out", "x", "--name", "y"], "cannot be combined with --out"),
        (["--network", "nafnet32", "--crop", "0"], "--crop must be at least 1, got 0"),
    ],
)
def test_bad_input_is_one_line_and_registers_nothing(
    tmp_path: Path, options: list[str], message: str
) -> None:
    tracking, file = write_tracking(tmp_path), write_checkpoint(tmp_path)
    argv = [file, "--licence", "MIT", "--mlflow", tracking, *options]
    done = run_here("import", argv, tmp_path)
    assert done.status == 2
    assert message in done.err
    assert done.err.count("\n") == 1
    assert (tmp_path / "mlflow.db").read_bytes() == empty_store()


def test_licence_is_required(tmp_path: Path) -> None:
    done = run_here("import", [write_checkpoint(tmp_path), "--network", "nafnet32"], tmp_path)
    assert done.status == 2
    assert "required: --licence" in done.err


def test_help_does_not_import_torch() -> None:
    code = (
        "import sys; from degrain.cli.main import main\n"
        "try: main(['import', '--help'])\n"
        "except SystemExit: pass\n"
        "print({'torch', 'mlflow', 'ray'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.splitlines()[-1] == "set()", done.stdout + done.stderr
    assert "--licence" in done.stdout
