"""Whether a study that is killed again and again ends as one that is not.

    python tests/benchmarks/kills.py --kills 5 --out runs/kills

Runs one study on the embedded corpus undisturbed. Then the same study again, whose driver is killed
by `kill -9` at random moments and resumed each time. Prints what differs: drawn trials, curves,
runs in MLflow, refits. The order in which trials report decides which of them are stopped early, so
curves are compared as far as both studies trained them.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cli import CODE
from mlflow import MlflowClient
from table import Table, print_tables, progress

STUDY = ["--models", "red10,unet", "--trials", "6", "--search", "random", "--seed", "7"]
STUDY += ["--steps", "60", "--refit-steps", "60", "--batch-size", "2", "--crop", "32"]
STUDY += ["--test-photos", "1"]


class Folder:
    """The output folder of a study, and its store."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.path = folder
        self.tracking = folder / "mlflow.yaml"
        self.tracking.write_text("tracking_uri: sqlite:///mlflow.db\nartifacts: mlartifacts\n")

    def start(self, *options: str) -> subprocess.Popen[str]:
        """Start `degrain tune` in a session of its own."""
        where = ["--out", str(self.path / "runs"), "--mlflow", str(self.tracking)]
        summary = ["--summary", str(self.path / "summary.json")]
        command = [sys.executable, "-c", CODE, "tune", *where, *summary, *options]
        log = (self.path / "log.txt").open("a")
        with log:
            return subprocess.Popen(
                command, cwd=self.path, stdout=log, stderr=log, text=True, start_new_session=True
            )

    def finish(self, *options: str) -> float:
        """Run to the end; returns the seconds."""
        began = time.monotonic()
        if self.start(*options).wait():
            raise SystemExit(f"the study failed: see {self.path / 'log.txt'}")
        return time.monotonic() - began

    @property
    def state_file(self) -> Path | None:
        """The file from which the study is resumed, if it has been written."""
        return next((self.path / "runs" / "studies").glob("*/study.json"), None)

    def state(self) -> dict[str, Any]:
        """The content of that file."""
        assert self.state_file is not None
        content: dict[str, Any] = json.loads(self.state_file.read_text())
        return content

    def summary(self) -> dict[str, Any]:
        """The summary of the finished study."""
        content: dict[str, Any] = json.loads((self.path / "summary.json").read_text())
        return content

    def names(self, kind: str) -> Counter[str]:
        """How often each trial or refit is in MLflow."""
        client = MlflowClient(f"sqlite:///{self.path / 'mlflow.db'}")
        experiment = client.get_experiment_by_name("degrain")
        assert experiment is not None
        runs = client.search_runs([experiment.experiment_id], f"tags.`degrain.kind` = '{kind}'")
        return Counter(run.info.run_name for run in runs)


def kill_after(
    process: subprocess.Popen[Any],
    seconds: float,
    begun: Callable[[], bool] = lambda: True,
) -> bool:
    """Kill -9 a driver, the leader of its session, `seconds` after it has begun; whether it was
    still running.
    """
    try:
        while not begun() and process.poll() is None:
            time.sleep(0.1)
        process.wait(seconds)
        return False
    except subprocess.TimeoutExpired:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        return True
    finally:
        # Its Ray ends by itself, but only after a while.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def disturbed(folder: Folder, kills: int, seconds: float, moments: random.Random) -> list[float]:
    """Kill and resume a study; returns the seconds after which it was killed each time."""
    killed: list[float] = []
    resume: list[str] = STUDY
    while len(killed) < kills:
        wait = moments.uniform(0.05, 0.6) * seconds
        if not kill_after(folder.start(*resume), wait, lambda: folder.state_file is not None):
            progress(f"the study ended before kill {len(killed) + 1}")
            return killed
        killed.append(wait)
        progress(f"killed after {wait:.0f} s")
        assert folder.state_file is not None
        resume = ["--resume", folder.state_file.parent.name]
    folder.finish(*resume)
    return killed


def compared(one: Folder, other: Folder) -> list[list[str]]:
    """Rows of the table: what, undisturbed, killed."""
    first, second = one.state()["trials"], other.state()["trials"]
    lengths = [
        next(
            (i for i, (a, b) in enumerate(zip(x["curve"], y["curve"], strict=False)) if a != b), -1
        )
        for x, y in zip(first, second, strict=True)
    ]
    draws = sum(x["draw"] == y["draw"] for x, y in zip(first, second, strict=True))
    rows = [
        ["trials drawn alike", str(len(first)), str(draws)],
        ["trials with the same curve", str(len(first)), str(lengths.count(-1))],
    ]
    for kind in ("trial", "refit"):
        counts = [f.names(kind) for f in (one, other)]
        most = [max(c.values()) for c in counts]
        rows.append([f"{kind}s in MLflow", *(str(len(c)) for c in counts)])
        rows.append([f"most runs of one {kind}", *map(str, most)])
    for kind in ("refits", "comparison"):
        for row in one.summary()[kind]:
            again = [r for r in other.summary()[kind] if r["model"] == row["model"]]
            psnr = "psnr" if "psnr" in row else "val_psnr"
            scores = [f"{r[psnr]:.4f}" for r in again] or ["-"]
            rows.append([f"{kind}: {row['model']}, dB", f"{row[psnr]:.4f}", *scores])
    return rows


def main() -> int:
    """Run both studies, and print the table."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--out", type=Path, required=True, help="a folder that does not exist")
    options.add_argument("--kills", type=int, default=5)
    options.add_argument("--seed", type=int, default=0, help="of the moments")
    chosen = options.parse_args()
    out: Path = chosen.out.absolute()
    one, other = Folder(out / "undisturbed"), Folder(out / "killed")
    seconds = one.finish(*STUDY)
    progress(f"undisturbed: {seconds:.0f} s")
    killed = disturbed(other, chosen.kills, seconds, random.Random(chosen.seed))
    caption = f"Killed {len(killed)} times, after {', '.join(f'{k:.0f}' for k in killed)} s."
    header = ["", "undisturbed", "killed"]
    print_tables([Table(header, compared(one, other), caption)])
    return 0


if __name__ == "__main__":
    sys.exit(main())
