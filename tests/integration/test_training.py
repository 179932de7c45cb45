"""Training on Ray: distributed equals single, and a killed run ends as if it had not been."""

import os
import random
import signal
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
from integration.support import ROOT

from degrain.data.loader import Patches
from degrain.data.resident import ResidentSplit
from degrain.errors import JobFailedError, UserError
from degrain.storage import Storage
from degrain.training.checkpoint import read_checkpoint
from degrain.training.config import TrainingConfig
from degrain.training.loop import make_loader, train
from degrain.training.losses import LOSS_FUNCTIONS
from degrain.training.session import LocalSession
from degrain.training.step import TrainingState
from degrain.training.trainer import train_distributed
from degrain.training.worker import WorkerSession

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
    clean = np.repeat(np.repeat(random_.integers(30, 220, (count, 4, 4, 3), dtype=np.uint8), 8, 1), 8, 2)
    noise = random_.normal(0, 20, clean.shape)
    return np.clip(clean + noise, 0, 255).astype(np.uint8), clean


def resident(seed: int) -> ResidentSplit:
    return ResidentSplit((ray.put(blocks(seed)),))


def gradients(state: TrainingState, session: object) -> list[torch.Tensor]:
    batch = make_loader(state.config, session).batch(0)
    loss = LOSS_FUNCTIONS[state.config.loss](state.replica(batch.noisy), batch.clean)
    loss.backward()
    return [p.grad.clone() for p in state.network.parameters()]


def test_two_ddp_workers_give_the_gradient_of_one_process(ray_cluster: None, tmp_path: Path) -> None:
    def body(arguments: dict) -> None:
        session = WorkerSession(arguments["train"].patches(), arguments["train"].patches(), None)
        state = TrainingState.create(CONFIG, session.device)
        state.replica = session.replicate(state.network)
        found = gradients(state, session)
        if session.rank == 0:
            torch.save(found, arguments["file"])

    file = tmp_path / "gradients.pt"
    ray.train.torch.TorchTrainer(
        body,
        train_loop_config={"train": resident(0), "file": str(file)},
        scaling_config=ray.train.ScalingConfig(num_workers=2, resources_per_worker={"CPU": 1}),
        run_config=ray.train.RunConfig(name="gradients", storage_path=str(tmp_path)),
    ).fit()
    patches = Patches([blocks(0)])
    session = LocalSession(patches, patches)
    expected = gradients(TrainingState.create(CONFIG, session.device), session)
    got = torch.load(file, weights_only=True)
    assert len(got) == len(expected)
    for a, b in zip(got, expected, strict=True):
        assert (a - b).norm() <= 1e-6 * b.norm()


# Long enough for Ray's controller, which looks at its workers every other second, to see the first checkpoints.
LONG = replace(CONFIG, steps=600, validate_every=100)


def distributed(tmp_path: Path, name: str, **options: object) -> dict[str, torch.Tensor]:
    trained = train_distributed(
        LONG,
        train_split=resident(0),
        val_split=resident(1),
        folder=Storage().locate(tmp_path / "runs"),
        name=name,
        workers=2,
        **options,
    )
    assert trained.metrics["step"] == LONG.steps
    return dict(trained.weights)


def test_a_killed_distributed_run_resumes_bit_for_bit(ray_cluster: None, tmp_path: Path) -> None:
    undisturbed = distributed(tmp_path, "undisturbed")

    victims: list[int] = []

    def kill_a_worker(metrics: dict[str, float]) -> None:
        known = tmp_path / "runs" / "killed" / "checkpoint_manager_snapshot.json"
        if not victims and known.exists() and "checkpoint_" in known.read_text():
            workers = [p for p in psutil.process_iter(["cmdline"]) if "RayTrainWorker" in " ".join(p.info["cmdline"] or [])]
            mine = [p for p in workers if os.getpid() in {q.pid for q in p.parents()}]
            victims.append(random.choice(mine).pid)
            os.kill(victims[0], signal.SIGKILL)

    with pytest.raises(JobFailedError):
        distributed(tmp_path, "killed", on_report=kill_a_worker)
    assert victims
    steps: list[float] = []
    resumed = distributed(tmp_path, "killed", on_report=lambda metrics: steps.append(metrics["step"]))
    assert steps[0] > LONG.validate_every, "it began again instead of going on from its checkpoint"
    assert all(torch.equal(resumed[name], value) for name, value in undisturbed.items())


SCRIPT = """
import sys
sys.path[:0] = [sys.argv[1]]
from pathlib import Path
from integration.test_training import CONFIG, blocks
from degrain.data.loader import Patches
from degrain.training.loop import train
from degrain.training.session import LocalSession
train(CONFIG, LocalSession(Patches([blocks(0)]), Patches([blocks(1)]), checkpoint=Path(sys.argv[2])))
"""


def test_a_killed_process_resumes_bit_for_bit(tmp_path: Path) -> None:
    patches, val = Patches([blocks(0)]), Patches([blocks(1)])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        undisturbed = train(CONFIG, LocalSession(patches, val, checkpoint=tmp_path / "undisturbed.pt"))
        file = tmp_path / "killed.pt"
        for _ in range(3):
            process = subprocess.Popen(
                [sys.executable, "-c", SCRIPT, str(ROOT / "tests"), str(file)], env={**os.environ, "OMP_NUM_THREADS": "1"}
            )
            deadline = time.monotonic() + 60
            before = file.stat().st_mtime_ns if file.exists() else 0
            while time.monotonic() < deadline and process.poll() is None:
                if file.exists() and file.stat().st_mtime_ns != before:
                    time.sleep(random.uniform(0, 0.05))
                    break
            process.kill()
            process.wait()
        assert read_checkpoint(file.read_bytes())["step"] > 0
        resumed = train(CONFIG, LocalSession(patches, val, checkpoint=file))
    finally:
        torch.set_num_threads(threads)
    for kind in ("network", "ema"):
        expected, got = (getattr(s, kind) for s in (undisturbed, resumed))
        expected, got = (getattr(n, "network", n).state_dict() for n in (expected, got))
        assert all(torch.equal(got[name], value) for name, value in expected.items())


def test_more_workers_than_cpus_is_said_at_once(ray_cluster: None, tmp_path: Path) -> None:
    split = resident(0)
    with pytest.raises(UserError, match=r"100 workers need 100 CPUs, but the cluster has"):
        train_distributed(
            CONFIG, train_split=split, val_split=split, folder=Storage().locate(tmp_path), name="x", workers=100
        )


def test_divergence_in_a_worker_comes_back_as_one_line(ray_cluster: None, tmp_path: Path) -> None:
    split = resident(0)
    config = TrainingConfig(**{**CONFIG.to_dict(), "learning_rate": 1e18, "gradient_clip": 1e30})
    before = threading.active_count()
    with pytest.raises(JobFailedError, match=r"training diverged at step \d+: .* Lower the learning rate") as raised:
        train_distributed(config, train_split=split, val_split=split, folder=Storage().locate(tmp_path), name="x", workers=2)
    assert "\n" not in str(raised.value)
    assert threading.active_count() <= before + 2
