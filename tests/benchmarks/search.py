"""Compute that searches need to reach the best configurations, replayed from a recorded table.

    python tests/benchmarks/search.py record     # trains each configuration of the grid once
    python tests/benchmarks/run.py search        # replays searches on the recorded trainings

`search_trainings.json` has the curve and the CPU seconds of each configuration of a grid: networks
of `fast16`'s kind on the embedded corpus, for equal CPU time each.
"""

import itertools
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path[:0] = [str(Path(__file__).parents[2] / name) for name in ("platform", "models")]

from table import Settings, Table, progress  # noqa: E402

from degrain.domains import Choice, LogUniform  # noqa: E402
from degrain.loading.patches import Patches  # noqa: E402
from degrain.tuning.config import Algorithm  # noqa: E402
from degrain.tuning.sampler import Outcome, Suggester  # noqa: E402
from degrain.tuning.space import SearchSpace  # noqa: E402
from degrain.tuning.stopping import Rungs  # noqa: E402

TABLE = Path(__file__).with_name("search_trainings.json")
GRID: dict[str, tuple[Any, ...]] = {
    "width": (4, 8, 12),
    "depth": (1, 2),
    "batch_size": (2, 8),
    "loss": ("psnr", "l1"),
    "learning_rate": (3e-4, 1e-3, 3e-3, 1e-2, 3e-2),
}
SECONDS = 2.5
"""CPU seconds of a training."""
VALIDATIONS = 10
"""As many as a training with a budget has."""
TOP = 0.05
MOST_TRIALS = 400
SEARCHES: tuple[tuple[str, Algorithm, bool], ...] = (
    ("random", "random", False),
    ("random + early stopping", "random", True),
    ("TPE", "tpe", False),
    ("TPE + early stopping", "tpe", True),
)
SIDE, CROP = 96, 32


def record(limit: float = 1200) -> None:
    """Train each configuration, in an order that leaves a sample if `limit` seconds are over."""
    torch.set_num_threads(1)
    train_patches, val_patches = embedded_patches()
    rows: list[dict[str, Any]] = []
    grid = [dict(zip(GRID, values, strict=True)) for values in itertools.product(*GRID.values())]
    began = time.monotonic()
    for number in np.random.default_rng(0).permutation(len(grid)):
        if time.monotonic() - began > limit:
            break
        row = {**grid[number], **train_one(grid[number], train_patches, val_patches)}
        rows.append(row)
        progress(f"{len(rows)}/{len(grid)} {row}")
        TABLE.write_text("[\n" + ",\n".join(json.dumps(r) for r in rows) + "\n]\n")


def embedded_patches() -> tuple[Patches, Patches]:
    """The train and the val patches of the embedded corpus."""
    from degrain.corpora.embedded import CLEAN_TEMPLATE, NOISY_TEMPLATE, SPLITS, write_embedded
    from degrain.imaging.camera_noise import ISO_LEVELS
    from degrain.imaging.codecs import decode
    from degrain.loading.patches import ResidentPatches
    from degrain.patchsets.geometry import PatchGeometry
    from degrain.patchsets.shards import cut
    from degrain.storage.location import Storage

    geometry = PatchGeometry(patch_size=SIDE, stride=SIDE)
    blocks: dict[str, list[tuple[Any, Any]]] = {"train": [], "val": [], "test": []}
    with tempfile.TemporaryDirectory() as folder:
        write_embedded(Storage().locate(folder))
        for scene, iso in itertools.product(SPLITS, ISO_LEVELS):
            files = NOISY_TEMPLATE.format(scene=scene, iso=iso), CLEAN_TEMPLATE.format(scene=scene)
            noisy, clean = (decode(Path(folder, file).read_bytes()) for file in files)
            starts = geometry.starts(noisy.shape[0])
            blocks[SPLITS[scene]].append(
                (cut(noisy, starts, geometry), cut(clean, starts, geometry))
            )
    return ResidentPatches(blocks["train"]), ResidentPatches(blocks["val"])


def planned_steps(values: Mapping[str, Any]) -> int:
    """Steps of about SECONDS of one core: a cost of its own, and that of the convolutions."""
    from torch.utils.flop_counter import FlopCounterMode

    from denoisenets import create_model

    with torch.device("meta"):
        network = create_model("fast16", width=values["width"], depth=values["depth"])
    with FlopCounterMode(display=False) as counter:
        network(torch.empty(values["batch_size"], 3, CROP, CROP, device="meta"))
    return int(SECONDS / (0.012 + 5e-11 * counter.get_total_flops()))


