"""What a study and a training leave in MLflow for its UI, for MLflow's own loading and serving."""

import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import mlflow.pyfunc
import numpy as np
import pytest
from integration.support import (
    ROOT,
    SCENES,
    TEMPLATES,
    free_ports,
    run_here,
    write_pairs,
    write_tracking,
)
from mlflow import MlflowClient
from mlflow.entities import Run

from degrain.imaging.codecs import decode, encode_png
from degrain.registry.files import write_manifest
from degrain.storage.location import Storage
from degrain.tracking.config import load_tracking_config
from degrain.tracking.runs import connect

pytestmark = pytest.mark.ray
CHAMPION = "models:/degrain-denoiser@champion"
USUAL = {"seconds", "train_loss", "val_psnr", "val_ssim", "learning_rate", "patches_per_second"}
"""Metrics of every training, trial and refit."""


@dataclass(frozen=True)
class Store:
    """A store with a study of one network and a training of another."""

    folder: Path
    client: MlflowClient
    study: str

    @property
    def tracking(self) -> Path:
        return self.folder / "mlflow.yaml"

    @property
    def uri(self) -> str:
        return load_tracking_config(self.tracking).tracking_uri

    @property
    def experiment_id(self) -> str:
        return str(self.client.get_experiment_by_name("degrain").experiment_id)

    def runs(self, kind: str) -> list[Run]:
        query = f"tags.`degrain.kind` = '{kind}'"
        return list(self.client.search_runs([self.experiment_id], query))

    @property
    def trained(self) -> list[Run]:
        return [run for kind in ("training", "trial", "refit") for run in self.runs(kind)]

    @property
    def model_folder(self) -> Path:
        """The champion's artifacts."""
        version = self.client.get_model_version_by_alias("degrain-denoiser", "champion")
        return Path(version.source)


