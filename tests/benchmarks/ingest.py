"""Speed of ingest against decoding alone and against a script that writes PNG patches; memory.

Photos are synthetic: 12 megapixels, camera noise, PNG. Needs Ray.
"""

import io
import multiprocessing
import os
import shutil
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import ray
from PIL import Image
from scipy.ndimage import zoom
from skimage import data as skimage_data
from table import Settings, Table

from degrain.cluster import start_ray
from degrain.corpora.config import CorpusOptions
from degrain.imaging.camera_noise import ISO_LEVELS, photograph
from degrain.imaging.codecs import decode, encode_png
from degrain.patchsets.geometry import PatchGeometry
from degrain.patchsets.ingest.config import IngestConfig
from degrain.patchsets.ingest.run import ingest
from degrain.patchsets.patch_set import PatchSet
from degrain.storage.location import Storage

PAIRS = 16
SHAPE = (3000, 4000)
PATCH = 128
GRAIN = 2.0
STORAGE = Storage()


def write_photos(folder: Path, pairs: int, shape: tuple[int, int]) -> None:
    """Write pairs of PNG files, `noisy/N.png` and `clean/N.png`; pair N has noise of seed N."""
    source = skimage_data.retina()
    clean = zoom(source, (shape[0] / source.shape[0], shape[1] / source.shape[1], 1), order=1)
    for kind in ("noisy", "clean"):
        (folder / kind).mkdir(parents=True)
    for number in range(pairs):
        shot = np.roll(clean, 97 * number, axis=1)
        # Clean photos of real pairs have some grain: SIDD's have 1.8 bytes a pixel as PNG.
        grain = np.random.default_rng([number, 1]).normal(0, GRAIN, shot.shape)
        shot = np.clip(np.round(shot + grain), 0, 255).astype(np.uint8)
        noisy = photograph(shot, ISO_LEVELS[3200], np.random.default_rng(number))
        for kind, photo in (("noisy", noisy), ("clean", shot)):
            (folder / kind / f"{number:04}.png").write_bytes(encode_png(photo))


def run_ingest(corpus: Path, out: Path) -> float:
    """Seconds of an ingest on a running Ray cluster."""
    config = IngestConfig(
        corpus=[f"pairs={corpus}"],
        out=str(out),
        geometry=PatchGeometry(patch_size=PATCH, stride=PATCH),
        options=CorpusOptions(),
    )
    start = time.perf_counter()
    ingest(config, STORAGE)
    return time.perf_counter() - start


def decode_only(corpus: Path) -> float:
    """Seconds in which one process decodes the same files with the same decoder."""
    start = time.perf_counter()
    for path in sorted(corpus.rglob("*.png")):
        decode(path.read_bytes())
    return time.perf_counter() - start


def png_patches(corpus: Path, out: Path) -> float:
    """Seconds in which one process decodes, crops and writes PNG patches (zlib level 3, as in
    BasicSR's script).
    """
    start = time.perf_counter()
    for path in sorted(corpus.rglob("*.png")):
        folder = out / path.parent.name
        folder.mkdir(parents=True, exist_ok=True)
        photo = np.asarray(Image.open(path))
        geometry = PatchGeometry(patch_size=PATCH, stride=PATCH)
        for y in geometry.starts(photo.shape[0]):
            for x in geometry.starts(photo.shape[1]):
                patch = Image.fromarray(photo[y : y + PATCH, x : x + PATCH])
                patch.save(folder / f"{path.stem}_{y}_{x}.png", compress_level=3)
    return time.perf_counter() - start


