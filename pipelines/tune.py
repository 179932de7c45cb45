"""Search architectures and hyperparameters, refit the best of each, compare them on whole photos and register them.

Without --data the study runs on the embedded corpus: photographs of scikit-image with camera-like noise.
"""

import argparse
import sys
from pathlib import Path

from degrain import cli
from degrain.data.ingest import IngestConfig, ingest
from degrain.data.patches import PatchSet
from degrain.storage import Storage
from degrain.tracking.config import load_tracking_config
from degrain.tracking.runs import Tracker
from degrain.tuning.options import add_study_options, fitted_to_cluster, study_config
from degrain.tuning.study import run_study


def arguments() -> argparse.ArgumentParser:
    """The options."""
    made = cli.parser(__doc__)
    made.add_argument("--data", metavar="URI", help="patch set to train on (default: the embedded corpus)")
    made.add_argument("--out", default="runs", metavar="URI", help="folder for checkpoints, tables and pictures")
    cli.add_tracking(made)
    add_study_options(made)
    return made


def main(options: argparse.Namespace, console: cli.Console) -> dict[str, object]:
    """Run the study and print what came out."""
    config = cli.checked(lambda: study_config(options), options)
    storage = Storage.from_environment()
    tracking = load_tracking_config(options.mlflow)
    out = storage.locate(options.out)
    out.check_writable()
    patch_set = PatchSet.open(options.data, storage) if options.data else None
    tracker = Tracker.open(tracking, storage)
    cli.start_ray(verbose=options.verbose)
    if patch_set is None:
        console.say("data: the embedded corpus, 21 pairs of 7 photographs with camera-like noise")
        embedded = IngestConfig(corpora=[f"embedded={out}/embedded/photos"], out=f"{out}/embedded/patches")
        progress = console.progress("ingest", "pairs")
        patch_set = ingest(embedded, storage, start_ray=lambda: None, progress=progress).patch_set
    counts = ", ".join(f"{patch_set.manifest.patches(s)} {s}" for s in ("train", "val", "test"))
    console.say(f"patch set: {patch_set.uri} ({counts} patches of {patch_set.manifest.geometry.patch_size} pixels)")
    config = cli.checked(lambda: fitted_to_cluster(config, options), options)
    result = run_study(
        config, patch_set, storage, tracker, folder=out / "studies", say=console.say, progress=console.progress
    )

    photo = patch_set.photos("test")[-1].noisy
    console.say(f"\n{result.comparison.to_markdown()}\n")
    for decision in result.decisions:
        console.say(f"{decision.alias}: version {decision.version}{' (moved)' if decision.moved else ''}, {decision.reason}")
    console.say(f"picture:  {result.picture}")
    console.say(f"runs:     {tracking.tracking_uri}")
    if tracking.embedded:
        console.say(f"compare:  {Path(sys.executable).parent / 'mlflow'} ui --backend-store-uri {tracking.tracking_uri}")
    held = any(d.alias == "champion" and d.version for d in result.decisions)
    model = f"models:/{tracking.model}@champion" if held else result.registered[0].uri
    console.say(f"apply:    {sys.executable} pipelines/denoise.py '{photo}' --out denoised --model {model}")
    return result.to_summary()


if __name__ == "__main__":
    sys.exit(cli.run(main, arguments()))
