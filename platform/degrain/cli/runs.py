"""`degrain runs`: what studies and trainings have left behind, and its removal."""

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import tyro

from degrain.cli.console import Console
from degrain.cli.options import TrackingOptions
from degrain.durations import Duration
from degrain.errors import UserError

if TYPE_CHECKING:
    from degrain.stored_runs import StoredRun


@dataclass(frozen=True, kw_only=True)
class Runs(TrackingOptions):
    """List studies and trainings, those of retrainings among them, with their state and size;
    remove those that are not needed any more.
    """

    folder: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")] = "runs"
    """Folder or s3:// URI below which they are."""
    remove: tuple[str, ...] = ()
    """Names of those to remove, separated by commas: checkpoints, tables, and in MLflow the runs.
    Runs of registered versions stay in MLflow."""
    older_than: Duration | None = None
    """Remove those that have ended and were not written to for so long, e.g. 30d. None: only those
    that are named."""

    def run(self, console: Console) -> dict[str, object]:
        """List, or remove."""
        from degrain.storage.location import Storage
        from degrain.stored_runs import check_removable, find_runs, remove
        from degrain.tracking.config import load_tracking_config
        from degrain.tracking.runs import Tracker

        storage = Storage.from_environment()
        folder = storage.locate(self.folder)
        folder.check_answers()
        if not folder.is_folder():
            raise UserError(f"there is no folder '{folder}'; name one below which there are runs")
        tracker = Tracker.open(load_tracking_config(self.mlflow), storage)
        found, now = find_runs(folder, tracker), time.time()
        chosen = self._chosen(found, now)
        for run in chosen:
            check_removable(run, now)
        for run in chosen:
            remove(run, tracker)
            console.print(f"removed: {run.name}, {_size(run.size)}")
        if not chosen:
            _show(found, str(folder), console)
        left = [run for run in found if run not in chosen]
        return {
            "runs": [run.to_dict() for run in left],
            "removed": [run.to_dict() for run in chosen],
        }

    def _chosen(self, found: "list[StoredRun]", now: float) -> "list[StoredRun]":
        """What is to be removed. Raises UserError for a name that there is not."""
        from degrain.stored_runs import RUNNING
        from denoisenets.suggestions import unknown_name

        names = [run.name for run in found]
        for name in self.remove:
            if name not in names:
                raise UserError(unknown_name("run", name, names))
        return [
            run
            for run in found
            if run.name in self.remove
            or (
                self.older_than is not None
                and not run.retraining
                and run.state != RUNNING
                and now - run.changed > self.older_than
            )
        ]


def _show(found: "list[StoredRun]", folder: str, console: Console) -> None:
    if not found:
        console.print(f"no studies and no trainings in '{folder}'")
        return
    rows = [("name", "kind", "state", "last written", "size", "versions")]
    for run in found:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(run.changed))
        state = f"{run.state}, its retraining goes on" if run.retraining else run.state
        rows.append((run.name, run.kind, state, when, _size(run.size), ", ".join(run.versions)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
        console.print("  ".join(cells).rstrip())


def _size(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


COMMAND = Runs
