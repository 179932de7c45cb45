"""Training: what Ray costs against plain torchrun, how long a run takes to its first step, and how long it waits for data.

    python tests/benchmarks/training.py

The same network, patches, batches and step are trained by `pipelines/train.py --workers 2` and by a plain script under
`torchrun --nproc-per-node 2`, in turns. Prints Markdown tables for docs/performance.md.
"""

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.distributed
from mlflow import MlflowClient
from skimage import data as skimage_data
from torch.nn.parallel import DistributedDataParallel

from degrain.data.loader import BatchLoader, BatchPlan, Patches
from degrain.data.order import Permuted
from degrain.data.patches import PatchSet
from degrain.imaging.codecs import encode_png
from degrain.storage import Storage
from degrain.training.config import TrainingConfig
from degrain.training.step import TrainingState, train_step

ROOT = Path(__file__).resolve().parents[2]
WORKERS, TURNS = 2, 2
CONFIG = TrainingConfig(model="red10", batch_size=16, crop=64, steps=90, validate_every=1000, log_every=15)
WARM_STEPS = 30
"""Steps that do not count."""


def make_patch_set(folder: Path) -> Path:
    """Some hundred patches of 128 pixels of photographs with noise, ingested as a user would."""
    photos = folder / "photos"
    photos.mkdir()
    wide = np.asarray(skimage_data.retina())[:1280, :1280]
    for number in range(8):
        top, left = 320 * (number // 4), 320 * (number % 4)
        (photos / f"scene{number}.png").write_bytes(encode_png(wide[top : top + 640, left : left + 320].copy()))
    command = ["--corpus", f"clean={photos}", "--noise", "gaussian:25", "--out", str(folder / "patches")]
    run_pipeline("ingest", [*command, "--val-scenes", "clean/scene7.png", "--test-scenes", "clean/scene6.png"], folder)
    return folder / "patches"


def run_pipeline(name: str, argv: list[str], folder: Path) -> None:
    """Run a pipeline to its end. Raises CalledProcessError if it fails."""
    command = [sys.executable, str(ROOT / "pipelines" / f"{name}.py"), *argv]
    subprocess.run(command, check=True, capture_output=True, text=True, cwd=folder)


def by_ray(folder: Path, patches: Path) -> dict[str, float]:
    """One run of `train.py`: steps per second, share of waiting, seconds to its first lines."""
    (folder / "mlflow.yaml").write_text("experiment: bench\n")
    options = {"data": patches, "model": CONFIG.model, "steps": CONFIG.steps, "batch-size": CONFIG.batch_size}
    options |= {
        "crop": CONFIG.crop,
        "validate-every": CONFIG.validate_every,
        "log-every": CONFIG.progress_steps,
        "workers": WORKERS,
    }
    options |= {"out": folder / "runs", "summary": folder / "summary.json"}
    argv = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "pipelines" / "train.py"), *argv], stdout=subprocess.PIPE, text=True, cwd=folder
    )
    ready = 0.0
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("run "):
            ready = time.monotonic() - began
    assert process.wait() == 0
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    run_id = json.loads((folder / "summary.json").read_text())["run_id"]
    names = ("patches_per_second", "data_wait_share", "worker_memory_mib")
    curves = {name: client.get_metric_history(run_id, name) for name in names}
    told = curves["patches_per_second"][0]
    # The first line comes after some steps, whose time it tells.
    first = told.timestamp / 1e3 - (time.time() - (time.monotonic() - began))
    first -= (CONFIG.progress_steps - 1) * CONFIG.batch_size / told.value
    seconds = [CONFIG.batch_size / m.value for m in curves["patches_per_second"] if m.step > WARM_STEPS]
    return {
        "steps": 1 / statistics.mean(seconds),
        "wait": statistics.mean(m.value for m in curves["data_wait_share"] if m.step > WARM_STEPS),
        "memory": max(m.value for m in curves["worker_memory_mib"]),
        "ready": ready,
        "first": first,
    }


def by_torchrun(patches: Path) -> float:
    """The plain script under torchrun: steps per second."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={WORKERS}"]
    done = subprocess.run([*command, __file__, "--peer", str(patches)], check=True, capture_output=True, text=True)
    found = re.search(r"steps per second: ([\d.]+)", done.stdout)
    assert found is not None, done.stdout
    return float(found[1])


def peer(patches: str) -> None:
    """One of torchrun's processes: the same step and batches, nothing else."""
    torch.distributed.init_process_group("gloo")
    rank, world_size = torch.distributed.get_rank(), torch.distributed.get_world_size()
    patch_set = PatchSet.open(patches, Storage())
    split = Patches([patch_set.read_shard(shard) for shard in patch_set.shards("train")])
    order = Permuted(seed=CONFIG.seed, patches=len(split))
    plan = BatchPlan(seed=CONFIG.seed, order=order, side=split.side, batch_size=CONFIG.batch_size, crop=CONFIG.crop_of(128))
    loader = BatchLoader(split, plan, rank=rank, world_size=world_size, device=torch.device("cpu"))
    state = TrainingState.create(CONFIG, torch.device("cpu"))
    state.spread(lambda network: DistributedDataParallel(network, gradient_as_bucket_view=True))
    began = 0.0
    for step in range(CONFIG.steps):
        if step == WARM_STEPS:
            began = time.perf_counter()
        train_step(state, loader.batch(step), world_size)
    if rank == 0:
        print(f"steps per second: {(CONFIG.steps - WARM_STEPS) / (time.perf_counter() - began):.4f}")
    torch.distributed.destroy_process_group()


def main() -> int:
    """Print the tables."""
    if sys.argv[1:2] == ["--peer"]:
        peer(sys.argv[2])
        return 0
    os.environ["OMP_NUM_THREADS"] = "1"
    described = f"{CONFIG.model}, batches of {CONFIG.batch_size} crops of {CONFIG.crop}, {WORKERS} workers of one thread"
    ours: list[dict[str, float]] = []
    plain: list[float] = []
    with tempfile.TemporaryDirectory() as temporary:
        patches = make_patch_set(Path(temporary))
        for _ in range(TURNS):
            plain.append(by_torchrun(patches))
            ours.append(by_ray(Path(temporary), patches))
            print(f"torchrun {plain[-1]:.3f} steps/s, train.py {ours[-1]['steps']:.3f}", file=sys.stderr, flush=True)
    middle = {name: statistics.median(one[name] for one in ours) for name in ours[0]}
    torchrun = statistics.median(plain)
    print(f"\n| {described} | steps/s | share of torchrun |\n|---|---:|---:|")
    print(f"| torchrun, the same step and batches | {torchrun:.3f} | |")
    print(f"| pipelines/train.py | {middle['steps']:.3f} | {middle['steps'] / torchrun:.3f} |")
    print(f"\nWaiting for data: {middle['wait']:.2%} of the time; a worker's own memory: {middle['memory']:.0f} MiB.\n")
    print("| from the command to | seconds |\n|---|---:|")
    print(f"| imports, MLflow's store and Ray's processes are there | {middle['ready']:.1f} |")
    print(f"| first step done by {WORKERS} workers of Ray Train | {middle['first']:.1f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