def train_one(
    values: Mapping[str, Any], train_patches: Patches, val_patches: Patches
) -> dict[str, Any]:
    """Train on one core; returns steps, CPU seconds and the curve of val PSNR."""
    from degrain.errors import JobFailedError
    from degrain.training.config import TrainingConfig
    from degrain.training.loop import train
    from degrain.training.session import LocalSession

    steps = planned_steps(values)
    config = TrainingConfig(
        model="fast16",
        arguments={name: values[name] for name in ("width", "depth")},
        crop=CROP,
        steps=steps,
        validate_every=-(-steps // VALIDATIONS),
        validation_patches=8,
        **{name: values[name] for name in ("batch_size", "loss", "learning_rate")},
    )
    session, began, error = LocalSession(train_patches, val_patches), time.process_time(), None
    try:
        train(config, session)
    except JobFailedError as failure:
        error = str(failure)
    curve = [round(metrics["val_psnr"], 4) for metrics in session.history]
    seconds = round(time.process_time() - began, 3)
    return {"steps": steps, "seconds": seconds, "curve": curve, "error": error}


def run(settings: Settings) -> list[Table]:
    """Replay searches on the recorded trainings."""
    rows = json.loads(TABLE.read_text())
    seeds = 2 if settings.quick else 20
    table = {_key(row): row for row in rows}
    scores = sorted((row["curve"][-1] for row in rows if row["curve"]), reverse=True)
    threshold = scores[max(round(len(rows) * TOP) - 1, 0)]
    found: dict[str, list[float]] = {}
    for name, algorithm, stops in SEARCHES:
        found[name] = [
            seconds_to(threshold, table, algorithm, seed, stops=stops) for seed in range(seeds)
        ]
    random = statistics.median(found[SEARCHES[0][0]])
    cells = [
        [
            name,
            f"{statistics.median(seconds):.0f} s",
            f"{statistics.fmean(seconds):.0f} s",
            f"{random / statistics.median(seconds):.2f}",
        ]
        for name, seconds in found.items()
    ]
    caption = (
        f"CPU seconds until one of the best {TOP:.0%} of {len(rows)} configurations is trained to "
        f"its end, over {seeds} seeds. One trial at a time."
    )
    return [Table(["search", "median", "mean", "random / it, medians"], cells, caption)]


def seconds_to(
    threshold: float,
    table: Mapping[tuple[Any, ...], Mapping[str, Any]],
    algorithm: Algorithm,
    seed: int,
    *,
    stops: bool,
) -> float:
    """CPU seconds of a search until a trial that was not stopped has the score."""
    # The learning rate that was trained is the nearest one of the grid.
    rates = GRID["learning_rate"]
    # Half a step beyond both ends, so that all rates of the grid are drawn equally often.
    half_step = (rates[-1] / rates[0]) ** (0.5 / (len(rates) - 1))
    fields = {
        name: (Choice(values),) for name, values in GRID.items() if name != "learning_rate"
    } | {"learning_rate": (LogUniform(rates[0] / half_step, rates[-1] * half_step),)}
    suggester = Suggester([SearchSpace("fast16", fields)], algorithm=algorithm, seed=seed)
    rungs = Rungs()
    spent: float = 0
    for number in range(MOST_TRIALS):
        # The default of the space is the same for all seeds: it begins at a drawn trial.
        draw = suggester.suggest(number + 1)
        rate = min(rates, key=lambda r: abs(math.log(r / draw.training["learning_rate"])))
        row = table.get(_key({**draw.arguments, **draw.training, "learning_rate": rate}))
        if row is None or not row["curve"]:
            suggester.learn(number + 1, Outcome(draw, None))
            spent += row["seconds"] if row else 0
            continue
        share, stopped_at = 1.0, None
        curve: list[float] = row["curve"]
        for place, score in enumerate(curve if stops else ()):
            progress_done = 100 * (place + 1) / len(curve)
            if not rungs.keeps(number, progress_done, score):
                share, stopped_at = progress_done / 100, progress_done
                break
        spent += share * row["seconds"]
        seen = curve[: round(share * len(curve))]
        suggester.learn(number + 1, Outcome(draw, (max(seen),), stopped_at))
        if stopped_at is None and curve[-1] >= threshold:
            return spent
    return spent


def _key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in GRID)


if __name__ == "__main__":
    record()
