"""Train the starter model that degrain ships: on freely licensed photos with synthetic noise alone.

    python models/train_starter.py PHOTOS --budget 35m

PHOTOS is a folder of clean photos whose licences allow it; docs/models.md names those of the
shipped weights. Two photographs inside scikit-image (CC0 and public domain) are added; the embedded
corpus' val and test photos are not. The noise is drawn anew in every step, see `wide_noise`. The
result, weights in half precision and a card, is written to platform/degrain/starter.
"""

import argparse
import json
import sys
from pathlib import Path

import safetensors.torch
import torch
from skimage import data as skimage_data

from degrain.cli.main import main as degrain
from degrain.imaging.codecs import encode_png

STARTER = Path(__file__).resolve().parent.parent / "platform" / "degrain" / "starter"
SOURCE = {
    "origin": "models/train_starter.py: clean photographs with synthetic noise",
    "licence": "Apache-2.0; NOTICE.md names the photographs and their licences",
}
TRAINING = ["--model", "fast24", "--loss", "psnr", "--noise", "on-the-fly"]
TRAINING += [
    "--clean-share",
    "0.05",
    "--crop",
    "96",
    "--batch-size",
    "12",
    "--validation-patches",
    "64",
]


def run(*arguments: str) -> None:
    """Run a degrain command; ends the script if it fails."""
    if status := degrain(arguments):
        sys.exit(status)


def write_embedded(folder: Path) -> None:
    """Write the photographs inside scikit-image as PNG."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("astronaut", "coffee"):
        photo = getattr(skimage_data, name)()
        (folder / f"{name}.png").write_bytes(encode_png(photo))


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
    parser.add_argument("photos", help="folder of clean photos")
    parser.add_argument("--budget", default="35m", help="time of training (default: 35m)")
    parser.add_argument("--cpus", default="2", help="CPUs of training (default: 2)")
    parser.add_argument("--out", type=Path, default=Path("runs/starter"), help="working folder")
    options = parser.parse_args()
    embedded, summary = options.out / "embedded", options.out / "summary.json"
    write_embedded(embedded)
    corpora = ["--corpus", f"clean={options.photos}", f"clean:embedded={embedded}"]
    run("ingest", *corpora, "--noise", "wide", "--out", str(options.out / "patches"))
    run(
        *("train", *TRAINING, "--data", str(options.out / "patches"), "--out", str(options.out)),
        *("--budget", options.budget, "--cpus-per-worker", options.cpus),
        *("--summary", str(summary)),
    )
    pack(options.out / json.loads(summary.read_text())["name"] / "model")


if __name__ == "__main__":
    main()
