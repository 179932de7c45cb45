r"""Training of every network for the same CPU time on the same patches, and test scores.

    degrain ingest --corpus renoir=Mi3_Aligned --out patches --patch-size 256 --stride 64 \
        --val-scenes Mi3/Batch_013 \
        --test-scenes Mi3/Batch_003,Mi3/Batch_010,Mi3/Batch_023,Mi3/Batch_036
    python tests/benchmarks/learning.py --data patches --out trained --minutes 8

The time is CPU time of one thread, so that other load on the machine does not matter. A network
whose weights exist is not trained again; `--score` only scores. The table is for docs/results.md.
It takes the minutes times the number of networks, so `make bench` does not run it.
"""

import argparse
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from table import Table, print_tables, progress

from degrain.imaging.filters import create_filter
from degrain.imaging.metrics import Score, mean_score, score_photo
from degrain.imaging.pixels import Photo
from degrain.inference.config import InferenceConfig
from degrain.inference.denoiser import Denoiser, Identity, NetworkDenoiser
from degrain.loading.patches import ResidentPatches
from degrain.patchsets.patch_set import PatchSet
from degrain.storage.location import Storage
from degrain.training.config import TrainingConfig
from degrain.training.loop import make_loader, train
from degrain.training.session import LocalSession
from degrain.training.step import TrainingState, train_step
from denoisenets import describe, list_models, model_contract

CROP, BATCH = 64, 8
"""Crops of a step, 32,768 pixels, for networks that accept this size."""
LEARNING_RATES = {
    "dncnn": 1e-3,
    "drunet": 1e-3,
    "ffdnet": 7e-4,
    "mwcnn": 5e-4,
    "mwcnn_article": 5e-4,
    "nafnet16": 2e-3,
    "nafnet32": 1e-3,
    "pridnet": 1e-3,
    "pridnet_article": 1e-3,
    "red10": 1e-3,
    "red20": 1e-3,
    "red30": 1e-3,
    "red_article": 1e-3,
    "restormer": 1e-3,
    "unet": 1e-3,
}
_CALIBRATION_STEPS = 3


