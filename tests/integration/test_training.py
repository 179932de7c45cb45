"""Training on Ray: distributed equals single, and a killed run ends as if it had not been."""

import os
import random
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import ray
import ray.train
import ray.train.torch
import torch
from integration.support import ROOT, SCENES, TEMPLATES, write_pairs

from degrain.corpora.config import CorpusOptions
from degrain.errors import JobFailedError, UserError
from degrain.loading.batches import BatchLoader, BatchPlan
from degrain.loading.order import Windowed
from degrain.loading.patches import ResidentPatches
from degrain.loading.resident import ResidentSplit, make_resident, make_streamed
from degrain.patchsets.geometry import PatchGeometry
from degrain.patchsets.ingest.config import IngestConfig
from degrain.patchsets.ingest.run import ingest
from degrain.storage.location import Storage
from degrain.training.checkpoint_store import CheckpointStore
from degrain.training.config import TrainingConfig
from degrain.training.distributed.events import EventChannel, Progress, WorkerEvent
from degrain.training.distributed.job import TrainingJob
from degrain.training.distributed.resource_usage import process_usage
from degrain.training.distributed.splits import TrainingSplits, open_splits
from degrain.training.distributed.worker import WorkerConfig, WorkerSession
from degrain.training.distributed.workers import WorkerRange, Workers
from degrain.training.loop import initial_state, make_loader, train
from degrain.training.session import LocalSession
from degrain.training.step import train_step

pytestmark = pytest.mark.ray
CONFIG = TrainingConfig(
    model="red10",
    arguments={"width": 6},
    steps=24,
    batch_size=4,
    crop=24,
    precision="float32",
    validate_every=4,
    validation_patches=4,
    seed=3,
)


def blocks(seed: int, count: int = 12) -> tuple[np.ndarray, np.ndarray]:
    random_ = np.random.default_rng(seed)
    clean = np.repeat(
        np.repeat(random_.integers(30, 220, (count, 4, 4, 3), dtype=np.uint8), 8, 1), 8, 2
    )
    noise = random_.normal(0, 20, clean.shape)
    return np.clip(clean + noise, 0, 255).astype(np.uint8), clean


def resident(seed: int) -> ResidentSplit:
    return ResidentSplit((ray.put(blocks(seed)),))


def gradients(config: TrainingConfig, session: object) -> list[torch.Tensor]:
    """The gradients of the first step, the same on all ranks."""
    state = initial_state(config, session)
    train_step(state, make_loader(config, session).batch(0), session.world_size)
    return [p.grad.clone() for p in state.denoiser.network.parameters()]


@pytest.mark.soak
def test_ddp_workers_give_the_gradient_of_one_process(ray_cluster: None, tmp_path: Path) -> None:
    """Shares are uneven, and taken in parts; with a discriminator two networks exchange gradients
    by turns.
    """
    uneven = replace(CONFIG, gradient_clip=1e9, micro_batch=1)
    configs = [uneven, replace(uneven, batch_size=7, adversarial=0.1)]

    def body(arguments: dict) -> None:
        session = WorkerSession(arguments["worker_config"])
        found = [gradients(config, session) for config in configs]
        if session.rank == 0:
            torch.save(found, arguments["file"])

    file = tmp_path / "gradients.pt"
    events = EventChannel.open()
    worker_config = WorkerConfig(
        config=uneven,
        train_split=resident(0),
        val_split=resident(1),
        start=None,
        teacher=None,
        started=time.time(),
        checkpoints=Storage().locate(tmp_path / "none"),
        keep_best=1,
        events=events,
    )
    ray.train.torch.TorchTrainer(
        body,
        train_loop_config={"worker_config": worker_config, "file": str(file)},
        scaling_config=ray.train.ScalingConfig(num_workers=3, resources_per_worker={"CPU": 0.5}),
        run_config=ray.train.RunConfig(name="gradients", storage_path=str(tmp_path)),
    ).fit()
    events.close()
    patches = ResidentPatches([blocks(0)])
    for config, got in zip(configs, torch.load(file, weights_only=True), strict=True):
        expected = gradients(replace(config, micro_batch=None), LocalSession(patches, patches))
        for a, b in zip(got, expected, strict=True):
            assert (a - b).norm() <= 1e-5 * b.norm()


