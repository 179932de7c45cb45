"""The database of an embedded store is whole whenever its creation or migration is killed."""

import contextlib
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy
from mlflow import MlflowClient
from mlflow.store.tracking.dbmodels.initial_models import Base as FirstRelease

from degrain.errors import UserError
from degrain.storage.location import Storage
from degrain.tracking import database as module
from degrain.tracking.client import connect
from degrain.tracking.config import TrackingConfig

START = (
    "import sys; from degrain.storage.location import Storage; "
    "from degrain.tracking.client import connect; "
    "from degrain.tracking.config import TrackingConfig; "
    "connect(TrackingConfig(tracking_uri=sys.argv[1]), Storage()).create_experiment('other')"
)
"""A process that opens the store and adds an experiment."""


def store(folder: Path) -> TrackingConfig:
    return TrackingConfig(tracking_uri=f"sqlite:///{folder}/mlflow.db")


def start_process(folder: Path) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-c", START, store(folder).tracking_uri])


def open_store(folder: Path) -> MlflowClient:
    return connect(store(folder), Storage())


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def after_migration(patch: pytest.MonkeyPatch, work: Callable[[], None]) -> None:
    """Have `work` called when tables were made, before others see them."""
    real = module.SqlAlchemyStore

    def make(*arguments: str) -> object:
        made = real(*arguments)  # type: ignore[no-untyped-call]
        work()
        return made

    patch.setattr(module, "SqlAlchemyStore", make)


def interrupt() -> None:
    raise KeyboardInterrupt


@pytest.mark.soak
def test_an_interrupted_creation_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    after_migration(monkeypatch, interrupt)
    with pytest.raises(KeyboardInterrupt):
        open_store(tmp_path)
    assert names(tmp_path) == []


@pytest.mark.soak
def test_a_killed_creation_is_done_anew(tmp_path: Path) -> None:
    process = start_process(tmp_path)
    while not (tmp_path / "mlflow.db.part" / "mlflow.db").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert "mlflow.db" not in names(tmp_path)
    open_store(tmp_path)
    assert names(tmp_path) == ["mlflow.db"]


@pytest.mark.soak
def test_two_first_starts_share_one_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other: list[subprocess.Popen[bytes]] = []

    def start_other() -> None:
        other.append(start_process(tmp_path))
        # It has to wait now.
        with pytest.raises(subprocess.TimeoutExpired):
            other[0].wait(8)

    after_migration(monkeypatch, start_other)
    client = open_store(tmp_path)
    client.create_experiment("this")
    assert other[0].wait(300) == 0
    assert client.get_experiment_by_name("this")
    assert client.get_experiment_by_name("other")
    assert names(tmp_path) == ["mlflow.db"]


@pytest.mark.soak
def test_a_migration_that_is_interrupted_leaves_the_old_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "mlflow.db"
    engine = sqlalchemy.create_engine(f"sqlite:///{file}")
    FirstRelease.metadata.create_all(engine)
    engine.dispose()
    with contextlib.closing(sqlite3.connect(file)) as database, database:
        database.execute("INSERT INTO experiments VALUES (1, 'old', 'mlartifacts/1', 'active')")
    before = file.read_bytes()
    with monkeypatch.context() as patch:
        after_migration(patch, interrupt)
        with pytest.raises(KeyboardInterrupt):
            open_store(tmp_path)
    assert file.read_bytes() == before
    inode = file.stat().st_ino
    assert open_store(tmp_path).get_experiment_by_name("old")
    assert file.stat().st_ino == inode
    assert names(tmp_path) == ["mlflow.db"]


def test_the_remedy_for_the_tables_of_another_version_is_a_whole_command(tmp_path: Path) -> None:
    open_store(tmp_path)
    older = tmp_path / ("a-long-name-of-a-folder" * 8)
    older.mkdir()
    shutil.copy(tmp_path / "mlflow.db", older)
    with contextlib.closing(sqlite3.connect(older / "mlflow.db")) as database, database:
        database.execute("UPDATE alembic_version SET version_num = 'older'")
    with pytest.raises(UserError) as caught:
        open_store(older)
    assert f"run 'mlflow db upgrade sqlite:///{older}/mlflow.db', or" in str(caught.value)