def measure_speed(pairs: int, shape: tuple[int, int]) -> list[Table]:
    """MP/s of ingest and of its rivals on the same files; then of reading patches back."""
    start_ray()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_photos(folder / "corpus", pairs, shape)
        megapixels = 2 * pairs * shape[0] * shape[1] / 1e6
        write_photos(folder / "small", 4, (300, 400))
        run_ingest(folder / "small", folder / "warm")
        decoded = min(decode_only(folder / "corpus") for _ in range(2))
        runs = []
        for number in range(3):
            runs.append(run_ingest(folder / "corpus", folder / f"out{number}"))
            shutil.rmtree(folder / f"out{number - 1}", ignore_errors=True)
        by_png = png_patches(folder / "corpus", folder / "png")
        again = run_ingest(folder / "corpus", folder / "out2")
        reading = measure_reading(PatchSet.open(str(folder / "out2"), STORAGE), folder / "png")
    ray.shutdown()
    best = min(runs)
    rows = [("ingest, 2 cores", f"{megapixels / best:.0f}", "")]
    for name, seconds in (
        ("one process that only decodes them with the same decoder", decoded),
        ("one process: decode, crop, write PNG patches", by_png),
    ):
        rows.append((name, f"{megapixels / seconds:.0f}", f"{seconds / best:.2f}"))
    columns = f"{pairs} pairs of {shape[0] * shape[1] / 1e6:.0f} megapixels, PNG", "MP/s"
    caption = (
        f"{os.cpu_count()} CPUs; ingest took {', '.join(f'{t:.1f}' for t in runs)} s, "
        f"the same photos again {again:.2f} s."
    )
    return [Table((*columns, "ingest is faster by"), rows, caption), reading]


def measure_reading(patch_set: PatchSet, png: Path) -> Table:
    """MP/s of reading the patch set in one process, and of decoding its patches from PNG."""
    # Pages that were written before are still in flight to the disk.
    os.sync()
    shards = [s for split in ("train", "val", "test") for s in patch_set.shards(split)]
    times = []
    for _ in range(3):
        start = time.perf_counter()
        for shard in shards:
            for patches in patch_set.read_shard(shard):
                # Touch every page, because memory-mapped pages that are not read cost nothing.
                patches.reshape(-1)[::4096].sum()
        times.append(time.perf_counter() - start)
    ours = 2 * patch_set.manifest.patches() * PATCH * PATCH / 1e6 / min(times)
    files = [path.read_bytes() for path in sorted(png.rglob("*.png"))[:2000]]
    start = time.perf_counter()
    for content in files:
        np.asarray(Image.open(io.BytesIO(content)))
    by_png = len(files) * PATCH * PATCH / 1e6 / (time.perf_counter() - start)
    return Table(
        ("reading the patch set back, one process", "MP/s", "faster by"),
        [
            ("degrain, from the system's cache", f"{ours:.0f}", ""),
            ("the same patches as PNG in memory, Pillow", f"{by_png:.0f}", f"{ours / by_png:.0f}"),
        ],
    )


class PeakMemory:
    """The largest sum of private resident memory over Ray's workers below this process."""

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


def _measured_ingest(
    pairs: int, shape: tuple[int, int], results: "multiprocessing.Queue[float]"
) -> None:
    start_ray()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_photos(folder / "corpus", pairs, shape)
        # Small photos beside it, because a patch set needs a scene for each split.
        if pairs < 3:
            write_photos(folder / "more", 3, (300, 400))
            for path in (folder / "more").rglob("*.png"):
                path.rename(folder / "corpus" / path.parent.name / f"small{path.name}")
        with PeakMemory() as memory:
            run_ingest(folder / "corpus", folder / "out")
    results.put(memory.peak / 2**20)


def peak_memory(pairs: int, shape: tuple[int, int]) -> float:
    """Peak memory in MiB of all of Ray's workers during an ingest, on a new cluster."""
    context = multiprocessing.get_context("spawn")
    results: multiprocessing.Queue[float] = context.Queue()
    process = context.Process(target=_measured_ingest, args=(pairs, shape, results))
    process.start()
    peak = results.get(timeout=1200)
    process.join()
    return peak


def measure_memory(few: int, many: int, side: int) -> Table:
    """Peak memory of the workers for few and for many photos, and for one pair of large photos."""
    peaks = [peak_memory(pairs, (1000, 1500)) for pairs in (few, many)]
    large = peak_memory(1, (side, side))
    rows = [
        (f"{2 * few} photos of 1.5 megapixels", f"{peaks[0]:.0f}"),
        (
            f"{2 * many} photos of 1.5 megapixels ({peaks[1] / peaks[0]:.2f} times)",
            f"{peaks[1]:.0f}",
        ),
        (f"a pair of {side * side / 1e6:.0f} megapixels", f"{large:.0f}"),
    ]
    return Table(("peak memory of all of Ray's workers", "MiB"), rows)


def run(settings: Settings) -> list[Table]:
    """Speed, reading and memory."""
    if settings.quick:
        return [*measure_speed(4, (300, 400)), measure_memory(4, 5, 2000)]
    return [*measure_speed(PAIRS, SHAPE), measure_memory(50, 200, 10_000)]
