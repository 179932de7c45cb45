"""Does every network learn? Each is trained for the same time on the same patches and scored on whole held-out photos.

    python pipelines/ingest.py --corpus renoir=Mi3_Aligned --out patches --patch-size 256 --stride 64 \
        --val-scenes Mi3/Batch_013 --test-scenes Mi3/Batch_003,Mi3/Batch_010,Mi3/Batch_023,Mi3/Batch_036
    python tests/benchmarks/learning.py --data patches --out learnt --minutes 8

Time is the processor's, of one thread, so that other work on the machine costs nobody his share. A network that was
trained already is not trained again. Prints a Markdown table for docs/results.md; takes the minutes times the number of
networks, and is therefore no part of `make bench`.
"""

import argparse
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file

from degrain.data.loader import Patches
from degrain.data.patches import PatchSet
from degrain.storage import Storage
from degrain.training.config import TrainingConfig
from degrain.training.loop import make_loader, train
from degrain.training.session import LocalSession
from degrain.training.step import TrainingState, train_step
from denoisenets import list_models, model_contract

CROP, BATCH = 64, 8
"""What a step sees, wherever a network takes crops of this size: 32,768 pixels."""
LEARNING_RATES = {
    "dncnn": 1e-3,
    "ffdnet": 2e-3,
    "mwcnn": 5e-4,
    "mwcnn_article": 5e-4,
    "nafnet16": 2e-3,
    "nafnet32": 1e-3,
    "pridnet": 3e-4,
    "pridnet_article": 2e-4,
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
    return 0


if __name__ == "__main__":
    sys.exit(main())
