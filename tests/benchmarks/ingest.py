"""Ingest: speed against what a user would otherwise do, and memory; prints Markdown for docs/performance.md.

Photos are made: 12 megapixels, camera-like noise, PNG. Needs Ray; `make bench` runs it.
"""

import io
import multiprocessing
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
from PIL import Image
from scipy.ndimage import zoom
from skimage import data as skimage_data

from degrain import cli
from degrain.data.corpora import CorpusOptions
from degrain.data.ingest import IngestConfig, ingest
from degrain.data.patches import PatchGeometry, PatchSet
from degrain.imaging.codecs import decode, encode_png
from degrain.imaging.noise import ISO_LEVELS, photograph
from degrain.storage import Storage

PAIRS = 16
SHAPE = (3000, 4000)
PATCH = 128
GRAIN = 2.0
STORAGE = Storage()


def write_photos(folder: Path, pairs: int, shape: tuple[int, int]) -> None:
    """Pairs of PNG files, `noisy/N.png` and `clean/N.png`, each of its own noise."""
    source = skimage_data.retina()
    clean = zoom(source, (shape[0] / source.shape[0], shape[1] / source.shape[1], 1), order=1)
    for kind in ("noisy", "clean"):
        (folder / kind).mkdir(parents=True)
    for number in range(pairs):
        shot = np.roll(clean, 97 * number, axis=1)
        # Clean photos of real pairs still have some grain: SIDD's take 1.8 bytes a pixel as PNG.
        grain = np.random.default_rng([number, 1]).normal(0, GRAIN, shot.shape)
        shot = np.clip(np.round(shot + grain), 0, 255).astype(np.uint8)
        noisy = photograph(shot, ISO_LEVELS[3200], np.random.default_rng(number))
        for kind, photo in (("noisy", noisy), ("clean", shot)):
            (folder / kind / f"{number:04}.png").write_bytes(encode_png(photo))


def run_ingest(corpus: Path, out: Path) -> float:
    """Seconds of an ingest on a running Ray."""
    config = IngestConfig(
        corpora=[f"pairs={corpus}"],
        out=str(out),
        geometry=PatchGeometry(patch_size=PATCH, stride=PATCH),
        options=CorpusOptions(),
    )
    began = time.perf_counter()
    ingest(config, STORAGE, start_ray=lambda: None)
    return time.perf_counter() - began


def decode_only(corpus: Path) -> float:
    """One process that decodes the same files with the same decoder and throws the pixels away."""
    began = time.perf_counter()
    for path in sorted(corpus.rglob("*.png")):
        decode(path.read_bytes())
    return time.perf_counter() - began


def png_patches(corpus: Path, out: Path) -> float:
    """The usual way: one process, decode, crop, write PNG patches (zlib level 3, as BasicSR's script does)."""
    began = time.perf_counter()
    for path in sorted(corpus.rglob("*.png")):
        folder = out / path.parent.name
        folder.mkdir(parents=True, exist_ok=True)
        photo = np.asarray(Image.open(path))
        geometry = PatchGeometry(patch_size=PATCH, stride=PATCH)
        for y in geometry.starts(photo.shape[0]):
            for x in geometry.starts(photo.shape[1]):
                patch = Image.fromarray(photo[y : y + PATCH, x : x + PATCH])
                patch.save(folder / f"{path.stem}_{y}_{x}.png", compress_level=3)
    return time.perf_counter() - began


