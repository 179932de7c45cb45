"""Train one network on a patch set, by distributed data-parallel training over Ray Train workers."""

import argparse
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from degrain import cli
from degrain.data.patches import PatchSet
from degrain.imaging.metrics import PATCH_PROTOCOL
from degrain.storage import Storage, json_bytes
from degrain.tracking.config import load_tracking_config
from degrain.tracking.outbox import Outbox
from degrain.tracking.registry import log_model, write_model
from degrain.tracking.runs import Tracker, versions
from degrain.training.options import add_host_options, add_run_options, load_start, planned
from degrain.training.trainer import Job, open_splits, trained_card
from degrain.training.watch import Watch


def arguments() -> argparse.ArgumentParser:
    """The options."""
    made = cli.parser(__doc__)
    add_run_options(made)
    add_host_options(made)
    made.add_argument("--out", default="runs/train", metavar="URI", help="folder for runs and their checkpoints")
    cli.add_tracking(made)
    return made


def main(options: argparse.Namespace, console: cli.Console) -> dict[str, object]:
    """Train, and show how it goes."""
    storage, began = Storage.from_environment(), time.monotonic()
    tracking = load_tracking_config(options.mlflow)
    out = storage.locate(options.out)
    out.check_writable()
    start = load_start(options.start, options.mlflow, storage) if options.start and not options.resume else None
    plan = planned(options, out, start)
    if plan.config.start and start is None and not plan.begun:
        start = load_start(plan.config.start, options.mlflow, storage)
    patch_set = PatchSet.open(plan.data, storage)
    plan.check_patches(patch_set, options)
    with ThreadPoolExecutor(1) as pool:
        # Both take seconds of waiting, a new store more than Ray.
        opening = pool.submit(Tracker.open, tracking, storage)
        cli.start_ray(verbose=options.verbose)
        tracker = opening.result()
    plan.workers.check_cluster()
    config, splits = open_splits(plan.config, patch_set)
    tags = {"patch_set": patch_set.manifest.version, "patch_set.uri": patch_set.uri, "val_protocol": PATCH_PROTOCOL}
    with (
        tracker.run(plan.name, "training", tags=tags, resume=plan.run_id) as run,
        Outbox(run, say=console.say, kept=plan.folder) as outbox,
    ):
        plan.write(config, patch_set, run.id)
        if plan.run_id != run.id:
            run.params({**config.to_dict(), "workers": str(plan.workers)})
        outbox.files({"config.json": json_bytes(config.to_dict()), "versions.json": json_bytes(versions())}, "run")
        console.say(
            f"run {plan.name}: {config.model}, {config.steps} steps on {plan.workers} workers, {config.batches} patches"
        )
        watch = Watch(config.steps, outbox, say=console.say, status=console.status)
        weights = start.weights if start else None
        job = Job(config, splits, plan.folder, plan.name, plan.workers, weights, options.keep_best, watch)
        trained = job.run()
        console.end_status()
        card = trained_card(trained, patch_set.manifest)
        model = Path(plan.folder.path) / "model"
        if not plan.folder.remote:
            model.mkdir(exist_ok=True)
            write_model(model, trained.weights, card)
        log_model(run, trained.weights, card)
    if not plan.folder.remote:
        console.say(f"model:  {model}")
        console.say(f"apply:  {sys.executable} pipelines/denoise.py PHOTO --out denoised --model {model}")
    return {
        "run_id": run.id,
        "name": plan.name,
        "model": config.model,
        **trained.metrics,
        "best_step": trained.metrics["step"],
        "steps": config.steps,
        "seconds": time.monotonic() - began,
    }


if __name__ == "__main__":
    sys.exit(cli.run(main, arguments()))
