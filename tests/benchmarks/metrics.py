"""100,000 metrics a minute into MLflow: degrain's tracking, from several processes.

    python tests/benchmarks/run.py metrics

Each process has a run and a metric journal, and measures ten metrics at a time at a steady rate for
a minute, like a training of which each is the driver. Afterwards the rows in the database are
counted. A second measurement sends without a pause, which is the most that the server takes.
"""

import json
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import sqlalchemy

sys.path[:0] = [str(Path(__file__).parents[2] / name) for name in ("platform", "models", "tests")]

from mlflow_server import mlflow_server  # noqa: E402
from postgresql_server import postgresql, programs, uri  # noqa: E402
from table import Settings, Table, progress  # noqa: E402

from degrain.storage.location import Storage  # noqa: E402
from degrain.tracking.config import TrackingConfig  # noqa: E402
from degrain.tracking.metric_journal import MetricJournal  # noqa: E402
from degrain.tracking.runs import Tracker  # noqa: E402

PER_MINUTE = 100_000
PROCESSES = 4
AT_ONCE = 10
SECONDS = 60.0


def send(url: str, folder: Path, number: int, count: int, seconds: float) -> None:
    """Measure `count` times ten metrics within `seconds`; prints the seconds until all are sent."""
    tracker = Tracker.open(TrackingConfig(tracking_uri=url), Storage())
    with tracker.run(f"training-{number}", "training") as run:
        # All processes begin together.
        (folder / f"ready-{number}").touch()
        while not (folder / "start").exists():
            time.sleep(0.01)
        began = time.monotonic()
        with MetricJournal(run, Storage().locate(folder / "unsent"), progress) as journal:
            for step in range(count):
                time.sleep(max(0.0, began + step * seconds / count - time.monotonic()))
                journal.metrics({f"metric_{i}": float(step) for i in range(AT_ONCE)}, step)
            measured = time.monotonic() - began
        print(json.dumps({"measured": measured, "sent": time.monotonic() - began}))


def measure(store: str, folder: Path, metrics: int, seconds: float) -> tuple[float, float, int]:
    """Send metrics from all processes: seconds until the last was measured, and was sent; lost."""
    folder.mkdir(parents=True)
    each = metrics // PROCESSES // AT_ONCE
    with mlflow_server(folder, store) as url:
        # The experiment exists before processes look for it.
        Tracker.open(TrackingConfig(tracking_uri=url), Storage())
        senders = [
            subprocess.Popen(
                [sys.executable, __file__, url, str(folder), str(n), str(each), str(seconds)],
                stdout=subprocess.PIPE,
                text=True,
            )
            for n in range(PROCESSES)
        ]
        while sum(1 for _ in folder.glob("ready-*")) < PROCESSES:
            assert all(sender.poll() is None for sender in senders)
            time.sleep(0.05)
        before = rows(store)
        (folder / "start").touch()
        results = [json.loads(sender.communicate()[0]) for sender in senders]
        assert not any(sender.returncode for sender in senders)
    lost = each * AT_ONCE * PROCESSES - (rows(store) - before)
    return max(r["measured"] for r in results), max(r["sent"] for r in results), lost


def rows(store: str) -> int:
    """Rows of metrics in the database."""
    engine = sqlalchemy.create_engine(store)
    with engine.connect() as connection:
        found = connection.execute(sqlalchemy.text("SELECT count(*) FROM metrics")).scalar()
    engine.dispose()
    return int(found or 0)


def run(settings: Settings) -> list[Table]:
    """Steady and fastest rate, on SQLite and, where it is installed, on PostgreSQL."""
    seconds = 3.0 if settings.quick else SECONDS
    steady = int(PER_MINUTE * seconds / 60)
    found: list[tuple[str, ...]] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stores = {"SQLite": f"sqlite:///{folder}/mlflow.db"}
        if programs() is not None:
            stores["PostgreSQL"] = uri(stack.enter_context(postgresql()))
        for name, store in stores.items():
            for label, length in (("steady", seconds), ("fastest", 0.0)):
                progress(f"{name}, {label}")
                measured, sent, lost = measure(store, folder / name / label, steady, length)
                found.append(
                    (
                        f"{name}, {label}",
                        f"{steady:,}",
                        f"{measured:.1f}",
                        f"{sent - measured:.1f}",
                        f"{60 * steady / sent:,.0f}",
                        f"{lost}",
                    )
                )
    columns = (
        f"{PROCESSES} processes, {AT_ONCE} metrics at a time",
        "metrics",
        "measured in s",
        "then sent after s",
        "per minute",
        "lost",
    )
    return [Table(columns, found)]


if __name__ == "__main__":
    url, place, number, count, length = sys.argv[1:]
    send(url, Path(place), int(number), int(count), float(length))
