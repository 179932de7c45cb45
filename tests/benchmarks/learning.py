"""Does every network learn? Each is trained for the same time on the same patches and scored on whole held-out photos.

    python pipelines/ingest.py --corpus renoir=Mi3_Aligned --out patches --patch-size 256 --stride 64 \
        --val-scenes Mi3/Batch_013 --test-scenes Mi3/Batch_003,Mi3/Batch_010,Mi3/Batch_023,Mi3/Batch_036
    python tests/benchmarks/learning.py --data patches --out learnt --minutes 8

Time is the processor's, of one thread, so that other work on the machine costs nobody his share. A network that was
trained already is not trained again; `--score` only scores. Prints a Markdown table for docs/results.md; takes the
minutes times the number of networks, and is therefore no part of `make bench`.
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

from degrain.data.loader import Patches
from degrain.data.patches import PatchSet
from degrain.imaging.denoiser import Application, Denoiser, NetworkDenoiser, Untouched
from degrain.imaging.filters import create_filter
from degrain.imaging.metrics import Score, mean_score, score_photo
from degrain.imaging.pixels import Photo
from degrain.storage import Storage
from degrain.training.config import TrainingConfig
from degrain.training.loop import make_loader, train
from degrain.training.session import LocalSession
from degrain.training.step import TrainingState, train_step
from denoisenets import describe, list_models, model_contract

CROP, BATCH = 64, 8
"""What a step sees, wherever a network takes crops of this size: 32,768 pixels."""
LEARNING_RATES = {
    "dncnn": 1e-3,
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
    """The configuration of one network; those that take larger crops see fewer of them."""
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


def patches(patch_set: PatchSet, split: str) -> Patches:
    """A split, read into memory."""
    return Patches([patch_set.read_shard(shard) for shard in patch_set.shards(split)])


def learn(model: str, patch_set: PatchSet, minutes: float, target: Path) -> None:
    """Train `model` for so many minutes of one thread, the calibration included, and write its weights."""
    torch.set_num_threads(1)
    session = LocalSession(patches(patch_set, "train"), patches(patch_set, "val"))
    began = time.process_time()
    trial = configured(model, 10**6)
    state, loader = TrainingState.create(trial, session.device), make_loader(trial, session)
    train_step(state, loader.batch(0))
    warm = time.process_time()
    for step in range(1, 1 + _CALIBRATION_STEPS):
        train_step(state, loader.batch(step))
    a_step = (time.process_time() - warm) / _CALIBRATION_STEPS
    del state
    left = minutes * 60 - (time.process_time() - began)
    steps = max(int(left / a_step), 1)
    trained = train(replace(trial, steps=steps), session)
    spent = time.process_time() - began
    known = {"steps": str(steps), "minutes": f"{spent / 60:.1f}", "val_psnr": f"{session.history[-1]['val_psnr']:.2f}"}
    weights = {name: value.contiguous() for name, value in trained.ema.network.state_dict().items()}
    save_file(weights, target, metadata=known)
    print(f"{model}: {known}, a step {a_step * 1e3:.0f} ms", flush=True)


@dataclass(frozen=True)
class Row:
    """One denoiser's line."""

    name: str
    score: Score
    seconds_per_megapixel: float
    rest: str
    """The cells that only networks have."""


def score_all(patch_set: PatchSet, folder: Path, models: list[str]) -> None:
    """Score what is trained, and non-local means, on all whole test photos, by `rgb8`; times are of one thread."""
    torch.set_num_threads(1)
    photos = [patch_set.source.load(row) for row in patch_set.photos("test")]
    rows = [row_of(Untouched(), photos, " | | | | "), row_of(create_filter("nlm"), photos, " | | | | ")]
    for model in models:
        file = folder / f"{model}.safetensors"
        if file.exists():
            rows.append(network_row(model, file, photos, patch_set.manifest.geometry.patch_size))
    base = rows[0].score
    print(f"\n{len(photos)} whole test photos: {', '.join(row.scene for row in patch_set.photos('test'))}\n")
    print("| model | PSNR dB | SSIM | gain dB | s/MP | M parameters | steps | MB/MP | bfloat16, of 255 | tiles, of 255 |")
    print("|---|" + "---:|" * 9)
    for row in rows:
        score = f"{row.score.psnr:.2f} | {row.score.ssim:.3f} | {row.score.psnr - base.psnr:+.2f}"
        print(f"| {row.name} | {score} | {row.seconds_per_megapixel:.2f} | {row.rest} |")