@pytest.fixture(scope="module")
def store(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("ui")
    corpus = write_pairs(folder / "photos", SCENES)
    tracking = write_tracking(folder)
    out = folder / "patches"
    ingest = ["--corpus", f"pairs={corpus}", "--out", out, "--patch-size", 32, *TEMPLATES]
    assert run_here("ingest", ingest, folder).status == 0
    options = ["--data", out, "--mlflow", tracking, "--batch-size", 2, "--crop", 24]
    study = ["--models", "red10", "--trials", 2, "--steps", 8, "--refit-steps", 8]
    tuned = run_here("tune", [*options, *study, "--out", folder / "runs"], folder)
    assert tuned.status == 0, tuned.err
    training = ["--model", "mwcnn", "--arguments", '{"width": 8}', "--steps", 8, "--workers", 1]
    trained = run_here("train", [*options, *training, "--out", folder / "runs"], folder)
    assert trained.status == 0, trained.err
    client = connect(load_tracking_config(tracking), Storage())
    return Store(folder, client, tuned.summary["study_run_id"])


def test_the_experiment_opens_for_model_training(store: Store) -> None:
    tags = store.client.get_experiment(store.experiment_id).tags
    assert tags["mlflow.experimentKind"] == "custom_model_development"


def test_trainings_trials_and_refits_have_the_same_metrics_and_no_bookkeeping(
    store: Store,
) -> None:
    assert len(store.trained) == 4
    for run in store.trained:
        assert set(run.data.metrics) >= USUAL, run.info.run_name
        assert not {"step", "progress", "seconds_left"} & set(run.data.metrics)
        times = [m.value for m in store.client.get_metric_history(run.info.run_id, "seconds")]
        assert times == sorted(times)
        assert times[0] > 0


def test_the_comparison_of_trials_begins_with_their_psnr(store: Store) -> None:
    for run in store.runs("trial"):
        assert next(iter(run.data.metrics)) == "val_psnr"


def test_every_searched_value_is_a_parameter_of_trials_and_refits(store: Store) -> None:
    for run in [*store.runs("trial"), *store.runs("refit")]:
        assert {"model", "learning_rate", "loss", "start", "arguments.width"} <= set(
            run.data.params
        )


def test_runs_name_their_data_by_split(store: Store) -> None:
    version = json.loads((store.folder / "patches" / "current.json").read_text())["version"]
    used = {"training": ["patches train"], "evaluation": ["patches val"]}
    for run in [*store.trained, *store.runs("study")]:
        found: dict[str, list[str]] = {}
        for each in run.inputs.dataset_inputs:
            assert each.dataset.digest == version
            assert json.loads(each.dataset.profile)["pairs"] >= 1
            found.setdefault(each.tags[0].value, []).append(each.dataset.name)
        is_study = run.data.tags["degrain.kind"] == "study"
        of_study = {**used, "evaluation": ["patches test", "patches val"]}
        assert {k: sorted(v) for k, v in found.items()} == (of_study if is_study else used)


def test_runs_name_their_command_and_user(store: Store) -> None:
    for run in [*store.trained, *store.runs("study")]:
        assert {"mlflow.source.name", "mlflow.source.type", "mlflow.user"} <= set(run.data.tags)


@pytest.mark.parametrize(
    ("kind", "begin", "end"),
    [
        ("study", "Study of red10. The best of 1 refits is red10", "Registered: version "),
        ("trial", "One of 2 trials: red10, width ", "dB on the val split."),
        ("refit", "Refit of trial-0", "of 8, have "),
        ("training", "Training of mwcnn, 8 steps on 1 worker.", "of 8, have "),
    ],
)
def test_each_run_describes_what_it_is_and_how_it_ended(
    store: Store, kind: str, begin: str, end: str
) -> None:
    runs = store.runs(kind)
    assert runs
    for run in runs:
        note = run.data.tags["mlflow.note.content"]
        assert note.startswith(begin)
        assert end in note


@pytest.fixture
def served(store: Store, monkeypatch: pytest.MonkeyPatch) -> mlflow.pyfunc.PyFuncModel:
    """The champion, loaded by MLflow."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.uri)
    return mlflow.pyfunc.load_model(CHAMPION)


def test_mlflow_loads_the_champion_with_the_pixels_of_degrain_denoise(
    store: Store, served: mlflow.pyfunc.PyFuncModel, tmp_path: Path
) -> None:
    photos = sorted((store.folder / "photos" / "noisy").iterdir())[:2]
    argv = [*photos, "--out", tmp_path, "--mlflow", store.tracking, "--model", CHAMPION]
    # After MLflow has loaded the version, its folder has one file more.
    assert run_here("denoise", argv, tmp_path).status == 0
    output = served.predict(np.stack([decode(photo.read_bytes()) for photo in photos]))
    written = [decode((tmp_path / photo.name).read_bytes()) for photo in photos]
    assert np.array_equal(output, np.stack(written))


def test_a_trained_folder_loads_in_mlflow(store: Store) -> None:
    (folder,) = (store.folder / "runs").glob("mwcnn-*/model")
    photos = np.zeros((1, 16, 16, 3), np.uint8)
    assert mlflow.pyfunc.load_model(str(folder)).predict(photos).shape == photos.shape


def flip_a_bit(folder: Path) -> None:
    content = bytearray((folder / "weights.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "weights.safetensors").write_bytes(content)


def replace_with_another_model(folder: Path) -> None:
    """A folder that is consistent in itself, but is not the one that was registered."""
    flip_a_bit(folder)
    write_manifest(folder)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda f: (f / "python_model.pkl").write_bytes(b"x"), "'python_model.pkl' is not in"),
        (flip_a_bit, "'weights.safetensors' does not have the SHA-256 of manifest.json"),
        (replace_with_another_model, "manifest.json is not the one that was registered"),
        (lambda f: (f / "manifest.json").unlink(), "manifest.json is not the one that was"),
    ],
)
def test_a_registered_model_that_was_changed_is_refused_in_one_line(
    store: Store, tmp_path: Path, change: Callable[[Path], None], reason: str
) -> None:
    folder, backup = store.model_folder, tmp_path / "backup"
    shutil.copytree(folder, backup)
    photo = tmp_path / "photo.png"
    photo.write_bytes(encode_png(np.zeros((16, 16, 3), np.uint8)))
    argv = [photo, "--out", tmp_path / "out", "--mlflow", store.tracking, "--model", CHAMPION]
    try:
        change(folder)
        done = run_here("denoise", argv, tmp_path)
    finally:
        shutil.rmtree(folder)
        shutil.copytree(backup, folder)
    assert done.status == 2
    assert "--model 'degrain-denoiser v" in done.err
    assert reason in done.err
    assert done.err.count("\n") == 1
    assert not list((tmp_path / "out").glob("*.png"))


@pytest.fixture(params=[signal.SIGINT, signal.SIGTERM])
def ui(store: Store, request: pytest.FixtureRequest) -> Iterator[list[str]]:
    """The lines that `make ui` prints; afterwards it ends by a signal, and its server with it."""
    (port,) = free_ports(1)
    command = [sys.executable, str(ROOT / "infra" / "ray" / "ui.py"), "--port", str(port)]
    with subprocess.Popen(
        [*command, "--mlflow", str(store.tracking), "--folder", str(store.folder / "ui")],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler) and None,
    ) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line.strip())
            if line.startswith("end:"):
                break
        yield lines
        os.kill(process.pid, request.param)
        assert process.wait(timeout=600) == 0
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).close()


def test_ui_starts_a_server_and_prints_the_comparison_of_the_newest_study(
    store: Store, ui: list[str]
) -> None:
    pages = dict(line.split(maxsplit=1) for line in ui)
    with urllib.request.urlopen(pages["MLflow:"], timeout=30) as answer:
        assert b"MLflow" in answer.read()
    children = {run.info.run_id for run in [*store.runs("trial"), *store.runs("refit")]}
    query = parse_qs(urlsplit(pages["compare:"]).fragment.partition("?")[2])
    assert set(json.loads(query["runs"][0])) == children
    assert json.loads(query["experiments"][0]) == [store.experiment_id]
    assert "/#/models/degrain-denoiser?" in pages["model:"]