def job(
    tmp_path: Path, name: str, config: TrainingConfig = CONFIG, workers: int = 2, **options: object
) -> TrainingJob:
    splits = TrainingSplits(resident(0), resident(1))
    folder = Storage().locate(tmp_path / "runs" / name)
    return TrainingJob(
        config,
        splits,
        folder,
        name,
        Workers(workers=WorkerRange(workers, workers), cpus_per_worker=0.5),
        **options,
    )


def test_one_two_and_four_workers_see_the_same_and_lose_the_same(
    ray_cluster: None, tmp_path: Path
) -> None:
    # A shallow network: in deep ones, AdamW amplifies rounding while gradients are almost zero.
    shallow = replace(CONFIG, model="dncnn", arguments={"width": 6, "depth": 4})
    config = replace(shallow, steps=50, validate_every=25, log_every=1)
    curves: dict[int, list[float]] = {}
    scores: dict[int, float] = {}
    for workers in (1, 2, 4):
        events: list[WorkerEvent] = []
        trained = job(tmp_path, f"of{workers}", config, workers, on_event=events.append).run()
        progress = [event.metrics for event in events if isinstance(event, Progress)]
        assert [m["step"] for m in progress] == list(range(1, 51))
        assert {m["workers"] for m in progress} == {workers}
        curves[workers] = [m["train_loss"] for m in progress]
        scores[workers] = trained.metrics["val_psnr"]
    for workers in (2, 4):
        assert curves[workers] == pytest.approx(curves[1], rel=1e-5)
        assert scores[workers] == pytest.approx(scores[1], abs=1e-3)


SCRIPT = """
import sys
sys.path[:0] = [sys.argv[1]]
from pathlib import Path
from integration.test_training import CONFIG, blocks
from degrain.loading.patches import ResidentPatches
from degrain.training.loop import train
from degrain.training.session import LocalSession
from degrain.training.checkpoint_store import CheckpointStore
from degrain.storage.location import Storage
store = CheckpointStore(Storage().locate(sys.argv[2]), warn=print)
train(CONFIG, LocalSession(ResidentPatches([blocks(0)]), ResidentPatches([blocks(1)]), store=store))
"""


def steps(folder: Path) -> int:
    """The step of the newest checkpoint."""
    return max((int(f.name[5:13]) for f in folder.glob("step-*.pt")), default=0)


