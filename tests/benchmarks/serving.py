"""`degrain serve` on this machine: throughput against the bare network, latency, full queue,
killed replicas, promotion and rollback under load, hostile clients; and batches of photos against
single ones.
"""

import contextlib
import io
import multiprocessing
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from PIL import Image
from processes import free_port
from service_load import Load, PeakMemory, cpu_seconds, hostile, photo_replicas
from skimage import data as skimage_data
from table import Settings, Table, progress

from degrain.cluster import start_ray
from degrain.imaging.camera_noise import ISO_LEVELS, photograph
from degrain.imaging.pixels import Photo
from degrain.inference.config import STARTER, InferenceConfig
from degrain.registry.files import STARTER_FOLDER, WEIGHTS_FILE, read_model
from degrain.registry.versions import register
from degrain.serving.application import start, stop
from degrain.serving.config import ServingConfig
from degrain.serving.settings import Settings as ServiceSettings
from degrain.storage.location import Storage
from degrain.tracking.client import connect
from degrain.tracking.config import load_tracking_config
from degrain.tracking.runs import Tracker

CORES = min(os.cpu_count() or 1, 2)
QUEUE = 16
SECONDS = 300
"""Length of each load."""


def run(settings: Settings) -> list[Table]:
    """All tables."""
    side, seconds = (128, 8) if settings.quick else (1000, SECONDS)
    photos = [noisy_photo(side, seed) for seed in range(4)]
    files = [as_jpeg(photo) for photo in photos]
    tables = [measure_batches(settings)]
    bare = measure_bare(photos, seconds / 5)
    with service(CORES) as (port, tracking):
        tables.append(measure_load(port, files, seconds, bare))
        tables.append(measure_events(port, files, tracking, seconds / 5))
        tables.append(measure_hostile(port, files))
    tables.append(_bare_again(photos, bare, seconds / 5))
    return tables


def noisy_photo(side: int, seed: int) -> Photo:
    """A photograph of side x side pixels with camera noise."""
    astronaut = skimage_data.astronaut()
    clean = np.asarray(Image.fromarray(astronaut).resize((side, side)))
    return photograph(clean, ISO_LEVELS[3200], np.random.default_rng(seed))


def as_jpeg(photo: Photo) -> bytes:
    """The photo as a camera stores it."""
    file = io.BytesIO()
    Image.fromarray(photo).save(file, "JPEG", quality=92)
    return file.getvalue()


def measure_batches(settings: Settings) -> Table:
    """The starter on photos one by one and as a batch, on one thread, in turns."""
    torch.set_num_threads(1)
    denoiser, _ = read_model(STARTER_FOLDER, name=STARTER)
    rows = []
    for side, count in [(64, 2)] if settings.quick else [(256, 8), (512, 4), (1000, 2)]:
        photos = [noisy_photo(side, seed) for seed in range(count)]
        single, batched = [], []
        for _ in range(2 if settings.quick else 3):
            single.append(_cpu_seconds(lambda photos=photos: [denoiser(p) for p in photos]))
            batched.append(_cpu_seconds(lambda photos=photos: denoiser.batch(photos)))
        one, many = (min(times[1:]) / (count * side**2 / 1e6) for times in (single, batched))
        rows.append([f"{count} of {side}x{side}", f"{one:.2f}", f"{many:.2f}", f"{one / many:.2f}"])
    columns = ["photos", "one by one CPU-s/MP", "as a batch CPU-s/MP", "batch is faster by"]
    return Table(
        columns, rows, "The starter on one thread; the shorter of two turns after a first."
    )


def _cpu_seconds(work: object) -> float:
    started = time.process_time()
    work()  # type: ignore[operator]
    return time.process_time() - started


@dataclass(frozen=True)
class Bare:
    """The network alone: a process with one thread on each core."""

    per_second: float
    """Photos of all processes per second."""
    cpu_seconds: float
    """CPU time of a photo."""


