"""What studies and trainings leave behind: a folder, runs in MLflow, and perhaps versions.

A study's folder has `study.json`, that of a training `run.json`; both name the run in MLflow, whose
status tells how it ended. What is removed goes with its trials and refits, but runs whose models
are registered versions stay in MLflow, and with them the files of those versions.
"""

import json
import posixpath
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlflow.exceptions import MlflowException

from degrain.errors import UserError
from degrain.retraining.record import read_record
from degrain.storage.location import Location
from degrain.tracking.runs import Tracker
from degrain.training.distributed.plan import PLAN_FILE
from degrain.tuning.state import STATE_FILE

KINDS = {STATE_FILE: "study", PLAN_FILE: "training"}
"""File that names the MLflow run to kind."""
RUNNING = "running"
_STATES = {"FINISHED": "finished", "FAILED": "failed", "KILLED": "interrupted"}
"""Status in MLflow to state; others, and a process that was killed, are RUNNING."""
_NOT_TRACKED = "not in MLflow"
_QUIET_SECONDS = 600
"""Without a new file for so long, what MLflow has as running was killed."""
_PAGE = 1000


@dataclass(frozen=True)
class StoredRun:
    """One study or training."""

    kind: str
    name: str
    """Name of its folder, by which it is resumed."""
    folder: Location
    run_id: str
    state: str
    """RUNNING, one of _STATES or _NOT_TRACKED."""
    changed: float
    """When its newest file was written, seconds since 1970."""
    size: int
    """Bytes of its files, without those in MLflow."""
    versions: Sequence[str]
    """Versions of the registered model that it made."""
    retraining: bool
    """Whether an interrupted retraining would go on with it."""

    def to_dict(self) -> dict[str, object]:
        """Return the entry of the summary file."""
        return {
            "kind": self.kind,
            "name": self.name,
            "folder": str(self.folder),
            "run_id": self.run_id,
            "state": self.state,
            "changed": self.changed,
            "bytes": self.size,
            "versions": list(self.versions),
        }


def find_runs(folder: Location, tracker: Tracker) -> list[StoredRun]:
    """The studies and trainings below a folder, by the time of their last change."""
    files = folder.files()
    roots = {
        root: name
        for path in files
        for root, name in [posixpath.split(path)]
        if name in KINDS and root
    }
    size, changed = dict.fromkeys(roots, 0), dict.fromkeys(roots, 0)
    for path, stamp in files.items():
        root = next((above for above in _folders_above(path) if above in roots), None)
        if root is not None:
            size[root] += stamp.size
            changed[root] = max(changed[root], stamp.changed)
    awaited = set(_awaited(folder, files))
    versions = _versions_by_run(tracker)
    found: list[StoredRun] = []
    for root, name in roots.items():
        content = _content(folder / root / name)
        if content is None:
            continue
        run_id, refits = str(content["run_id"]), content.get("refits", {}).values()
        made = {v for one in (run_id, *refits) for v in versions.get(one, ())}
        found.append(
            StoredRun(
                kind=KINDS[name],
                name=posixpath.basename(root),
                folder=folder / root,
                run_id=run_id,
                state=_state(tracker, run_id),
                changed=changed[root] / 1e9,
                size=size[root],
                versions=sorted(made, key=int),
                retraining=root in awaited,
            )
        )
    return sorted(found, key=lambda one: one.changed)


def check_removable(run: StoredRun, now: float) -> None:
    """Raise UserError for what runs, or will be gone on with."""
    if run.retraining:
        raise UserError(
            f"'{run.name}' belongs to a retraining that was interrupted and goes on with it; run "
            "`degrain retrain` to its end first"
        )
    quiet = now - run.changed
    if run.state == RUNNING and quiet < _QUIET_SECONDS:
        raise UserError(
            f"'{run.name}' wrote a file {quiet:.0f} s ago and has not ended; end it first, or, if "
            f"it was killed, wait until it is quiet for {_QUIET_SECONDS // 60} minutes"
        )


def remove(run: StoredRun, tracker: Tracker) -> None:
    """Delete the folder, and in MLflow the run and those below it that are no version's.

    What is interrupted can be repeated: the file that makes it a run goes last.
    """
    kept = set(_versions_by_run(tracker))
    if run.state != _NOT_TRACKED:
        below = f"tags.`mlflow.parentRunId` = '{run.run_id}' and tags.`degrain.kind` != 'promotion'"
        for child in list(tracker.search(below)):
            if child.info.run_id not in kept:
                tracker.client.delete_run(child.info.run_id)
        if not run.versions:
            tracker.client.delete_run(run.run_id)
    for path in sorted(run.folder.files(), key=lambda path: path in KINDS):
        (run.folder / path).remove()
    if not run.folder.remote:
        shutil.rmtree(run.folder.path)


def _folders_above(path: str) -> Iterator[str]:
    while path := posixpath.dirname(path):
        yield path


def _content(file: Location) -> dict[str, Any] | None:
    """What a file says that names a run; None for one that does not."""
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) and "run_id" in content else None


def _awaited(folder: Location, files: Mapping[str, object]) -> Iterator[str]:
    """The studies, relative to `folder`, with which interrupted retrainings go on."""
    for path in files:
        above, name = posixpath.split(path)
        if name.startswith("retraining-") and name.endswith(".json"):
            record = read_record(folder / path)
            if record is not None:
                yield posixpath.join(above, record.study)


def _state(tracker: Tracker, run_id: str) -> str:
    try:
        info = tracker.client.get_run(run_id).info
    except MlflowException:
        return _NOT_TRACKED
    if info.lifecycle_stage == "deleted":
        return _NOT_TRACKED
    return _STATES.get(info.status, RUNNING)


def _versions_by_run(tracker: Tracker) -> dict[str, list[str]]:
    """The versions of the registered model by the run that made them."""
    found: dict[str, list[str]] = {}
    token = None
    while True:
        page = tracker.client.search_model_versions(
            f"name='{tracker.config.model}'", max_results=_PAGE, page_token=token
        )
        for version in page:
            found.setdefault(str(version.run_id), []).append(str(version.version))
        if not (token := page.token):
            return found
