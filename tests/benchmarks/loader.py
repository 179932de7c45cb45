"""Speed of training input: degrain's loader against DataLoader and Ray Data, per core.

All return the same batches of the same pairs: a random crop in one of eight orientations, float32
(B, 3, CROP, CROP) in [0, 1]. The start of workers and of Ray is not counted. Needs the packages of
`pip install -e '.[bench]'`.
"""

import itertools
import math
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cached_property
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import ray
import ray.data
import torch
from local_ray import start_local_ray
from numpy.typing import NDArray
from skimage import data as skimage_data
from table import Settings, Table
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from degrain.imaging.camera_noise import ISO_LEVELS, photograph
from degrain.imaging.pixels import Photo
from degrain.loading.batches import BatchLoader, BatchPlan, dihedral
from degrain.loading.order import Permuted
from degrain.loading.patches import ResidentPatches
from degrain.patchsets.geometry import PatchGeometry
from degrain.patchsets.shards import cut

try:
    import cv2  # type: ignore[import-not-found, unused-ignore]
    import lmdb  # type: ignore[import-not-found, unused-ignore]
except ModuleNotFoundError as error:
    sys.exit(
        f"error: degrain is compared with {error.name}, which is not installed: "
        "pip install -e '.[bench]'"
    )

PATCHES, SIDE, CROP, BATCH = 2000, 128, 64, 16
WORKERS = 2
TURNS, SECONDS = 3, 7.0
KINDS = ("noisy", "clean")

Pair = tuple[Tensor, Tensor]
"""Noisy and clean."""
Epochs = Callable[[int], Iterable[Pair]]
"""Function of a number of passes over the patches; returns their batches, as one epoch."""


def write_patches(folder: Path) -> None:
    """Write the patch pairs as arrays, as PNG files and as an LMDB of these files."""
    geometry, rng = PatchGeometry(patch_size=SIDE, stride=32), np.random.default_rng(0)
    found: dict[str, list[Photo]] = {kind: [] for kind in KINDS}
    for photo in (skimage_data.astronaut(), skimage_data.coffee(), skimage_data.retina()):
        # Clean photos of real pairs have some grain: SIDD's have 1.8 bytes a pixel as PNG.
        clean = np.clip(np.round(photo + rng.normal(0, 2, photo.shape)), 0, 255).astype(np.uint8)
        for kind, shot in (("noisy", photograph(clean, ISO_LEVELS[3200], rng)), ("clean", clean)):
            found[kind].append(cut(shot, geometry.starts(shot.shape[0]), geometry))
    with (
        lmdb.open(str(folder / "lmdb"), map_size=2**30) as environment,
        environment.begin(write=True) as transaction,
    ):
        for kind in KINDS:
            patches = np.concatenate(found[kind])[:PATCHES]
            assert len(patches) == PATCHES
            np.save(folder / f"{kind}.npy", patches)
            for index, patch in enumerate(patches):
                # zlib level 3, as BasicSR's script does.
                content = cv2.imencode(".png", patch[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 3])[
                    1
                ].tobytes()
                (folder / png_name(kind, index)).write_bytes(content)
                transaction.put(png_name(kind, index).encode(), content)


def png_name(kind: str, index: int) -> str:
    return f"{kind}_{index:05}.png"