@pytest.mark.soak
def test_a_killed_process_resumes_bit_for_bit(tmp_path: Path) -> None:
    patches, val = ResidentPatches([blocks(0)]), ResidentPatches([blocks(1)])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        undisturbed = train(CONFIG, LocalSession(patches, val))
        folder = tmp_path / "killed"
        store = CheckpointStore(Storage().locate(folder), warn=pytest.fail)
        for _ in range(3):
            process = subprocess.Popen(
                [sys.executable, "-c", SCRIPT, str(ROOT / "tests"), str(folder)],
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
            deadline = time.monotonic() + 600
            before = steps(folder)
            while time.monotonic() < deadline and process.poll() is None:
                if steps(folder) > before:
                    time.sleep(random.uniform(0, 0.05))
                    break
            process.kill()
            process.wait()
        assert steps(folder) > 0
        resumed = train(CONFIG, LocalSession(patches, val, store=store))
    finally:
        torch.set_num_threads(threads)
    for kind in ("denoiser", "ema"):
        expected, got = (getattr(s, kind) for s in (undisturbed, resumed))
        expected, got = (getattr(n, "network", n).state_dict() for n in (expected, got))
        assert all(torch.equal(got[name], value) for name, value in expected.items())


def test_more_workers_than_cpus_is_said_at_once(ray_cluster: None, tmp_path: Path) -> None:
    with pytest.raises(
        UserError,
        match=r"200 workers need 100 CPUs, but the cluster has 2, of which [012] are free; lower",
    ):
        job(tmp_path, "x", workers=200).run()


def test_divergence_in_a_worker_comes_back_as_one_line(ray_cluster: None, tmp_path: Path) -> None:
    config = replace(CONFIG, learning_rate=1e18, gradient_clip=1e30)
    before = threading.active_count()
    with pytest.raises(
        JobFailedError, match=r"training diverged at step \d+: .* Lower `learning_rate`"
    ) as raised:
        job(tmp_path, "x", config).run()
    assert "\n" not in str(raised.value)
    assert threading.active_count() <= before + 2


def test_a_streamed_split_trains_as_one_in_memory_in_the_same_order(
    ray_cluster: None, tmp_path: Path
) -> None:
    corpus = write_pairs(tmp_path / "photos", SCENES, side=96, shots=2)
    config = IngestConfig(
        corpus=[f"pairs={corpus}"],
        out=str(tmp_path / "patches"),
        geometry=PatchGeometry(patch_size=32, stride=32),
        options=CorpusOptions(noisy_name=TEMPLATES[1], clean_name=TEMPLATES[3]),
    )
    patch_set = ingest(config, Storage()).patch_set
    shards = patch_set.shards("train")
    window = 2 * 32 * 32 * 3 * 10
    streamed = make_streamed(patch_set, "train", window)
    whole = make_resident(patch_set, "train").patches()
    assert streamed.window == 10
    patches = streamed.patches()
    order = Windowed(seed=0, shards=tuple(s.patches for s in shards), window=10)
    plan = BatchPlan(seed=0, order=order, side=32, batch_size=4, crop=32)
    expected = BatchLoader(whole, plan, device=torch.device("cpu"))
    got = BatchLoader(patches, plan, device=torch.device("cpu"))
    for step in range(30):
        assert torch.equal(got.batch(step).noisy, expected.batch(step).noisy)
    assert np.array_equal(
        streamed.metadata.groups, make_resident(patch_set, "train").metadata.groups
    )
    training = replace(CONFIG, batches="streaming", window_megabytes=1)
    resolved, splits = open_splits(training, patch_set)
    folder = Storage().locate(tmp_path / "run")
    trained = TrainingJob(
        resolved,
        splits,
        folder,
        "streamed",
        Workers(workers=WorkerRange(2, 2), cpus_per_worker=0.5),
    ).run()
    newest = CheckpointStore(folder / "checkpoints", warn=pytest.fail).newest()
    assert newest is not None
    assert newest["step"] == CONFIG.steps
    assert trained.metrics["val_psnr"] == newest["best_psnr"]
    assert open_splits(replace(CONFIG, batches="auto"), patch_set)[0].batches == "resident"
    with pytest.raises(
        UserError,
        match="has no patches of clean-only corpora; leave",
    ):
        open_splits(replace(CONFIG, noise="on-the-fly"), patch_set)


def test_workers_map_resident_patches_without_copying(ray_cluster: None) -> None:
    """What two processes hold together is one copy, by proportional set size."""
    megabytes = 200
    patches = np.random.default_rng(0).integers(
        0, 256, (megabytes * 500_000 // 3072, 32, 32, 3), dtype=np.uint8
    )
    split = ResidentSplit((ray.put((patches, patches[::-1].copy())),))

    @ray.remote(num_cpus=0)
    class Reader:
        def pss(self) -> float:
            return psutil.Process().memory_full_info().pss / 1e6

        def read(self) -> int:
            self.patches = split.patches()
            return sum(int(half.sum()) for block in self.patches._blocks for half in block)

    readers = [Reader.remote() for _ in range(2)]
    before = ray.get([reader.pss.remote() for reader in readers])
    sums = ray.get([reader.read.remote() for reader in readers])
    after = ray.get([reader.pss.remote() for reader in readers])
    assert sums[0] == sums[1] == int(2 * patches.sum(dtype=np.int64))
    # The store's own process maps the pages too, so that each reader is charged a third of them.
    grown = [b - a for a, b in zip(before, after, strict=True)]
    assert sum(grown) < 1.1 * megabytes, grown


class Watched(LocalSession):
    def usage(self) -> dict[str, float]:
        return process_usage(self.device)


@pytest.mark.soak
def test_memory_is_flat_over_ten_thousand_steps() -> None:
    patches = ResidentPatches([blocks(0)])
    host = Watched(patches, ResidentPatches([blocks(1)]))
    config = replace(
        CONFIG,
        arguments={"width": 2},
        batch_size=1,
        crop=16,
        steps=10_000,
        validate_every=5000,
        log_every=1000,
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        train(config, host)
    finally:
        torch.set_num_threads(threads)
    used = [m["worker_memory_mib"] for m in host.curve]
    assert max(used[2:]) - used[1] < 10, used