def bench_speed() -> None:
    """MP/s of ingest and of its rivals on the same files; then of reading back."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_photos(folder / "corpus", PAIRS, SHAPE)
        megapixels = 2 * PAIRS * SHAPE[0] * SHAPE[1] / 1e6
        write_photos(folder / "small", 4, (300, 400))
        run_ingest(folder / "small", folder / "warm")
        plain = min(decode_only(folder / "corpus") for _ in range(2))
        ours = []
        for number in range(3):
            ours.append(run_ingest(folder / "corpus", folder / f"out{number}"))
            shutil.rmtree(folder / f"out{number - 1}", ignore_errors=True)
        usual = png_patches(folder / "corpus", folder / "png")
        again = run_ingest(folder / "corpus", folder / "out2")
        best = min(ours)
        print(f"\n| {PAIRS} pairs of 12 megapixels, PNG | MP/s | ingest is faster by |\n|---|---:|---:|")
        print(f"| ingest, 2 cores (runs: {', '.join(f'{t:.1f} s' for t in ours)}) | {megapixels / best:.0f} | |")
        print(f"| one process that only decodes them | {megapixels / plain:.0f} | {plain / best:.2f} |")
        print(f"| one process: decode, crop, write PNG patches | {megapixels / usual:.0f} | {usual / best:.1f} |")
        print(f"\nIngesting the same again: {again:.2f} s.")
        bench_reading(PatchSet.open(str(folder / "out2"), STORAGE), folder / "png")


def bench_reading(patch_set: PatchSet, png: Path) -> None:
    """Reading the patch set back, one process, against decoding its patches from PNG."""
    # What was written before is still on its way to the disk.
    os.sync()
    shards = [s for split in ("train", "val", "test") for s in patch_set.shards(split)]
    times = []
    for _ in range(3):
        began = time.perf_counter()
        for shard in shards:
            for patches in patch_set.read_shard(shard):
                # Touch every page: mapped memory that nobody reads costs nothing.
                patches.reshape(-1)[::4096].sum()
        times.append(time.perf_counter() - began)
    megapixels = 2 * patch_set.manifest.patches() * PATCH * PATCH / 1e6
    files = [path.read_bytes() for path in sorted(png.rglob("*.png"))[:2000]]
    began = time.perf_counter()
    for content in files:
        np.asarray(Image.open(io.BytesIO(content)))
    by_png = len(files) * PATCH * PATCH / 1e6 / (time.perf_counter() - began)
    ours = megapixels / min(times)
    print("\n| reading the patch set back, one process | MP/s | faster by |\n|---|---:|---:|")
    print(f"| degrain, from disk (cached by the system) | {ours:.0f} | |")
    print(f"| the same patches as PNG in memory, Pillow | {by_png:.0f} | {ours / by_png:.0f} |")


class PeakMemory:
    """The largest sum of resident memory over this process' family, shared memory counted once."""

    def __init__(self) -> None:
        self.peak = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "PeakMemory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.05):
            total = 0
            for process in psutil.Process().children(recursive=True):
                try:
                    if process.name().startswith("ray::"):
                        memory = process.memory_info()
                        total += memory.rss - memory.shared
                except psutil.Error:
                    continue
            self.peak = max(self.peak, total)


def _measured_ingest(pairs: int, shape: tuple[int, int], results: "multiprocessing.Queue[float]") -> None:
    cli.start_ray(verbose=False)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_photos(folder / "corpus", pairs, shape)
        # Small ones beside it, because a set needs a scene for each split.
        if pairs < 3:
            write_photos(folder / "more", 3, (300, 400))
            for path in (folder / "more").rglob("*.png"):
                path.rename(folder / "corpus" / path.parent.name / f"small{path.name}")
        with PeakMemory() as memory:
            run_ingest(folder / "corpus", folder / "out")
    results.put(memory.peak / 2**20)


def peak_memory(pairs: int, shape: tuple[int, int]) -> float:
    """Peak memory in MiB of all of Ray's workers during an ingest, on a cluster of its own."""
    context = multiprocessing.get_context("spawn")
    results: multiprocessing.Queue[float] = context.Queue()
    process = context.Process(target=_measured_ingest, args=(pairs, shape, results))
    process.start()
    peak = results.get(timeout=1200)
    process.join()
    return peak


def bench_memory() -> None:
    """Peak memory of the workers on 100 and on 400 photos, and on one pair of 100 megapixels."""
    few, many = peak_memory(50, (1000, 1500)), peak_memory(200, (1000, 1500))
    huge = peak_memory(1, (10_000, 10_000))
    print("\n| peak memory of all of Ray's workers | MiB |\n|---|---:|")
    print(f"| 100 photos of 1.5 megapixels | {few:.0f} |")
    print(f"| 400 photos of 1.5 megapixels ({many / few:.2f} times) | {many:.0f} |")
    print(f"| a pair of 100 megapixels | {huge:.0f} |")


def main() -> int:
    """Run all benchmarks of ingest."""
    print(f"{os.cpu_count()} CPUs")
    steps: dict[str, Callable[[], None]] = {"memory": bench_memory, "speed": bench_speed}
    for name, step in steps.items():
        if sys.argv[1:] in ([], [name]):
            if name == "speed":
                cli.start_ray(verbose=False)
            step()
    return 0


if __name__ == "__main__":
    sys.exit(main())