def configured(model: str, steps: int) -> TrainingConfig:
    """The configuration of one network; larger crops make smaller batches."""
    crop = model_contract(model).size.padded(CROP)
    return TrainingConfig(
        model=model,
        steps=steps,
        crop=crop,
        batch_size=max(BATCH * CROP**2 // crop**2, 1),
        learning_rate=LEARNING_RATES[model],
        loss="charbonnier",
        ema_decay=0.95,
        validate_every=10**9,
        validation_patches=8,
    )


def patches(patch_set: PatchSet, split: str) -> ResidentPatches:
    """Read a split into memory."""
    return ResidentPatches([patch_set.read_shard(shard) for shard in patch_set.shards(split)])


def train_network(model: str, patch_set: PatchSet, minutes: float, target: Path) -> None:
    """Train `model` for `minutes` of CPU time of one thread, including calibration, and write its
    weights.
    """
    torch.set_num_threads(1)
    session = LocalSession(patches(patch_set, "train"), patches(patch_set, "val"))
    start = time.process_time()
    config = configured(model, 10**6)
    state, loader = TrainingState.create(config, session.device), make_loader(config, session)
    train_step(state, loader.batch(0))
    warm = time.process_time()
    for step in range(1, 1 + _CALIBRATION_STEPS):
        train_step(state, loader.batch(step))
    step_seconds = (time.process_time() - warm) / _CALIBRATION_STEPS
    del state
    left = minutes * 60 - (time.process_time() - start)
    steps = max(int(left / step_seconds), 1)
    trained = train(replace(config, steps=steps), session)
    spent = time.process_time() - start
    facts = {
        "steps": str(steps),
        "minutes": f"{spent / 60:.1f}",
        "val_psnr": f"{session.history[-1]['val_psnr']:.2f}",
    }
    weights = {name: value.contiguous() for name, value in trained.ema.network.state_dict().items()}
    save_file(weights, target, metadata=facts)
    progress(f"{model}: {facts}, a step {step_seconds * 1e3:.0f} ms")


@dataclass(frozen=True)
class Row:
    """The result of one denoiser."""

    name: str
    score: Score
    seconds_per_megapixel: float
    network_cells: tuple[str, ...]
    """The cells of the columns for networks; empty for other denoisers."""


def score_all(patch_set: PatchSet, folder: Path, models: list[str]) -> None:
    """Print the scores of trained networks and of non-local means on all whole test photos.

    The protocol is `rgb8`; times are of one thread.
    """
    torch.set_num_threads(1)
    photos = [patch_set.source.load(row) for row in patch_set.photos("test")]
    rows = [
        row_of(Identity(), photos),
        row_of(create_filter("nlm"), photos),
    ]
    for model in models:
        file = folder / f"{model}.safetensors"
        if file.exists():
            rows.append(network_row(model, file, photos, patch_set.manifest.geometry.patch_size))
    base = rows[0].score
    columns = ("model", "PSNR dB", "SSIM", "gain dB", "s/MP", "M parameters", "steps", "MB/MP")
    cells = [
        (
            row.name,
            f"{row.score.psnr:.2f}",
            f"{row.score.ssim:.3f}",
            f"{row.score.psnr - base.psnr:+.2f}",
            f"{row.seconds_per_megapixel:.2f}",
            *row.network_cells,
        )
        for row in rows
    ]
    scenes = ", ".join(row.scene for row in patch_set.photos("test"))
    caption = f"{len(photos)} whole test photos: {scenes}"
    print_tables([Table((*columns, "bfloat16, of 255", "tiles, of 255"), cells, caption)])


def row_of(
    denoiser: Denoiser,
    photos: list[tuple[Photo, Photo]],
    network_cells: tuple[str, ...] = ("",) * 5,
) -> Row:
    """Scores and time of one denoiser."""
    denoiser(photos[0][0][:64, :64])
    start = time.perf_counter()
    outputs = [denoiser(noisy) for noisy, _ in photos]
    seconds = time.perf_counter() - start
    megapixels = sum(noisy.shape[0] * noisy.shape[1] / 1e6 for noisy, _ in photos)
    score = mean_score(
        score_photo(output, clean) for output, (_, clean) in zip(outputs, photos, strict=True)
    )
    progress(f"{denoiser.name}: {score.psnr:.2f} dB")
    return Row(denoiser.name, score, seconds / megapixels, network_cells)


def network_row(model: str, file: Path, photos: list[tuple[Photo, Photo]], patch_side: int) -> Row:
    """The row of a network, with the largest differences that bfloat16 and tiles make.

    Tiles are measured for networks with global statistics only.
    """
    weights = load_file(file)
    with safe_open(file, framework="pt") as opened:
        steps = opened.metadata()["steps"]

    crop = configured(model, 1).crop_of(patch_side)

    def create(config: InferenceConfig) -> NetworkDenoiser:
        return NetworkDenoiser(model, {}, weights, crop=crop, config=config)

    exact = create(InferenceConfig(precision="float32", tile=4096))
    low = create(InferenceConfig(precision="bfloat16", tile=4096))
    noisy = photos[0][0]
    rounding = np.abs(exact(noisy).astype(int) - low(noisy)).max()
    tiles = "-"
    if model_contract(model).global_statistics:
        # Real photos side by side, bright and dark: one megapixel.
        wide = np.concatenate(
            [np.concatenate([photos[i][0], photos[i + 1][0]], axis=1) for i in (0, 2)]
        )
        tiles = str(
            np.abs(
                exact(wide).astype(int)
                - create(InferenceConfig(precision="float32", tile=256))(wide)
            ).max()
        )
    described = describe(model)
    cells = (
        f"{described.parameters / 1e6:.2f}",
        str(steps),
        f"{low.bytes_per_pixel:.0f}",
        str(rounding),
        tiles,
    )
    return row_of(create(InferenceConfig()), photos, cells)


def main() -> int:
    """Train the networks without weights, each in a new process, and score all."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--data", required=True, help="patch set with a test split")
    options.add_argument("--out", type=Path, required=True, help="folder for the weights")
    options.add_argument("--minutes", type=float, default=8, help="CPU minutes for each network")
    options.add_argument(
        "--models", nargs="*", default=list_models(), help="networks (default: all)"
    )
    options.add_argument("--train-one", help=argparse.SUPPRESS)
    options.add_argument(
        "--score", action="store_true", help="score existing weights, train nothing"
    )
    chosen = options.parse_args()
    patch_set = PatchSet.open(chosen.data, Storage.from_environment())
    chosen.out.mkdir(parents=True, exist_ok=True)
    if chosen.train_one:
        train_network(
            chosen.train_one,
            patch_set,
            chosen.minutes,
            chosen.out / f"{chosen.train_one}.safetensors",
        )
        return 0
    for model in chosen.models:
        if not (chosen.out / f"{model}.safetensors").exists() and not chosen.score:
            command = [sys.executable, __file__, "--data", chosen.data, "--out", str(chosen.out)]
            subprocess.run(
                [*command, "--minutes", str(chosen.minutes), "--train-one", model], check=True
            )
    score_all(patch_set, chosen.out, chosen.models)
    return 0


if __name__ == "__main__":
    sys.exit(main())
