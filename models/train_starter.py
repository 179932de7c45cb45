"""Train the starter model that degrain ships: on freely licensed photos with synthetic noise alone.

    python models/train_starter.py PHOTOS --budget 35m

PHOTOS is a folder with the photographs that docs/models.md names, as PNG. Two photographs inside
scikit-image (CC0 and public domain) are added; the embedded corpus' val and test photos are not.
Each is there in three sizes: a photo reduced for a screen has finer texture than one from a camera,
and a network that has seen only the latter takes such texture for noise. The noise is drawn anew in
every step, see `wide_noise`. The result, weights in half precision and a card, is written to
platform/degrain/starter.
"""

import argparse
import json
import sys
from pathlib import Path

import safetensors.torch
import torch
from PIL import Image
from skimage import data as skimage_data

from degrain.cli.main import main as degrain

STARTER = Path(__file__).resolve().parent.parent / "platform" / "degrain" / "starter"
SOURCE = {
    "origin": "models/train_starter.py: clean photographs with synthetic noise",
    "licence": "Apache-2.0; NOTICE.md names the photographs and their licences",
}
TRAINING = ["--loss", "psnr", "--noise", "on-the-fly", "--clean-share", "0.05"]
TRAINING += ["--crop", "96", "--batch-size", "12", "--balance", "0.5"]
REDUCTIONS = (1, 2, 4)
"""Factors by which the photographs are reduced; each size is a corpus of its own."""
HELD_OUT = {"--val-scenes": "Dragonfly_by_Bolly", "--test-scenes": "coffee"}
"""The photograph of each split that is not trained on, in all sizes."""


def run(*arguments: str) -> None:
    """Run a degrain command; ends the script if it fails."""
    if status := degrain(arguments):
        sys.exit(status)


def write_sizes(photos: Path, out: Path) -> list[str]:
    """Write all photographs in all sizes as PNG; returns the corpora, as ingest names them."""
    found = {file.stem: Image.open(file).convert("RGB") for file in sorted(photos.glob("*.png"))}
    if not found:
        sys.exit(f"error: there are no PNG files in '{photos}'; name a folder of clean photos")
    found |= {n: Image.fromarray(getattr(skimage_data, n)()) for n in ("astronaut", "coffee")}
    for reduction in REDUCTIONS:
        folder = out / f"reduced{reduction}"
        folder.mkdir(parents=True, exist_ok=True)
        for name, photo in found.items():
            size = photo.width // reduction, photo.height // reduction
            photo.resize(size, Image.Resampling.LANCZOS).save(folder / f"{name}.png")
    return [f"clean:reduced{r}={out / f'reduced{r}'}" for r in REDUCTIONS]


def pack(model: Path) -> None:
    """Copy a trained model to the package, its weights in half precision."""
    weights = safetensors.torch.load_file(model / "weights.safetensors")
    half = {name: value.to(torch.float16).contiguous() for name, value in weights.items()}
    STARTER.mkdir(exist_ok=True)
    safetensors.torch.save_file(half, STARTER / "weights.safetensors")
    card = json.loads((model / "card.json").read_text())
    (STARTER / "card.json").write_text(json.dumps({**card, "source": SOURCE}, indent=1) + "\n")


def main() -> None:
    """Ingest, train, pack."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", help="folder of the photographs")
    parser.add_argument("--budget", default="35m", help="time of training (default: 35m)")
    parser.add_argument("--cpus", default="2", help="CPUs of training (default: 2)")
    parser.add_argument("--out", type=Path, default=Path("runs/starter"), help="working folder")
    parser.add_argument("--start", help="model to train on from; none: random weights")
    options = parser.parse_args()
    summary = options.out / "summary.json"
    corpora = write_sizes(Path(options.photos), options.out / "photos")
    splits: list[str] = []
    for option, name in HELD_OUT.items():
        splits += [option, ",".join(f"reduced{r}/{name}.png" for r in REDUCTIONS)]
    run(
        *("ingest", "--corpus", *corpora, "--noise", "wide", *splits),
        *("--out", str(options.out / "patches")),
    )
    first = ["--start", options.start] if options.start else ["--model", "fast24"]
    run(
        *("train", *first, *TRAINING, "--data", str(options.out / "patches")),
        *("--budget", options.budget, "--cpus-per-worker", options.cpus),
        *("--out", str(options.out), "--summary", str(summary)),
    )
    pack(options.out / json.loads(summary.read_text())["name"] / "model")


if __name__ == "__main__":
    main()