def measure_bare(photos: list[Photo], seconds: float) -> Bare:
    """Run the network in turn on photos that are decoded already."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(CORES)
    with context.Pool(CORES, initializer=_keep_barrier, initargs=(barrier,)) as pool:
        found = pool.starmap(_bare, [(photos, seconds)] * CORES, chunksize=1)
    return Bare(sum(rate for rate, _ in found), float(np.mean([cpu for _, cpu in found])))


def _keep_barrier(barrier: object) -> None:
    globals()["_barrier"] = barrier


def _bare(photos: list[Photo], seconds: float) -> tuple[float, float]:
    """Photos per second, and CPU seconds of a photo, in one process."""
    torch.set_num_threads(1)
    denoiser, _ = read_model(STARTER_FOLDER, name=STARTER)
    denoiser(photos[0])
    globals()["_barrier"].wait()
    started, cpu, count = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() < started + seconds:
        denoiser(photos[count % len(photos)])
        count += 1
    return count / (time.perf_counter() - started), (time.process_time() - cpu) / count


@contextlib.contextmanager
def service(replicas: int) -> Iterator[tuple[int, Path]]:
    """The service with two equal versions of the starter in a registry of its own; its port, and
    its mlflow.yaml.
    """
    with tempfile.TemporaryDirectory() as folder:
        tracking = Path(folder) / "mlflow.yaml"
        tracking.write_text("{}\n")
        _register(tracking)
        port = free_port()
        config = ServingConfig(
            port=port,
            min_replicas=replicas,
            max_replicas=replicas,
            queue=QUEUE,
            largest_megabytes=20,
        )
        start_ray(loopback=True)
        start(
            ServiceSettings(
                serving=config,
                inference=InferenceConfig(),
                tracking=load_tracking_config(tracking),
                storage=Storage(),
                token=None,
            )
        )
        progress("the service runs")
        yield port, tracking
        stop()


def _register(tracking: Path) -> None:
    tracker = Tracker.open(load_tracking_config(tracking), Storage())
    _, card = read_model(STARTER_FOLDER, name=STARTER)
    weights = safetensors.torch.load_file(STARTER_FOLDER / WEIGHTS_FILE)
    for _ in range(2):
        with tracker.run("training", "training") as run:
            register(tracker, run, weights, card)
    move(tracking, "1")


def move(tracking: Path, version: str) -> None:
    """Move the alias of the champion."""
    config = load_tracking_config(tracking)
    connect(config, Storage()).set_registered_model_alias(config.model, "champion", version)


def measure_load(port: int, files: list[bytes], seconds: float, bare: Bare) -> Table:
    """Closed loops of clients: as many as there are replicas, twice as many, and far too many,
    which wait as long as they are told or do not.
    """
    Load(port, files).send(files[0])
    rows = []
    many = 4 * (CORES + QUEUE)
    for clients, obedient in ((CORES, True), (2 * CORES, True), (many, True), (many, False)):
        load = Load(port, files, obedient)
        started, cpu = time.perf_counter(), cpu_seconds()
        with load.run(clients):
            time.sleep(seconds)
            ended = time.perf_counter()
        cpu = (cpu_seconds() - cpu) / load.statuses[200]
        rate = load.per_second(started, ended)
        statuses = load.statuses
        other = sum(statuses.values()) - statuses[200] - statuses[429]
        rows.append(
            [
                f"{clients} clients{'' if obedient else ', deaf to Retry-After'}",
                f"{rate:.3f}",
                f"{rate / bare.per_second:.2f}",
                f"{bare.cpu_seconds / cpu:.2f}",
                *(f"{value:.2f}" for value in load.percentiles()),
                str(statuses[200]),
                str(statuses[429]),
                str(other),
            ]
        )
        progress(" ".join(rows[-1]))
    columns = ["load", "photos/s", "share of bare", "by CPU time", "p50 s", "p95 s", "p99 s"]
    caption = (
        f"{seconds:.0f} s each. Bare network: {bare.per_second:.3f} photos/s, "
        f"{bare.cpu_seconds:.2f} CPU-s a photo; CPU time of the service has Ray's own processes."
    )
    return Table([*columns, "200", "429", "other"], rows, caption)


def measure_events(port: int, files: list[bytes], tracking: Path, seconds: float) -> Table:
    """Kill replicas, promote and roll back while clients send photos."""
    load = Load(port, files)
    with load.run(2 * CORES):
        for _ in range(3):
            time.sleep(seconds / 2)
            os.kill(photo_replicas()[0].pid, signal.SIGKILL)
        time.sleep(seconds)
    rows = [_event_row("3 replicas killed", load, "")]
    load = Load(port, files)
    with load.run(2 * CORES):
        for version in ("2", "1"):
            time.sleep(seconds / 2)
            moved = time.perf_counter()
            move(tracking, version)
            live = _first_answer(load, f"v{version}", moved)
            progress(f"version {version} is live after {live:.1f} s")
    rows.append(_event_row("promotion and rollback", load, f"{live:.1f}"))
    return Table(["event under load", "200", "failed", "live after s"], rows)


def _event_row(name: str, load: Load, live: str) -> list[str]:
    statuses = load.statuses
    return [name, str(statuses[200]), str(sum(statuses.values()) - statuses[200]), live]


def _first_answer(load: Load, version: str, moved: float) -> float:
    """Seconds from `moved` until a photo that a version has denoised began to be sent."""
    while True:
        for answer in list(load.answers):
            if answer.started > moved and (answer.model or "").endswith(version):
                return answer.started - moved
        time.sleep(0.1)


def measure_hostile(port: int, files: list[bytes]) -> Table:
    """What hostile clients get, and the memory that they take."""
    rows = []
    for name, deed in hostile(port):
        with PeakMemory() as memory:
            outcome = deed()
        after = Load(port, files).send(files[0]).status
        rows.append([name, outcome, f"{memory.megabytes:.0f}", str(after)])
        progress(" ".join(rows[-1]))
    columns = ["client", "outcome", "memory MB", "next photo"]
    return Table(columns, rows, "Limit of an upload: 20 MB.")


def _bare_again(photos: list[Photo], before: Bare, seconds: float) -> Table:
    """The bare network after the load: how steady the machine was."""
    rows = [
        [name, f"{bare.per_second:.3f}", f"{bare.cpu_seconds:.2f}"]
        for name, bare in (("before", before), ("after", measure_bare(photos, seconds)))
    ]
    return Table(["bare network", "photos/s", "CPU-s a photo"], rows)
