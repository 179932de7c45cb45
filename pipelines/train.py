"""Train one network on a patch set, by distributed data-parallel training over Ray Train workers."""

import argparse
import sys
import time
from pathlib import Path

from degrain import cli
from degrain.data.patches import PatchSet
from degrain.data.resident import make_resident
from degrain.errors import UserError
from degrain.imaging.execution import COMPILED, PRECISIONS
from degrain.imaging.metrics import PATCH_PROTOCOL
from degrain.storage import Storage
from degrain.tracking.config import load_tracking_config
from degrain.tracking.registry import log_model, write_model
from degrain.tracking.runs import Tracker
from degrain.training.config import LOSSES, MIXES, OPTIMIZERS, TrainingConfig
from degrain.training.session import Metrics
from degrain.training.trainer import check_resources, check_workers, report_line, train_distributed, trained_card


def arguments() -> argparse.ArgumentParser:
    """The options."""
    default = TrainingConfig()
    made = cli.parser(__doc__)
    add = made.add_argument
    add("--data", required=True, metavar="URI", help="patch set")
    add("--model", default=default.model, help="network to train")
    add("--arguments", type=cli.json_object, default="{}", metavar="JSON", help="its arguments, e.g. '{\"width\": 32}'")
    add("--steps", type=int, default=default.steps, help="optimizer steps")
    add("--batch-size", type=int, default=default.batch_size, help="patches per step over all workers")
    add("--crop", type=int, default=0, help="side of the random crop from each patch, pixels; 0: all of it")
    add("--mix", choices=MIXES, default=default.mix, help="show patches as they come, or all cameras and ISOs evenly")
    add("--loss", choices=LOSSES, default=default.loss, help="loss between output and clean patch")
    add("--optimizer", choices=OPTIMIZERS, default=default.optimizer, help="optimizer")
    add("--learning-rate", type=float, default=default.learning_rate, help="highest learning rate")
    add("--ema-decay", type=float, default=default.ema_decay, help="decay of the weights' moving average")
    add("--precision", choices=PRECISIONS, default=default.precision, help="precision of the forward pass")
    add("--compiled", choices=COMPILED, default=default.compiled, help="whether the network is compiled; auto: on GPUs")
    add("--validate-every", type=int, help="steps between validations and checkpoints (default: a tenth of --steps)")
    add("--workers", type=int, default=1, help="Ray Train workers")
    add("--gpus", type=float, default=0, help="GPUs per worker")
    add("--seed", type=int, default=default.seed, help="seeds weights, order and augmentation")
    add("--out", default="runs/train", metavar="URI", help="folder for checkpoints")
    add("--resume", metavar="NAME", help="go on with the interrupted run of this name, with the same options")
    cli.add_tracking(made)
    return made


def configured(options: argparse.Namespace) -> TrainingConfig:
    """The training that the options describe. Raises ValueError for what cannot be."""
    check_workers(options.workers, options.gpus, options.batch_size)
    return TrainingConfig(
        model=options.model,
        arguments=options.arguments,
        steps=options.steps,
        batch_size=options.batch_size,
        crop=options.crop or None,
        mix=options.mix,
        loss=options.loss,
        optimizer=options.optimizer,
        learning_rate=options.learning_rate,
        ema_decay=options.ema_decay,
        precision=options.precision,
        compiled=options.compiled,
        validate_every=options.validate_every or max(options.steps // 10, 1),
        seed=options.seed,
    )


def main(options: argparse.Namespace, console: cli.Console) -> dict[str, object]:
    """Train and print a line for each validation."""
    config = cli.checked(lambda: configured(options), options)
    storage = Storage.from_environment()
    tracking = load_tracking_config(options.mlflow)
    patch_set = PatchSet.open(options.data, storage)
    cli.checked(lambda: config.crop_of(patch_set.manifest.geometry.patch_size), options)
    folder = storage.locate(options.out)
    folder.check_writable()
    name = options.resume or time.strftime(f"{options.model}-%Y%m%d-%H%M%S")
    if options.resume and not (folder / name).exists():
        raise UserError(f"there is no run '{name}' in '{folder}'; check --resume and --out")
    tracker = Tracker.open(tracking, storage)
    cli.start_ray(verbose=options.verbose)
    check_resources(options.workers, options.gpus)
    began = time.monotonic()
    tags = {"patch_set": patch_set.manifest.version, "patch_set.uri": patch_set.uri, "val_protocol": PATCH_PROTOCOL}
    with tracker.run(name, "training", tags=tags) as run:
        run.params({**config.to_dict(), "workers": options.workers})
        console.say(f"run {name}: {config.model}, {config.steps} steps on {options.workers} workers")

        def show(metrics: Metrics) -> None:
            run.metrics(metrics, step=int(metrics["step"]))
            console.say(report_line(metrics, config.steps))

        trained = train_distributed(
            config,
            train_split=make_resident(patch_set, "train"),
            val_split=make_resident(patch_set, "val"),
            folder=folder,
            name=name,
            workers=options.workers,
            gpus_per_worker=options.gpus,
            on_report=show,
        )
        card = trained_card(trained, patch_set.manifest)
        log_model(run, trained.weights, card)
        if not folder.remote:
            model = Path((folder / name / "model").path)
            model.mkdir(exist_ok=True)
            write_model(model, trained.weights, card)
            console.say(f"model:  {model}")
            console.say(f"apply:  {sys.executable} pipelines/denoise.py PHOTO --out denoised --model {model}")
    return {
        "run_id": run.id,
        "name": name,
        "model": config.model,
        **trained.metrics,
        "steps": config.steps,
        "seconds": time.monotonic() - began,
    }


if __name__ == "__main__":
    sys.exit(cli.run(main, arguments()))
