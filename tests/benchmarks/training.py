"""Overhead of Ray against plain torchrun, time to the first step, and time waiting for data.

The same network, patches, batches and step are trained by `degrain train --workers 2` and by this
file under `torchrun --nproc-per-node 2`, in turns.
"""

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.distributed
from mlflow import MlflowClient
from skimage import data as skimage_data
from table import Settings, Table, progress
from torch.nn.parallel import DistributedDataParallel

from degrain.imaging.codecs import encode_png
from degrain.loading.batches import BatchLoader, BatchPlan
from degrain.loading.order import Permuted
from degrain.loading.patches import ResidentPatches
from degrain.patchsets.patch_set import PatchSet
from degrain.storage.location import Storage
from degrain.training.config import TrainingConfig
from degrain.training.step import TrainingState, train_step

ROOT = Path(__file__).resolve().parents[2]
WORKERS, TURNS, LOG_EVERY = 2, 2, 15
CONFIG = TrainingConfig(
    model="red10", batch_size=16, crop=64, steps=90, validate_every=1000, log_every=LOG_EVERY
)
WARM_STEPS = 30
"""Steps that are not counted."""


def make_patch_set(folder: Path) -> Path:
    """Ingest a few hundred patches of 128 pixels from photos with synthetic noise."""
    photos = folder / "photos"
    photos.mkdir()
    wide = np.asarray(skimage_data.retina())[:1280, :1280]
    for number in range(8):
        top, left = 320 * (number // 4), 320 * (number % 4)
        (photos / f"scene{number}.png").write_bytes(
            encode_png(wide[top : top + 640, left : left + 320].copy())
        )
    command = [
        "--corpus",
        f"clean={photos}",
        "--noise",
        "gaussian:25",
        "--out",
        str(folder / "patches"),
    ]
    run_command(
        "ingest",
        [*command, "--val-scenes", "clean/scene7.png", "--test-scenes", "clean/scene6.png"],
        folder,
    )
    return folder / "patches"


def run_command(name: str, argv: list[str], folder: Path) -> None:
    """Run a command of degrain. Raises CalledProcessError if it fails."""
    command = [sys.executable, str(ROOT / "pipelines" / f"{name}.py"), *argv]
    subprocess.run(command, check=True, capture_output=True, text=True, cwd=folder)


def by_ray(config: TrainingConfig, folder: Path, patches: Path) -> dict[str, float]:
    """One run of `degrain train`: its speed, share of waiting, memory and start-up times."""
    options = {
        "data": patches,
        "model": CONFIG.model,
        "steps": config.steps,
        "batch-size": CONFIG.batch_size,
    }
    options |= {
        "crop": CONFIG.crop,
        "validate-every": CONFIG.validate_every,
        "log-every": LOG_EVERY,
        "workers": WORKERS,
    }
    options |= {"out": folder / "runs", "summary": folder / "summary.json"}
    argv = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    start = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "pipelines" / "train.py"), *argv],
        stdout=subprocess.PIPE,
        text=True,
        cwd=folder,
    )
    ready = 0.0
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("run "):
            ready = time.monotonic() - start
    assert process.wait() == 0
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    run_id = json.loads((folder / "summary.json").read_text())["run_id"]
    names = ("patches_per_second", "data_wait_share", "worker_memory_mib")
    curves = {name: client.get_metric_history(run_id, name) for name in names}
    progressed = curves["patches_per_second"][0]
    # The first metrics are logged after LOG_EVERY steps; their mean speed gives the first step's.
    first = progressed.timestamp / 1e3 - (time.time() - (time.monotonic() - start))
    first -= (LOG_EVERY - 1) * CONFIG.batch_size / progressed.value
    seconds = [
        CONFIG.batch_size / m.value for m in curves["patches_per_second"] if m.step > WARM_STEPS
    ]
    return {
        "steps": 1 / statistics.mean(seconds),
        "wait": statistics.mean(m.value for m in curves["data_wait_share"] if m.step > WARM_STEPS),
        "memory": max(m.value for m in curves["worker_memory_mib"]),
        "ready": ready,
        "first": first,
    }


def by_torchrun(config: TrainingConfig, patches: Path) -> float:
    """Steps per second of `peer` under torchrun."""
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={WORKERS}",
    ]
    done = subprocess.run(
        [*command, __file__, str(patches), str(config.steps)],
        check=True,
        capture_output=True,
        text=True,
    )
    printed = re.search(r"steps per second: ([\d.]+)", done.stdout)
    assert printed is not None, done.stdout
    return float(printed[1])


def peer(patches: str, steps: int) -> None:
    """One process of torchrun: the same steps and batches in plain DDP."""
    torch.distributed.init_process_group("gloo")
    rank, world_size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    patch_set = PatchSet.open(patches, Storage())
    split = ResidentPatches([patch_set.read_shard(shard) for shard in patch_set.shards("train")])
    order = Permuted(seed=CONFIG.seed, patches=len(split))
    plan = BatchPlan(
        seed=CONFIG.seed,
        order=order,
        side=split.side,
        batch_size=CONFIG.batch_size,
        crop=CONFIG.crop_of(128),
    )
    loader = BatchLoader(split, plan, rank=rank, world_size=world_size, device=torch.device("cpu"))
    state = TrainingState.create(CONFIG, torch.device("cpu"))
    state.wrap_ddp(lambda network: DistributedDataParallel(network, gradient_as_bucket_view=True))
    start = 0.0
    for step in range(steps):
        if step == WARM_STEPS:
            start = time.perf_counter()
        train_step(state, loader.batch(step), world_size)
    if rank == 0:
        print(f"steps per second: {(steps - WARM_STEPS) / (time.perf_counter() - start):.4f}")
    torch.distributed.destroy_process_group()


def run(settings: Settings) -> list[Table]:
    """Steps per second beside torchrun's, and seconds to the first step."""
    os.environ["OMP_NUM_THREADS"] = "1"
    turns, steps = (1, 3 * LOG_EVERY) if settings.quick else (TURNS, CONFIG.steps)
    config = replace(CONFIG, steps=steps)
    ours: list[dict[str, float]] = []
    plain: list[float] = []
    with tempfile.TemporaryDirectory() as temporary:
        patches = make_patch_set(Path(temporary))
        for _ in range(turns):
            plain.append(by_torchrun(config, patches))
            ours.append(by_ray(config, Path(temporary), patches))
            progress(f"torchrun {plain[-1]:.3f} steps/s, degrain {ours[-1]['steps']:.3f}")
    middle = {name: statistics.median(one[name] for one in ours) for name in ours[0]}
    torchrun = statistics.median(plain)
    described = (
        f"{CONFIG.model}, batches of {CONFIG.batch_size} crops of {CONFIG.crop}, "
        f"{WORKERS} workers of one thread"
    )
    speed = Table(
        (described, "steps/s", "share of torchrun"),
        [
            ("torchrun, the same step and batches", f"{torchrun:.3f}", ""),
            ("degrain train", f"{middle['steps']:.3f}", f"{middle['steps'] / torchrun:.3f}"),
        ],
    )
    start = Table(
        ("from the command to", "seconds"),
        [
            ("imports, MLflow's store and Ray are ready", f"{middle['ready']:.1f}"),
            (f"first step of {WORKERS} workers of Ray Train", f"{middle['first']:.1f}"),
        ],
        f"Waiting for data: {middle['wait']:.2%} of the time; a worker's own memory: "
        f"{middle['memory']:.0f} MiB.",
    )
    return [speed, start]


if __name__ == "__main__":
    peer(sys.argv[1], int(sys.argv[2]))
