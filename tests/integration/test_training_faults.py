"""Training on a cluster of several nodes that loses workers, nodes, drivers, buckets and disks.

Each run is `pipelines/train.py` as a user starts it. Its last checkpoint is compared, bit for bit,
with that of an undisturbed run.
"""

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

import psutil
import pytest
import ray._raylet
import torch
from integration.support import (
    ROOT,
    SCENES,
    TEMPLATES,
    Promises,
    S3Server,
    s3_server,
    start_pipeline,
    write_pairs,
    write_tracking,
)
from mlflow import MlflowClient
from ray._private.node import Node
from ray.cluster_utils import Cluster

from degrain.loading.patches import ResidentPatches
from degrain.patchsets.patch_set import PatchSet
from degrain.storage.location import Location, Storage
from degrain.training.checkpoint import Snapshot
from degrain.training.checkpoint_store import CheckpointStore
from degrain.training.config import TrainingConfig
from degrain.training.loop import train
from degrain.training.session import LocalSession, Metrics

pytestmark = pytest.mark.ray
STEPS = 800
WAIT_SECONDS = 600
TRAINING = [
    "--model",
    "red10",
    "--arguments",
    '{"width": 24}',
    "--steps",
    STEPS,
    "--batch-size",
    4,
    "--crop",
    48,
]
TRAINING += [
    "--validate-every",
    60,
    "--validation-patches",
    8,
    "--log-every",
    20,
    "--seed",
    5,
    "--precision",
    "float32",
]


class Nodes:
    """A cluster: a head where drivers run, and nodes of one CPU for one worker each."""

    def __init__(self) -> None:
        head = {"num_cpus": 0, "object_store_memory": 150 * 2**20, "include_dashboard": False}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        self.workers: list[Node] = []
        """Nodes that are alive, the oldest first."""
        self.two()

    def two(self) -> None:
        """Two nodes for workers again, whatever a test has done."""
        while len(self.workers) > 2:
            self.kill(self.workers[-1])
        while len(self.workers) < 2:
            self.add()

    def add(self) -> None:
        """One more node."""
        self.workers.append(self.cluster.add_node(num_cpus=1, object_store_memory=150 * 2**20))

    def kill(self, node: Node) -> None:
        """Kill -9 of a node's raylet, and with it of all that runs on the node."""
        self.workers.remove(node)
        self.cluster.remove_node(node, allow_graceful=False)

    def training_processes(self, node: Node) -> list[psutil.Process]:
        """The workers that train on a node."""
        found = []
        for info in node.all_processes["raylet"]:
            for process in psutil.Process(info.process.pid).children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    if "RayTrainWorker" in " ".join(process.cmdline()):
                        found.append(process)
        return found

    def busy(self) -> Node:
        """A node that trains."""
        return random.choice([node for node in self.workers if self.training_processes(node)])

    def wait_until_idle(self) -> None:
        """Wait until no node trains: workers notice a while later that their driver is gone."""
        deadline = time.monotonic() + WAIT_SECONDS
        while any(self.training_processes(node) for node in self.workers):
            assert time.monotonic() < deadline, "workers outlive their driver"
            time.sleep(0.1)


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    made = Nodes()
    yield made
    made.cluster.shutdown()


class Training:
    """`train.py` as a process, watched line by line."""

    def __init__(
        self, nodes: Nodes, folder: Path, out: object, *options: object, workers: str = "2"
    ) -> None:
        argv = ["--out", out, "--mlflow", folder / "mlflow.yaml", "--workers", workers, *options]
        environment = {"RAY_ADDRESS": nodes.cluster.address, "PYTHONUNBUFFERED": "1"}
        self.process = start_pipeline("train", argv, env=environment, cwd=folder)
        self.lines: list[str] = []
        streams = (self.process.stdout, self.process.stderr)
        self._readers = [
            threading.Thread(target=self._read, args=(stream,), daemon=True) for stream in streams
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, stream: IO[str]) -> None:
        with stream:
            for line in stream:
                self.lines.append(line.rstrip())

    def wait_for(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + WAIT_SECONDS
        while not condition():
            assert time.monotonic() < deadline, "\n".join(self.lines[-20:])
            assert self.process.poll() is None, "\n".join(self.lines)
            time.sleep(0.05)

    @property
    def step(self) -> int:
        """The last step that was told."""
        found = [m for line in self.lines if (m := re.match(r"  step (\d+)/", line))]
        return int(found[-1][1]) if found else 0

    def at_step(self, step: int) -> None:
        self.wait_for(lambda: self.step >= step)

    def said(self, text: str) -> bool:
        return any(text in line for line in self.lines)

    def steps(self, pattern: str) -> list[int]:
        """The steps that lines of this pattern name."""
        return [int(m[1]) for line in self.lines if (m := re.search(pattern, line))]

    def kill(self) -> None:
        """Kill -9 of the driver."""
        self.process.kill()
        self._join()

    def end(self, status: int = 0) -> None:
        """Wait for the end, with this exit status."""
        self._join()
        assert self.process.returncode == status, "\n".join(self.lines)

    def _join(self) -> None:
        self.process.wait(WAIT_SECONDS)
        for reader in self._readers:
            reader.join(10)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, nodes: Nodes) -> Path:
    """A patch set, below a folder of its own."""
    folder = tmp_path_factory.mktemp("data")
    corpus = write_pairs(folder / "photos", SCENES, side=96)
    argv = [
        "--corpus",
        f"pairs={corpus}",
        "--out",
        folder / "patches",
        "--patch-size",
        48,
        *TEMPLATES,
    ]
    command = [sys.executable, str(ROOT / "pipelines" / "ingest.py"), *map(str, argv)]
    subprocess.run(command, check=True, capture_output=True, timeout=900)
    return folder / "patches"


