"""Whether retrainings that are killed at random moments end as one that is not.

    python tests/benchmarks/retraining_kills.py --kills 20 --out runs/kills

A first retraining makes a champion, then photos of two new scenes arrive. From there, one
retraining runs undisturbed; then each of the others, from the same state, is killed by `kill -9` at
a random moment and run again. After each kill the champion has to load and denoise, and the lease
has to be free. Prints what differs from the undisturbed one.
"""

import argparse
import json
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from cli import CODE
from kills import kill_after
from mlflow import MlflowClient
from skimage import data as skimage_data
from table import Table, print_tables, progress

from degrain.imaging.camera_noise import ISO_LEVELS, photograph
from degrain.imaging.codecs import encode_png
from degrain.registry.versions import load_registered
from degrain.storage.lease import exclusive
from degrain.storage.location import Storage

MODEL = "degrain-denoiser"
OPTIONS = ["--noisy-name", "noisy/{scene}.png", "--clean-name", "clean/{scene}.png"]
OPTIONS += ["--patch-size", "32", "--models", "red10", "--trials", "2", "--search", "random"]
OPTIONS += ["--steps", "20", "--refit-steps", "40", "--batch-size", "4", "--crop", "24"]
RULES = "{must_beat: [], confidence: 0, max_ssim_loss: 1, max_slice_loss_db: 99, "
RULES += "max_colour_shift: 255, max_colour_cast: 255}"


@dataclass(frozen=True)
class State:
    """What is left of a retraining."""

    decision: str
    champion: str
    versions: int
    retrainings: int
    """Runs in MLflow."""
    most_runs_of_a_trial: int
    promotions: int
    """Records of decisions."""


class Folder:
    """Photos, patch sets, studies and store of the retrainings."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.path = folder
        self.restored = 0
        store = "tracking_uri: sqlite:///mlflow.db\nartifacts: mlartifacts\n"
        (folder / "mlflow.yaml").write_text(f"{store}promotion: {RULES}\n")

    def deliver(self, scenes: range) -> None:
        """Write pairs of new scenes."""
        photo = skimage_data.astronaut()
        for number in scenes:
            top = 37 * number % 400
            clean = np.ascontiguousarray(photo[top : top + 96, 100:196])
            noisy = photograph(clean, ISO_LEVELS[3200], np.random.default_rng(number))
            for kind, pixels in (("noisy", noisy), ("clean", clean)):
                file = self.path / "photos" / kind / f"s{number}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(encode_png(pixels))

    def start(self) -> subprocess.Popen[bytes]:
        """Start `degrain retrain` in a session of its own."""
        where = ["--corpus", "pairs=photos", "--out", "patches", "--studies", "studies"]
        where += ["--mlflow", "mlflow.yaml", "--summary", "summary.json"]
        command = [sys.executable, "-c", CODE, "retrain", *where, *OPTIONS]
        with (self.path.parent / "log.txt").open("a") as log:
            return subprocess.Popen(
                command, cwd=self.path, stdout=log, stderr=log, start_new_session=True
            )

    def finish(self) -> float:
        """Retrain to the end; returns the seconds."""
        began = time.monotonic()
        if self.start().wait():
            raise SystemExit(f"a retraining failed: see {self.path.parent / 'log.txt'}")
        return time.monotonic() - began

    @property
    def client(self) -> MlflowClient:
        """The store. MLflow keeps connections by address, and those to a file that was replaced
        would read the former one.
        """
        return MlflowClient(f"sqlite:///{self.path}{'/.' * self.restored}/mlflow.db")

    def restore(self, saved: Path) -> None:
        """Replace all files by saved ones."""
        shutil.rmtree(self.path)
        shutil.copytree(saved, self.path)
        self.restored += 1

    def check_champion(self) -> None:
        """Load the champion, denoise, and take the lease."""
        denoiser, _ = load_registered(self.client, f"models:/{MODEL}@champion")
        photo = np.zeros((32, 32, 3), np.uint8)
        assert denoiser(photo).shape == photo.shape
        with exclusive(Storage().locate(self.path / "patches") / "retrain.lock", "check"):
            pass

    def state(self) -> State:
        """What the store has."""
        client = self.client
        experiment = client.get_experiment_by_name("degrain")
        assert experiment is not None
        runs = {
            kind: client.search_runs([experiment.experiment_id], f"tags.`degrain.kind` = '{kind}'")
            for kind in ("retraining", "trial", "promotion")
        }
        trials = Counter(
            (r.data.tags["mlflow.parentRunId"], r.info.run_name) for r in runs["trial"]
        )
        decisions = [r.data.tags.get("decision", "none") for r in runs["retraining"]]
        return State(
            decision=decisions[0],
            champion=str(client.get_model_version_by_alias(MODEL, "champion").version),
            versions=len(client.search_model_versions(f"name='{MODEL}'")),
            retrainings=len(decisions),
            most_runs_of_a_trial=max(trials.values()),
            promotions=len(runs["promotion"]),
        )


def kill_and_repeat(folder: Folder, seconds: float) -> bool:
    """Kill a retraining after `seconds`, check, and run it again; whether it was still running."""
    killed = kill_after(folder.start(), seconds)
    folder.check_champion()
    folder.finish()
    folder.check_champion()
    return killed


def main() -> int:
    """Run all retrainings and print the table."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--out", type=Path, required=True, help="a folder that does not exist")
    options.add_argument("--kills", type=int, default=20)
    options.add_argument("--seed", type=int, default=0, help="of the moments")
    chosen = options.parse_args()
    out: Path = chosen.out.absolute()
    folder, saved = Folder(out / "work"), out / "before"
    folder.deliver(range(8))
    folder.finish()
    folder.deliver(range(8, 10))
    shutil.copytree(folder.path, saved)
    seconds = folder.finish()
    expected = folder.state()
    progress(f"undisturbed, {seconds:.0f} s: {json.dumps(asdict(expected))}")
    moments, rows = random.Random(chosen.seed), []
    for number in range(chosen.kills):
        folder.restore(saved)
        wait = moments.uniform(0.02, 1.0) * seconds
        killed = kill_and_repeat(folder, wait)
        found = asdict(folder.state())
        differs = [k for k, v in asdict(expected).items() if found[k] != v]
        text = ", ".join(f"{k}: {found[k]}" for k in differs) or "nothing"
        rows.append([str(number + 1), f"{wait:.1f}", "yes" if killed else "no", text])
        progress(" | ".join(rows[-1]))
    caption = f"Undisturbed: {json.dumps(asdict(expected))}"
    print_tables([Table(["", "seconds", "killed", "differs"], rows, caption)])
    return 0


if __name__ == "__main__":
    sys.exit(main())
