"""Speed, as ratios within one run: what degrain does against what a user would otherwise do.

Prints a Markdown table for docs/performance.md. Needs no Ray; `make bench` runs it.
"""

import io
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from skimage import data as skimage_data

from degrain.data.patches import PatchGeometry, binary_column, column_patches, cut
from degrain.imaging.denoiser import Denoiser, NetworkDenoiser
from degrain.imaging.filters import create_filter, list_filters
from degrain.imaging.pixels import Photo
from denoisenets import create_model, describe, list_models


def seconds(work: Callable[[], object], repeats: int = 7) -> float:
    """The median time of `work`, after two calls that do not count."""
    work()
    work()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def bench_reading() -> None:
    """Reading patches back: raw bytes in a binary column against PNG files of the same patches."""
    side = 128
    photo, geometry = skimage_data.retina(), PatchGeometry(patch_size=side, stride=64)
    patches = cut(photo, geometry.starts(photo.shape[0]), geometry)
    megapixels = len(patches) * side * side / 1e6
    with tempfile.TemporaryDirectory() as folder:
        raw, nested = Path(folder) / "raw.parquet", Path(folder) / "list.parquet"
        pq.write_table(pa.table({"x": binary_column(patches)}), raw, compression="none", use_dictionary=False)
        flat = pa.array(patches.reshape(-1))
        lists = pa.FixedSizeListArray.from_arrays(flat, side * side * 3)
        pq.write_table(pa.table({"x": lists}), nested, compression="none", use_dictionary=False)
        files = []
        for patch in patches:
            buffer = io.BytesIO()
            Image.fromarray(patch).save(buffer, format="PNG")
            files.append(buffer.getvalue())
        ours = seconds(lambda: column_patches(pq.read_table(raw)["x"], side, 8).sum())
        summing = seconds(lambda: patches.sum())
        png = seconds(lambda: [np.asarray(Image.open(io.BytesIO(f))) for f in files], 3)
        lists_time = seconds(lambda: pq.read_table(nested)["x"].combine_chunks(), 3)
    ours = max(ours - summing, 1e-9)
    print("\n| reading 128x128 patches, one process | MP/s | degrain is faster by |\n|---|---:|---:|")
    print(f"| degrain: raw bytes in Parquet | {megapixels / ours:.0f} | |")
    print(f"| list column in Parquet | {megapixels / lists_time:.0f} | {lists_time / ours:.1f} |")
    print(f"| PNG in memory, Pillow | {megapixels / png:.0f} | {png / ours:.1f} |")


def bench_photos(side: int = 1024) -> None:
    """Whole photos: seconds per megapixel of every network at its published size, and of every filter.

    Networks take a photo of `side` pixels square, filters, which are slower, a sixteenth of it.
    """
    photo = np.tile(skimage_data.astronaut(), (2, 2, 1))[:side, :side]
    noisy = np.clip(photo + np.random.default_rng(0).normal(0, 20, photo.shape), 0, 255).astype(np.uint8)
    part = noisy[:256, :256]
    rows: list[tuple[str, float, str]] = []  # name, seconds per megapixel, size
    for model in list_models():
        described = describe(model)
        weights = create_model(model).state_dict()
        denoiser = NetworkDenoiser(model, {}, weights)
        shown = f"{described.parameters / 1e6:.2f} M | {described.macs_per_pixel / 1e3:.0f}"
        rows.append((model, seconds_per_megapixel(denoiser, noisy), shown))
    narrow = create_model("red10", width=32).state_dict()
    rows.append(("red10, width 32", seconds_per_megapixel(NetworkDenoiser("red10", {"width": 32}, narrow), noisy), "|"))
    rows += [(name, seconds_per_megapixel(create_filter(name), part), "|") for name in list_filters()]
    article = next(taken for name, taken, _ in rows if name == "nlm")
    print(f"\n| whole photo, {torch.get_num_threads()} threads | parameters | kMAC/pixel | s/MP | faster than nlm by |")
    print("|---|---:|---:|---:|---:|")
    for name, taken, shown in sorted(rows, key=lambda row: row[1]):
        print(f"| {name} | {shown} | {taken:.2f} | {article / taken:.1f} |")


def seconds_per_megapixel(denoiser: Denoiser, photo: Photo) -> float:
    """Time of one photo, after a corner of it that does not count."""
    denoiser(photo[:64, :64])
    began = time.perf_counter()
    denoiser(photo)
    return (time.perf_counter() - began) / (photo.shape[0] * photo.shape[1] / 1e6)


def bench_memory(megapixels: int = 24) -> None:
    """Peak memory of a process that denoises a photo of 24 megapixels, for networks of growing depth."""
    print(f"\n| a photo of {megapixels} megapixels | peak memory of the process, MiB | seconds |\n|---|---:|---:|")
    for model, arguments in (("red10", {}), ("red20", {}), ("red30", {}), ("unet", {})):
        code = MEMORY_PROBE.format(model=model, arguments=arguments, height=4000, width=megapixels * 10**6 // 4000)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        peak, taken = done.stdout.split()
        print(f"| {model} | {float(peak):.0f} | {float(taken):.0f} |", flush=True)


MEMORY_PROBE = """
import resource, time
import numpy as np
from degrain.imaging.denoiser import NetworkDenoiser
from denoisenets import create_model
photo = np.random.default_rng(0).integers(0, 256, ({height}, {width}, 3), dtype=np.uint8)
denoiser = NetworkDenoiser("{model}", {arguments}, create_model("{model}", **{arguments}).state_dict())
began = time.perf_counter()
denoiser(photo)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, time.perf_counter() - began)
"""


def main() -> int:
    """Run all benchmarks."""
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads of {os.cpu_count()} CPUs")
    bench_reading()
    bench_photos()
    bench_memory()
    return 0


if __name__ == "__main__":
    sys.exit(main())