def degrain_loader(folder: Path) -> Epochs:
    """degrain: patches in memory, batches made in this process."""
    noisy, clean = (np.load(folder / f"{kind}.npy") for kind in KINDS)
    order = Permuted(seed=0, patches=PATCHES)
    plan = BatchPlan(seed=0, order=order, side=SIDE, batch_size=BATCH, crop=CROP)
    loader = BatchLoader(ResidentPatches([(noisy, clean)]), plan, device=torch.device("cpu"))
    steps = itertools.count()

    def epoch(passes: int) -> Iterator[Pair]:
        for step in itertools.islice(steps, passes * PATCHES // BATCH):
            batch = loader.batch(step)
            yield batch.noisy, batch.clean

    return epoch


class PngPairs(Dataset[Pair]):
    """Pairs of PNG files, decoded by OpenCV, converted to float, cropped and augmented, as in
    BasicSR.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def __len__(self) -> int:
        return PATCHES

    def __getitem__(self, index: int) -> Pair:
        top, left = random.randint(0, SIDE - CROP), random.randint(0, SIDE - CROP)
        flipped_lr, flipped_ud, transposed = (random.random() < 0.5 for _ in range(3))
        tensors = []
        for kind in KINDS:
            content = np.frombuffer(self.read(png_name(kind, index)), np.uint8)
            patch = cv2.imdecode(content, cv2.IMREAD_COLOR).astype(np.float32) / 255
            patch = patch[top : top + CROP, left : left + CROP]
            if flipped_lr:
                patch = cv2.flip(patch, 1)
            if flipped_ud:
                patch = cv2.flip(patch, 0)
            if transposed:
                patch = patch.transpose(1, 0, 2)
            patch = cv2.cvtColor(patch, cv2.COLOR_BGR2RGB)
            tensors.append(torch.from_numpy(patch.transpose(2, 0, 1)))  # (S, S, 3) -> (3, S, S)
        return tensors[0], tensors[1]


class LmdbPairs(PngPairs):
    """The same files as values of an LMDB."""

    @cached_property
    def environment(self) -> Any:  # noqa: ANN401 (lmdb has no types)
        """Opened in the worker, because an LMDB must not be used across a fork."""
        return lmdb.open(str(self.folder / "lmdb"), readonly=True, lock=False, readahead=False)

    def read(self, name: str) -> bytes:
        with self.environment.begin() as transaction:
            content: bytes = transaction.get(name.encode())
            return content


class Shuffled(Sampler[int]):
    """Several passes over the patches, each in a new order, as one epoch, so that workers prefetch
    across passes.
    """

    passes = 1

    def __iter__(self) -> Iterator[int]:
        for _ in range(self.passes):
            yield from torch.randperm(PATCHES).tolist()


def data_loader(pairs: PngPairs) -> Epochs:
    """PyTorch's DataLoader with persistent workers."""
    sampler = Shuffled()
    loader = DataLoader(pairs, BATCH, sampler=sampler, num_workers=WORKERS, persistent_workers=True)

    def epoch(passes: int) -> Iterable[Pair]:
        sampler.passes = passes
        return loader

    return epoch


def start_ray() -> None:
    """Start a small, silent Ray for this process."""
    # Ray's workers cannot import this file.
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    start_local_ray(cpus=WORKERS)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars, context.print_on_execution_start = False, False


def write_parquet(folder: Path) -> None:
    """Write the pairs as Parquet files with tensor columns, eight of them."""
    start_ray()

    def take(rows: dict[str, NDArray[np.int64]]) -> dict[str, Photo]:
        return {kind: np.load(folder / f"{kind}.npy", mmap_mode="r")[rows["id"]] for kind in KINDS}

    rows = ray.data.range(PATCHES, override_num_blocks=8)
    rows.map_batches(take, batch_size=PATCHES // 8).write_parquet(
        str(folder / "parquet"), compression="none"
    )


def crops(patches: dict[str, Photo]) -> dict[str, Photo]:
    """Crop and augment each pair of a block, in 8 bits.

    (N, SIDE, SIDE, 3) -> (N, CROP, CROP, 3).
    """
    count, rng = len(patches["noisy"]), np.random.default_rng()
    crops_and_orientations = np.stack(
        [*rng.integers(0, SIDE - CROP + 1, (2, count)), rng.integers(0, 8, count)], axis=1
    ).tolist()
    found = {kind: np.empty((count, CROP, CROP, 3), np.uint8) for kind in KINDS}
    for kind in KINDS:
        for target, patch, (top, left, orientation) in zip(
            found[kind], patches[kind], crops_and_orientations, strict=True
        ):
            target[:] = dihedral(patch[top : top + CROP, left : left + CROP], orientation)
    return found


def floats(batch: dict[str, Photo]) -> Pair:
    """(B, S, S, 3) of 8 bits -> (B, 3, S, S) float32 in [0, 1], channels last in memory."""
    noisy, clean = (
        torch.from_numpy(batch[kind]).permute(0, 3, 1, 2).float().div_(255) for kind in KINDS
    )
    return noisy, clean


def ray_data(folder: Path) -> Epochs:
    """Ray Data: its workers read blocks and crop them, which moves fewer bytes; this process
    shuffles and converts to float.
    """
    start_ray()

    def epoch(passes: int) -> Iterable[Pair]:
        # A link for each pass, because Ray Data skips some of the files that are listed twice.
        links = Path(tempfile.mkdtemp(dir=folder))
        for number, file in itertools.product(range(passes), (folder / "parquet").iterdir()):
            (links / f"{number}_{file.name}").hardlink_to(file)
        dataset = ray.data.read_parquet(str(links)).map_batches(crops, batch_size=None)
        batches: Iterable[Pair] = dataset.iter_torch_batches(
            batch_size=BATCH, local_shuffle_buffer_size=512, collate_fn=floats
        )
        return batches

    return epoch


INPUTS: dict[str, Callable[[Path], Epochs]] = {
    "degrain, one process": degrain_loader,
    f"PNG files, OpenCV, DataLoader of {WORKERS} workers": lambda folder: data_loader(
        PngPairs(folder)
    ),
    f"LMDB of PNG, OpenCV, DataLoader of {WORKERS} workers": lambda folder: data_loader(
        LmdbPairs(folder)
    ),
    f"Ray Data, Parquet of tensors, {WORKERS} CPUs": ray_data,
}


def cpu_seconds() -> float:
    """CPU time of this process and of all its descendants, also of those that ended."""
    total = 0.0
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        try:
            total += sum(process.cpu_times()[:4])  # user, system, and both of children that ended
        except psutil.NoSuchProcess:
            continue
    return total


def turn(name: str, folder: Path, seconds: float) -> tuple[float, float]:
    """Patches per second, and per CPU-second, of an epoch of about `seconds`."""
    torch.set_num_threads(1)
    epochs = INPUTS[name](folder)
    speed(epochs, 1)  # starts the workers
    per_second, _ = speed(epochs, 1)
    return speed(epochs, math.ceil(seconds * per_second / PATCHES))


def speed(epochs: Epochs, passes: int) -> tuple[float, float]:
    """Patches per second, and per CPU-second, of one epoch."""
    wall, cpu, patches = time.perf_counter(), cpu_seconds(), 0
    for noisy, clean in epochs(passes):
        assert noisy.shape == clean.shape == (BATCH, 3, CROP, CROP), noisy.shape
        assert noisy.dtype == clean.dtype == torch.float32
        patches += len(noisy)
    assert patches == passes * PATCHES, patches
    return patches / (time.perf_counter() - wall), patches / (cpu_seconds() - cpu)


def alone(work: Callable[..., Any], *arguments: Any) -> Any:  # noqa: ANN401
    """The result of `work` in a new process, whose children end with it."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()


def run(settings: Settings) -> list[Table]:
    """Time all inputs in turns, so that other load on the machine affects all alike."""
    turns, seconds = (1, 0.2) if settings.quick else (TURNS, SECONDS)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_patches(folder)
        alone(write_parquet, folder)
        speeds: dict[str, list[tuple[float, float]]] = {name: [] for name in INPUTS}
        for _, name in itertools.product(range(turns), INPUTS):
            speeds[name].append(alone(turn, name, folder, seconds))
    medians = {
        name: [statistics.median(column) for column in zip(*measured, strict=True)]
        for name, measured in speeds.items()
    }
    ours = next(iter(medians.values()))[1]
    rows = [
        (name, f"{wall:.0f}", f"{cpu:.0f}", f"{ours / cpu:.1f}" if number else "")
        for number, (name, (wall, cpu)) in enumerate(medians.items())
    ]
    columns = "input", "patches/s (wall)", "patches per CPU-second", "degrain is faster by"
    caption = (
        f"Batches of {BATCH} crops of {CROP} from {PATCHES} pairs of {SIDE}x{SIDE}, medians of "
        f"{turns} turns."
    )
    return [Table(columns, rows, caption)]