def row_of(denoiser: Denoiser, photos: list[tuple[Photo, Photo]], rest: str) -> Row:
    """Scores and time of one denoiser."""
    denoiser(photos[0][0][:64, :64])
    began = time.perf_counter()
    outputs = [denoiser(noisy) for noisy, _ in photos]
    taken = (time.perf_counter() - began) / sum(noisy.shape[0] * noisy.shape[1] / 1e6 for noisy, _ in photos)
    score = mean_score(score_photo(output, clean) for output, (_, clean) in zip(outputs, photos, strict=True))
    print(f"{denoiser.name}: {score.psnr:.2f} dB", file=sys.stderr, flush=True)
    return Row(denoiser.name, score, taken, rest)


def network_row(model: str, file: Path, photos: list[tuple[Photo, Photo]], patch_side: int) -> Row:
    """The line of a network, with what bfloat16 and, if it sees the frame, tiles change in its output at most."""
    weights = load_file(file)
    with safe_open(file, framework="pt") as opened:
        steps = opened.metadata()["steps"]

    crop = configured(model, 1).crop_of(patch_side)

    def made(application: Application) -> NetworkDenoiser:
        return NetworkDenoiser(model, {}, weights, crop=crop, application=application)

    exact = made(Application(precision="float32", tile=4096))
    low = made(Application(precision="bfloat16", tile=4096))
    noisy = photos[0][0]
    rounding = np.abs(exact(noisy).astype(int) - low(noisy)).max()
    tiles = "-"
    if model_contract(model).global_statistics:
        # Real photos side by side, bright and dark: one megapixel.
        wide = np.concatenate([np.concatenate([photos[i][0], photos[i + 1][0]], axis=1) for i in (0, 2)])
        tiles = str(np.abs(exact(wide).astype(int) - made(Application(precision="float32", tile=256))(wide)).max())
    described = describe(model)
    memory = low.bytes_per_pixel
    rest = f"{described.parameters / 1e6:.2f} | {steps} | {memory:.0f} | {rounding} | {tiles}"
    return row_of(made(Application()), photos, rest)


def main() -> int:
    """Train what is not trained yet, each network in a process of its own."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", required=True, help="patch set with a test split")
    options.add_argument("--out", type=Path, required=True, help="folder for the weights")
    options.add_argument("--minutes", type=float, default=8, help="processor minutes for each network")
    options.add_argument("--models", nargs="*", default=list_models(), help="networks (default: all)")
    options.add_argument("--train-one", help=argparse.SUPPRESS)
    options.add_argument("--score", action="store_true", help="only score what is trained")
    told = options.parse_args()
    patch_set = PatchSet.open(told.data, Storage.from_environment())
    told.out.mkdir(parents=True, exist_ok=True)
    if told.train_one:
        learn(told.train_one, patch_set, told.minutes, told.out / f"{told.train_one}.safetensors")
        return 0
    for model in told.models:
        if not (told.out / f"{model}.safetensors").exists() and not told.score:
            command = [sys.executable, __file__, "--data", told.data, "--out", str(told.out)]
            subprocess.run([*command, "--minutes", str(told.minutes), "--train-one", model], check=True)
    score_all(patch_set, told.out, told.models)
    return 0


if __name__ == "__main__":
    sys.exit(main())
