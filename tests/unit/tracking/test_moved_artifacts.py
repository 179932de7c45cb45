"""A store whose folder was moved is used where it is; artifacts that are gone are one line."""

import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from unit.serving_support import untrained

from degrain.errors import UserError
from degrain.inference.config import InferenceConfig
from degrain.registry.resolver import Resolver
from degrain.registry.versions import register
from degrain.serving.config import ServingConfig
from degrain.serving.settings import check_reachable, read_settings
from degrain.storage.location import Storage
from degrain.tracking.config import load_tracking_config
from degrain.tracking.moved_artifacts import present_path
from degrain.tracking.runs import Tracker


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store that has a champion."""
    folder = tmp_path_factory.mktemp("made") / "work"
    folder.mkdir()
    tracker = open_tracker(folder)
    weights, card = untrained(1)
    with tracker.run("first", "training") as run:
        version = register(tracker, run, weights, card)
    tracker.client.set_registered_model_alias(version.name, "champion", version.version)
    return folder


def open_tracker(folder: Path) -> Tracker:
    (folder / "mlflow.yaml").write_text("{}\n")
    return Tracker.open(load_tracking_config(folder / "mlflow.yaml"), Storage())


@pytest.fixture
def moved(made: Path, tmp_path: Path) -> Iterator[Path]:
    """The folder at another place; nothing is left where it was made."""
    copied = shutil.copytree(made, tmp_path / "moved")
    hidden = made.rename(made.with_name("hidden"))
    yield copied
    shutil.rmtree(made, ignore_errors=True)
    hidden.rename(made)


def name_of_champion(folder: Path) -> str:
    return Resolver(folder / "mlflow.yaml", Storage()).load(None)[0].name


def test_a_moved_folder_is_used_where_it_is(made: Path, moved: Path) -> None:
    assert name_of_champion(moved) == "degrain-denoiser v1"
    with open_tracker(moved).run("second", "training") as run:
        run.files({"note.txt": b"note"})
    assert (moved / "mlartifacts" / run.id / "artifacts" / "note.txt").exists()
    assert not made.exists()


def test_champions_whose_files_are_gone_are_one_line(moved: Path) -> None:
    shutil.rmtree(moved / "mlartifacts")
    message = r"the files of degrain-denoiser v1 cannot be read from '.*; restore them there or in"
    with pytest.raises(UserError, match=message):
        name_of_champion(moved)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        serving = ServingConfig(port=probe.getsockname()[1])
    settings = read_settings(serving, InferenceConfig(), moved / "mlflow.yaml")
    with pytest.raises(UserError, match=message):
        check_reachable(settings)


def test_recorded_places_that_exist_stay(tmp_path: Path) -> None:
    run = f"{'0' * 32}/artifacts/model"
    recorded = tmp_path / "old" / run
    recorded.mkdir(parents=True)
    folder = tmp_path / "new"
    assert present_path(str(recorded), folder) == recorded
    (folder / run).mkdir(parents=True)
    assert present_path(str(recorded), folder) == folder / run
    assert present_path("/elsewhere/model", folder) == Path("/elsewhere/model")
