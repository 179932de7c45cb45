"""Speed, as ratios within one run: what degrain does against what a user would otherwise do.

Prints a Markdown table for docs/performance.md. Needs no Ray; `make bench` runs it.
"""

import io
import os
import statistics
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
from torch.nn.functional import mse_loss

from degrain.data.loader import BatchLoader, BatchPlan, Patches
from degrain.data.patches import PatchGeometry, binary_column, column_patches, cut
from degrain.imaging.denoiser import NetworkDenoiser
from degrain.imaging.filters import create_filter
from degrain.training.config import TrainingConfig
from degrain.training.step import TrainingState, train_step
from denoisenets import create_model

NETWORKS = [
    ("red10", {"width": 24}),
    ("red10", {"width": 64}),
    ("mwcnn", {"width": 32, "depth": 1}),
    ("mwcnn", {"width": 64, "depth": 4}),
]
BATCH, CROP = 8, 64


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


def random_patches(count: int, side: int) -> Patches:
    """Patches of a photograph, twice: for speed their content does not matter."""
    photo = skimage_data.retina()
    geometry = PatchGeometry(patch_size=side, stride=side)
    patches = cut(photo, geometry.starts(photo.shape[0]), geometry)[:count]
    return Patches([(patches, patches.copy())])


def plain_step(model: str, arguments: dict[str, int], batch: tuple[torch.Tensor, torch.Tensor]) -> Callable[[], object]:
    """The step a user would write: float32, contiguous, eager, Adam."""
    network = create_model(model, **arguments)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
    noisy, clean = (x.contiguous(memory_format=torch.contiguous_format) for x in batch)

    def step() -> None:
        loss = mse_loss(network(noisy), clean)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def bench_steps() -> None:
    """The training step against the plain one."""
    patches = random_patches(64, 128)
    plan = BatchPlan(seed=0, patches=len(patches), side=128, batch_size=BATCH, crop=CROP)
    batch = BatchLoader(patches, plan, device=torch.device("cpu")).batch(0)
    print(
        f"\n| training step, {BATCH} crops of {CROP} | plain float32, ms | degrain, ms | precision | ratio |\n"
        "|---|---:|---:|---|---:|"
    )
    for model, arguments in NETWORKS:
        plain = seconds(plain_step(model, arguments, (batch.noisy, batch.clean)))
        state = TrainingState.create(
            TrainingConfig(model=model, arguments=arguments, learning_rate=1e-6), torch.device("cpu")
        )
        ours = seconds(lambda state=state: train_step(state, batch))
        named = f"{model} {' '.join(f'{k} {v}' for k, v in arguments.items())}"
        print(f"| {named} | {plain * 1e3:.0f} | {ours * 1e3:.0f} | {state.execution.precision} | {plain / ours:.2f} |")


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


def bench_batches() -> None:
    """Making float batches: mapped patches by index against decoding PNG patch pairs."""
    patches = random_patches(100, 128)
    plan = BatchPlan(seed=0, patches=len(patches), side=128, batch_size=BATCH, crop=CROP)
    loader = BatchLoader(patches, plan, device=torch.device("cpu"))
    files = []
    for index in range(len(patches)):
        pair = []
        for patch in patches[index]:
            buffer = io.BytesIO()
            Image.fromarray(patch).save(buffer, format="PNG")
            pair.append(buffer.getvalue())
        files.append(pair)

    def by_png() -> None:
        for kind in (0, 1):
            stack = [np.asarray(Image.open(io.BytesIO(files[i][kind])))[:CROP, :CROP] for i in plan.indices(0)]
            torch.from_numpy(np.stack(stack)).permute(0, 3, 1, 2).float().div_(255)

    ours, png = seconds(lambda: loader.batch(0), 50), seconds(by_png, 20)
    print(f"\n| batches of {BATCH} crops of {CROP}, one process | patches/s | degrain is faster by |\n|---|---:|---:|")
    print(f"| degrain: mapped patches by index | {BATCH / ours:.0f} | |")
    print(f"| PNG patch pairs in memory, Pillow | {BATCH / png:.0f} | {png / ours:.1f} |")


def bench_photos() -> None:
    """Whole photos: seconds per megapixel of networks and of non-local means."""
    photo = skimage_data.astronaut()
    megapixels = photo.shape[0] * photo.shape[1] / 1e6
    noisy = np.clip(photo + np.random.default_rng(0).normal(0, 20, photo.shape), 0, 255).astype(np.uint8)
    print("\n| whole photo, one thread | s/MP |\n|---|---:|")
    torch.set_num_threads(1)
    for model, arguments in NETWORKS:
        denoiser = NetworkDenoiser(model, arguments, create_model(model, **arguments).state_dict())
        named = f"{model} {' '.join(f'{k} {v}' for k, v in arguments.items())}"
        print(f"| {named} | {seconds(lambda denoiser=denoiser: denoiser(noisy), 3) / megapixels:.2f} |")
    began = time.perf_counter()
    create_filter("nlm")(noisy)
    print(f"| nlm, the article's settings | {(time.perf_counter() - began) / megapixels:.2f} |")


def main() -> int:
    """Run all benchmarks."""
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads of {os.cpu_count()} CPUs")
    bench_steps()
    bench_reading()
    bench_batches()
    bench_photos()
    return 0


if __name__ == "__main__":
    sys.exit(main())