def prepared(nodes: Nodes, folder: Path) -> Path:
    """A folder for runs, with a tracking store, and a cluster of two nodes for workers."""
    write_tracking(folder)
    nodes.two()
    return folder


def run_folder(out: Path) -> Path:
    """The folder of the only run."""
    (found,) = [folder for folder in out.iterdir() if folder.is_dir()]
    return found


def finished(folder: Location) -> Snapshot:
    """The newest checkpoint of a run that ended."""
    found = CheckpointStore(folder / "checkpoints", warn=pytest.fail).newest()
    assert found is not None
    assert found["step"] == STEPS
    return found


def tensors(value: object, name: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(value, torch.Tensor):
        yield name, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from tensors(inner, f"{name}.{key}")


def assert_same(got: Snapshot, expected: Snapshot) -> None:
    """Network, average and optimizer, bit for bit."""
    for part in ("denoiser", "ema"):
        mine, theirs = dict(tensors(got[part])), dict(tensors(expected[part]))
        assert mine.keys() == theirs.keys()
        assert [name for name, value in mine.items() if not torch.equal(value, theirs[name])] == []
    assert got["metrics"]["val_psnr"] == expected["metrics"]["val_psnr"]


@pytest.fixture(scope="module")
def undisturbed(nodes: Nodes, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    """The last checkpoint of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("calm")
    write_tracking(folder)
    Training(nodes, folder, folder / "runs", "--data", data, *TRAINING).end()
    return finished(Storage().locate(run_folder(folder / "runs")))


def restarts(training: Training) -> int:
    """How often its workers were started again."""
    return sum("training continues from step" in line for line in training.lines)


def damage_newest(folder: Location) -> tuple[str, int]:
    """Turn one byte of the newest checkpoint; gives its name, and the step of the one before."""
    checkpoints = folder / "checkpoints"
    *_, before, newest = [name for name in checkpoints.files() if name.startswith("step-")]
    content = bytearray((checkpoints / newest).read_bytes())
    content[len(content) // 2] ^= 255
    (checkpoints / newest).write_bytes(bytes(content))
    return newest, int(before[5:13])


LOST = (
    "a killed worker is replaced",
    "a killed node is replaced",
    "training continues while the bucket is away",
    "workers end after their driver",
    "a damaged checkpoint is replaced by the one before",
    "weights equal those of an undisturbed run",
)


@pytest.fixture(scope="module")
def losses_run(
    nodes: Nodes, data: Path, undisturbed: Snapshot, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Promises]:
    """One run, with its checkpoints in a bucket, that loses everything by kill -9."""
    place = prepared(nodes, tmp_path_factory.mktemp("lost"))
    promises = Promises()
    with (
        s3_server(place / "weed") as server,
        pytest.MonkeyPatch.context() as patched,
        promises.scenario(),
    ):
        for name, value in server.environment.items():
            patched.setenv(name, value)
        lose_everything(promises, nodes, data, place, server, undisturbed)
    return promises


def lose_everything(
    promises: Promises,
    nodes: Nodes,
    data: Path,
    place: Path,
    server: S3Server,
    undisturbed: Snapshot,
) -> None:
    storage = Storage.from_environment()
    storage.s3_client().create_bucket(Bucket="runs")
    nodes.add()
    training = Training(nodes, place, "s3://runs/train", "--data", data, *TRAINING)
    with promises.keep("a killed worker is replaced"):
        training.at_step(random.randint(30, 70))
        os.kill(nodes.training_processes(nodes.busy())[0].pid, signal.SIGKILL)
        training.wait_for(lambda: restarts(training) == 1)
    with promises.keep("a killed node is replaced"):
        training.at_step(random.randint(90, 140))
        nodes.kill(nodes.busy())
        training.wait_for(lambda: restarts(training) == 2)
    with promises.keep("training continues while the bucket is away"):
        server.kill()
        gone = training.step
        # Else training waits for the bucket.
        training.wait_for(lambda: training.step > gone)
        server.start()
        training.at_step(gone + 60)
        assert restarts(training) == 2, "the workers were restarted because of the bucket"
    (name,) = {key.split("/")[0] for key in storage.locate("s3://runs/train").files()}
    folder = storage.locate(f"s3://runs/train/{name}")
    training.wait_for(lambda: len(list((folder / "checkpoints").files())) >= 2)
    with promises.keep("workers end after their driver"):
        assert training.process.poll() is None, "it ended before its driver could be killed"
        training.kill()
        nodes.wait_until_idle()
    with promises.keep("a damaged checkpoint is replaced by the one before"):
        # A slow server may still be storing the upload of a worker that has ended.
        server.kill()
        server.start()
        damaged, before = damage_newest(folder)
        resumed = Training(nodes, place, "s3://runs/train", "--resume", name)
        resumed.end()
        assert resumed.said(f"{damaged}' is damaged")
        assert resumed.said(f"resumed from step {before} ")
    with promises.keep("weights equal those of an undisturbed run"):
        assert_same(finished(folder), undisturbed)


@pytest.mark.soak
@pytest.mark.parametrize("promise", LOST)
def test_training_survives_losses(losses_run: Promises, promise: str) -> None:
    losses_run.check(promise)


@contextlib.contextmanager
def small_disk(folder: Path, mebibytes: int) -> Iterator[Path]:
    """A file system of that size."""
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs", str(folder)], check=False
    )
    if made.returncode:
        pytest.skip("this user may not make a small file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


ANNOUNCED = (
    "a full disk stops neither training nor old checkpoints",
    "a preempted node leaves a checkpoint of that step",
    "Ctrl-C leaves a checkpoint of that step",
    "a resumed run continues there",
    "weights equal those of an undisturbed run",
)


@pytest.fixture(scope="module")
def announced_run(
    nodes: Nodes, data: Path, undisturbed: Snapshot, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Promises]:
    """One run on a small disk: full, then preempted, then interrupted, then resumed."""
    place = prepared(nodes, tmp_path_factory.mktemp("announced"))
    promises = Promises()
    with small_disk(place / "disk", 16) as disk, promises.scenario():
        disturb(promises, nodes, data, place, disk, undisturbed)
    return promises


def disturb(
    promises: Promises,
    nodes: Nodes,
    data: Path,
    place: Path,
    disk: Path,
    undisturbed: Snapshot,
) -> None:
    nodes.add()
    training = Training(nodes, place, disk / "runs", "--data", data, *TRAINING)
    with promises.keep("a full disk stops neither training nor old checkpoints"):
        training.at_step(70)
        fill_and_free(training, disk)
    with promises.keep("a preempted node leaves a checkpoint of that step"):
        preempt(training, nodes)
    with promises.keep("Ctrl-C leaves a checkpoint of that step"):
        (continued,) = training.steps(r"continues from step (\d+)")
        training.wait_for(lambda: training.step > continued)
        training.process.send_signal(signal.SIGINT)
        training.end(130)
        *_, written = training.steps(r"checkpoint written at step (\d+)")
    with promises.keep("a resumed run continues there"):
        resumed = Training(nodes, place, disk / "runs", "--resume", run_folder(disk / "runs").name)
        resumed.end()
        (continued,) = resumed.steps(r"resumed from step (\d+) ")
        # Or from a validation that came before the end.
        assert continued >= written
    with promises.keep("weights equal those of an undisturbed run"):
        assert_same(finished(Storage().locate(run_folder(disk / "runs"))), undisturbed)


def fill_and_free(training: Training, disk: Path) -> None:
    ballast = disk / "ballast"
    fill(ballast)
    warning = "could not be written (No space left on device)"
    training.wait_for(lambda: training.said(warning))
    written = sorted(f.name for f in (run_folder(disk / "runs") / "checkpoints").iterdir())
    assert written, "the last good checkpoint is missing"
    assert all(name.endswith(".pt") for name in written), "a partial file is left"
    ballast.unlink()
    assert restarts(training) == 0, "the workers were restarted because of the disk"


def preempt(training: Training, nodes: Nodes) -> None:
    leaving = nodes.busy()
    gcs = ray._raylet.GcsClient(address=nodes.cluster.address)
    deadline = int((time.time() + 60) * 1000)
    reason = "preempted by a test"
    assert gcs.drain_node(leaving.node_id, 2, reason, deadline)[0]  # type: ignore[attr-defined]
    training.wait_for(lambda: training.said("a node is being preempted"))
    training.wait_for(lambda: training.said("checkpoint written at step"))
    nodes.kill(leaving)
    (written,) = training.steps(r"checkpoint written at step (\d+)")
    training.wait_for(lambda: restarts(training) == 1)
    (continued,) = training.steps(r"continues from step (\d+)")
    assert continued >= written


@pytest.mark.soak
@pytest.mark.parametrize("promise", ANNOUNCED)
def test_training_survives_announced_faults(announced_run: Promises, promise: str) -> None:
    announced_run.check(promise)


def fill(file: Path) -> None:
    """Fill a disk to the last byte."""
    with file.open("wb", buffering=0) as stream, contextlib.suppress(OSError):
        while True:
            stream.write(bytes(4096))


def workers_seen(training: Training) -> Sequence[int]:
    """How many workers trained, each time that a group of them went on."""
    return [
        int(m[1])
        for line in training.lines
        if (m := re.search(r"continues .* with (\d+) workers?$", line))
    ]


def losses(folder: Path) -> dict[int, float]:
    """The curve of the only run in the folder's store, by step."""
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    (run,) = client.search_runs([e.experiment_id for e in client.search_experiments()])
    return {m.step: m.value for m in client.get_metric_history(run.info.run_id, "train_loss")}


class ReachedError(Exception):
    """The run is as long as it needs to be."""


class ShorterSession(LocalSession):
    """Ends the run at a step."""

    last_step: int

    def progress(self, metrics: Metrics) -> None:
        super().progress(metrics)
        if metrics["step"] >= self.last_step:
            raise ReachedError


def losses_of_one_process(data: Path, run: Path, last_step: int) -> dict[int, float]:
    """The curve of the same run in this process, without Ray, up to a step."""
    patch_set = PatchSet.open(str(data), Storage())
    train_split, val_split = (
        ResidentPatches([patch_set.read_shard(shard) for shard in patch_set.shards(name)])
        for name in ("train", "val")
    )
    host = ShorterSession(train_split, val_split)
    host.last_step = last_step
    with pytest.raises(ReachedError):
        train(TrainingConfig(**json.loads((run / "run.json").read_text())["config"]), host)
    return {int(m["step"]): m["train_loss"] for m in host.curve}


@pytest.mark.soak
def test_elastic_training_grows_and_shrinks_with_the_cluster(
    nodes: Nodes, data: Path, tmp_path: Path
) -> None:
    place = prepared(nodes, tmp_path)
    nodes.kill(nodes.workers[-1])
    # Longer than any machine trains while the nodes come and go: the test ends it. The learning
    # rate does not depend on that length.
    endless = [*TRAINING, "--steps", 1_000_000, "--schedule", "step", "--decay-steps", 150]
    # No validation writes a checkpoint, so that what is done is lost unless growing writes one.
    endless += ["--validate-every", 1_000_000]
    training = Training(nodes, place, place / "runs", "--data", data, *endless, workers="1:2")
    training.at_step(20)
    joined = training.step
    nodes.add()
    training.wait_for(lambda: 2 in workers_seen(training))
    grown = training.step
    assert training.steps(r"training continues from step (\d+)")[0] >= joined
    training.at_step(grown + 60)
    nodes.kill(nodes.workers[-1])
    training.wait_for(lambda: list(workers_seen(training)) == [2, 1])
    training.at_step(training.step + 60)
    training.process.send_signal(signal.SIGINT)
    training.end(130)
    got = losses(place)
    expected = losses_of_one_process(data, run_folder(place / "runs"), max(got))
    assert got.keys() == expected.keys()
    # Sums over another number of workers round otherwise, which Adam magnifies while the gradient
    # is mostly noise: seen were 0.6% at most.
    apart = {step: abs(1 - got[step] / expected[step]) for step in got}
    assert max(apart.values()) < 0.15
    assert max(value for step, value in apart.items() if step > 0.8 * max(got)) < 0.02
