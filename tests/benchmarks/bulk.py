"""Throughput of `degrain denoise` against the bare network, and peak memory of a large photo."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tifffile
import torch
from PIL import Image
from skimage import data as skimage_data
from table import Settings, Table, progress

import degrain
from degrain.imaging.codecs import read_stored
from degrain.imaging.pixels import Photo
from degrain.inference.bulk import denoise_files
from degrain.inference.config import OutputConfig, ReadingConfig
from degrain.inference.denoiser import Denoiser
from degrain.inference.photo_list import PhotoTask, find_photos, targets
from degrain.storage.location import Storage

CODE = """
import resource, sys
from degrain.cli.main import main
status = main(sys.argv[1:])
print(status, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""
TURNS = 3


def run(settings: Settings) -> list[Table]:
    """Both tables."""
    return [measure_throughput(settings), measure_memory(settings)]


def measure_throughput(settings: Settings) -> Table:
    """The starter on photos of each type: whole files, and the network alone on the same pixels.

    Both in turns, because other load on the machine changes with time.
    """
    count, side = (2, 256) if settings.quick else (6, 1000)
    rows = []
    for suffix, save in WRITERS.items():
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "in").mkdir()
            for number in range(count):
                save(noisy_photo(side, number), folder / "in" / f"{number:03}.{suffix}")
            ratios = compare(folder, 1 if settings.quick else TURNS)
        rows.append((suffix, *(f"{value:.3f}" for value in ratios)))
        progress(f"{suffix}: {rows[-1][1:]}")
    caption = (
        f"{count} photos of {side * side / 1e6:.1f} megapixels, the starter, "
        f"{torch.get_num_threads()} threads, median of {TURNS} turns."
    )
    columns = "files", "MP/s of the network", "MP/s of files", "share of it", "share by CPU time"
    return Table(columns, rows, caption)


def compare(folder: Path, turns: int) -> tuple[float, float, float, float]:
    """MP/s of the bare network and of files, and their ratios by wall and by CPU time."""
    denoiser, storage = degrain.load("starter"), Storage()
    tasks = targets(
        find_photos([str(folder / "in")], storage).photos, storage.locate(folder / "out")
    )
    photos = [read_stored(task.source.read_bytes()).colours for task in tasks]
    megapixels = sum(photo.shape[0] * photo.shape[1] for photo in photos) / 1e6
    denoiser(photos[0])
    turns_measured: list[tuple[float, float, float]] = []
    for _ in range(turns):
        bare, bare_cpu = seconds(lambda: [denoiser(photo) for photo in photos])
        whole, whole_cpu = seconds(lambda: _denoise(denoiser, tasks))
        turns_measured.append((megapixels / bare, megapixels / whole, bare_cpu / whole_cpu))
    middle = sorted(turns_measured, key=lambda turn: turn[1] / turn[0])[turns // 2]
    return middle[0], middle[1], middle[1] / middle[0], middle[2]


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    """Wall time and CPU time of `work`."""
    began, began_cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - began, time.process_time() - began_cpu


def _denoise(denoiser: Denoiser, tasks: list[PhotoTask]) -> None:
    files = denoise_files(denoiser, tasks, output=OutputConfig(), reading=ReadingConfig())
    assert not any(file.error for file in files)


def measure_memory(settings: Settings) -> Table:
    """Peak memory of a command that denoises one large photo."""
    side = 1000 if settings.quick else 10_000
    rows = []
    for name, deep in (("8-bit JPEG", False), ("16-bit TIFF", True)):
        with tempfile.TemporaryDirectory() as folder:
            photo = np.tile(noisy_photo(1000, 0), (side // 1000, side // 1000, 1))
            file = Path(folder) / ("photo.tif" if deep else "photo.jpg")
            if deep:
                tifffile.imwrite(file, photo.astype(np.uint16) * 257, photometric="rgb")
            else:
                Image.fromarray(photo).save(file, quality=95)
            del photo
            options = ["--model", "starter", "--out", str(Path(folder) / "out")]
            began = time.perf_counter()
            command = [sys.executable, "-c", CODE, "denoise", str(file), *options]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            seconds = time.perf_counter() - began
            status, peak = done.stdout.splitlines()[-1].split()
            assert status == "0", done.stderr
        rows.append((f"{name}, {side * side / 1e6:.0f} MP", f"{float(peak):.0f}", f"{seconds:.0f}"))
        progress(f"{name}: {rows[-1][1:]}")
    return Table(("photo", "peak memory of the process, MiB", "seconds"), rows)


def noisy_photo(side: int, number: int) -> Photo:
    """A photograph with noise, (side, side, 3)."""
    times = -(-side // 512)
    clean = np.roll(np.tile(skimage_data.astronaut(), (times, times, 1)), 31 * number, axis=1)
    noise = np.random.default_rng(number).normal(0, 12, (side, side, 3))
    return np.clip(clean[:side, :side] + noise, 0, 255).astype(np.uint8)


WRITERS: dict[str, Callable[[Photo, Path], object]] = {
    "jpg": lambda photo, file: Image.fromarray(photo).save(file, quality=92),
    "png": lambda photo, file: Image.fromarray(photo).save(file, compress_level=1),
    "tif": lambda photo, file: tifffile.imwrite(file, photo, photometric="rgb"),
}
