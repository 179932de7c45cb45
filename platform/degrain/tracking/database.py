"""The SQLite database of an embedded store: tables are made and migrated out of sight.

MLflow makes and migrates its tables over seconds, in dozens of steps. A kill between them leaves a
database that MLflow can neither use nor migrate, and so do two processes that both begin. So one
process at a time does it, in a file of its own.
"""

import contextlib
import fcntl
import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from mlflow.store.db.base_sql_model import Base
from mlflow.store.tracking import DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore


def prepare_database(path: Path) -> None:
    """Create the database, or its missing tables, unless it is complete.

    A kill at any time leaves the database as it was. Raises OSError, sqlite3.Error or an error of
    MLflow if it cannot be read or written.
    """
    # A link stays a link.
    path = path.resolve()
    if _is_complete(path):
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path.with_name(f"{path.name}.lock")):
        # Another process may have been first.
        if not _is_complete(path):
            _complete(path)


def _is_complete(path: Path) -> bool:
    """Whether all tables exist; MLflow migrates a database in which one is missing."""
    if not path.exists():
        return False
    with contextlib.closing(_open(path)) as database:
        found = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    return set(Base.metadata.tables) <= {name for (name,) in found}


def _complete(path: Path) -> None:
    # A process that was killed may have left the folder.
    work = path.with_name(f"{path.name}.part")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    try:
        made = work / path.name
        if path.exists():
            _copy(path, made)
        store = SqlAlchemyStore(  # type: ignore[no-untyped-call]
            f"sqlite:///{made}", DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH
        )
        store.engine.dispose()
        if path.exists():
            # In one transaction; owner, rights and open connections of the file stay.
            _copy(made, path)
        else:
            made.rename(path)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _copy(source: Path, target: Path) -> None:
    target.touch()
    with (
        contextlib.closing(_open(source)) as read,
        contextlib.closing(_open(target)) as written,
    ):
        read.backup(written)


def _open(path: Path) -> sqlite3.Connection:
    """Open an existing database, for reading only if it cannot be written."""
    return sqlite3.connect(f"file:{quote(str(path))}?mode=rw", uri=True)


@contextlib.contextmanager
def _locked(lock: Path) -> Iterator[None]:
    """Wait for a lock and hold it; its file exists while a process has or awaits it."""
    while True:
        with lock.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            try:
                removed = not os.path.samestat(os.fstat(file.fileno()), lock.stat())
            except FileNotFoundError:
                removed = True
            if removed:
                # The holder before removed the file that was opened.
                continue
            try:
                yield
            finally:
                lock.unlink()
            return
