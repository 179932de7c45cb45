"""The options of a training run, and the plan that they make: of a new run, or of one that goes on."""

import argparse
import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from degrain import cli
from degrain.data.patches import PatchSet
from degrain.errors import UserError
from degrain.imaging.execution import COMPILED, PRECISIONS
from degrain.storage import Location, Storage, json_bytes
from degrain.tracking.registry import Card, load_model, pinned
from degrain.training.checkpoint import FREE_FIELDS
from degrain.training.config import BATCHES, LOSSES, MIXES, NOISES, OPTIMIZERS, SCHEDULES, TrainingConfig
from degrain.training.trainer import Workers

PLAN_FILE = "run.json"


def add_run_options(made: argparse.ArgumentParser) -> None:
    """Add the options that describe a run; with `--resume` they come from the run that goes on."""
    default = TrainingConfig()
    add = made.add_argument
    add("--data", metavar="URI", help="patch set; needed unless a run is resumed")
    add("--model", default=default.model, help="network to train")
    add("--arguments", type=cli.json_object, default="{}", metavar="JSON", help="its arguments, e.g. '{\"width\": 32}'")
    add(
        "--start",
        metavar="MODEL",
        help="train on from a model and take its network: models:/NAME@ALIAS, models:/NAME/VERSION or a folder",
    )
    add("--steps", type=int, default=default.steps, help="optimizer steps")
    add("--batch-size", type=int, default=default.batch_size, help="patches per step over all workers")
    add("--micro-batch", type=int, help="most patches that a worker takes through the network at once (default: its share)")
    add("--batches", choices=BATCHES, default=default.batches, help="patches in memory whole, or streamed in windows")
    add("--window-megabytes", type=int, default=default.window_megabytes, help="patches streamed at once, megabytes")
    add("--crop", type=int, default=0, help="side of the random crop from each patch, pixels; 0: all of it")
    add("--mix", choices=MIXES, default=default.mix, help="show patches as they come, or all cameras and ISOs evenly")
    add("--noise", choices=NOISES, default=default.noise, help="of clean-only corpora: as ingested, or fresh each step")
    add("--loss", choices=LOSSES, default=default.loss, help="loss between output and clean patch")
    add("--adversarial", type=float, default=default.adversarial, help="weight of a discriminator's verdict; 0: none")
    add("--optimizer", choices=OPTIMIZERS, default=default.optimizer, help="optimizer")
    add("--learning-rate", type=float, default=default.learning_rate, help="highest learning rate")
    add("--schedule", choices=SCHEDULES, default=default.schedule, help="how the rate falls: half a cosine, or halvings")
    add("--decay-steps", type=int, help="steps between halvings (default: a fifth of --steps)")
    add("--warmup-steps", type=int, default=default.warmup_steps, help="steps over which the rate rises")
    add("--weight-decay", type=float, default=default.weight_decay, help="decay of the weights")
    add("--gradient-clip", type=float, default=default.gradient_clip, help="largest norm of the gradient")
    add("--ema-decay", type=float, default=default.ema_decay, help="decay of the weights' moving average")
    add("--precision", choices=PRECISIONS, default=default.precision, help="precision of the forward pass")
    add("--compiled", choices=COMPILED, default=default.compiled, help="whether the network is compiled; auto: on GPUs")
    add("--validate-every", type=int, help="steps between validations and checkpoints (default: a tenth of --steps)")
    add("--validation-patches", type=int, default=default.validation_patches, help="patches that a validation scores")
    add("--patience", type=int, help="validations without a better PSNR that end the run (default: never)")
    add("--log-every", type=int, help="steps between lines of progress (default: a hundredth of --steps, at most 100)")
    add("--seed", type=int, default=default.seed, help="seeds weights, order, crops and noise")


def add_host_options(made: argparse.ArgumentParser) -> None:
    """Add the options that say where a run runs; they may change when it is resumed."""
    workers = Workers()
    add = made.add_argument
    add(
        "--workers",
        default=str(workers),
        metavar="N",
        help="Ray Train workers; LEAST:MOST grows and shrinks with the cluster",
    )
    add("--gpus-per-worker", type=float, default=workers.gpus, help="GPUs of each worker")
    add("--restarts", type=int, default=workers.restarts, help="losses of workers that the run survives")
    add("--keep-best", type=int, default=1, help="checkpoints kept for their PSNR, besides the two newest")
    add("--resume", metavar="RUN", help="go on with the run of this name below --out")


@dataclass(frozen=True)
class Started:
    """The model that training starts from."""

    uri: str
    """Of that version, whatever its aliases point at later."""
    card: Card
    weights: Mapping[str, Tensor]


def load_start(named: str, mlflow: Path, storage: Storage) -> Started:
    """Load the model that training starts from. Raises UserError for what is no model."""
    uri = pinned(named, mlflow, storage)
    denoiser, card = load_model(uri, mlflow, storage)
    return Started(uri, card, denoiser.network.state_dict())


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A run: what is trained on what, by whom, under which name."""

    name: str
    folder: Location
    data: str
    config: TrainingConfig
    workers: Workers
    run_id: str | None = None
    """The MLflow run that goes on."""

    def check_patches(self, patch_set: PatchSet, options: argparse.Namespace) -> None:
        """Raise UserError if the network does not take the set's patches."""
        cli.checked(lambda: self.config.crop_of(patch_set.manifest.geometry.patch_size), options)

    @property
    def begun(self) -> bool:
        """Whether there are checkpoints to go on from."""
        return (self.folder / "checkpoints").exists()

    def write(self, config: TrainingConfig, patch_set: PatchSet, run_id: str) -> None:
        """Write what `--resume` needs."""
        content = {"data": patch_set.uri, "config": config.to_dict(), "run_id": run_id}
        (self.folder / PLAN_FILE).write_bytes(json_bytes(content))


def planned(options: argparse.Namespace, out: Location, started: Started | None) -> Plan:
    """The plan that the options make; `started` is the model that `--start` named. Raises UserError for what cannot be."""
    workers = cli.checked(
        lambda: Workers.parse(options.workers, gpus=options.gpus_per_worker, restarts=options.restarts), options
    )
    if options.keep_best < 1:
        raise UserError(f"--keep-best must be at least 1, for the best is what is shipped; got {options.keep_best}")
    plan = _resumed(options, out, workers) if options.resume else _new(options, out, workers, started)
    cli.checked(lambda: workers.check_batch(plan.config.batch_size), options)
    return plan


def _new(options: argparse.Namespace, out: Location, workers: Workers, started: Started | None) -> Plan:
    if not options.data:
        raise UserError("name a patch set with --data, or a run to go on with by --resume")
    config = cli.checked(lambda: _configured(options), options)
    if started is not None:
        config = replace(config, model=started.card.model, arguments=started.card.arguments, start=started.uri)
    # Runs of a sweep start in one second.
    name = time.strftime(f"{config.model}-%Y%m%d-%H%M%S-{secrets.token_hex(2)}")
    return Plan(name=name, folder=out / name, data=options.data, config=config, workers=workers)


def _resumed(options: argparse.Namespace, out: Location, workers: Workers) -> Plan:
    name = options.resume
    folder = out / name
    file = folder / PLAN_FILE
    if "/" in name or not file.exists():
        raise UserError(f"there is no run '{name}' in '{out}'; check --resume and --out")
    try:
        content: dict[str, Any] = json.loads(file.read_bytes())
        config = TrainingConfig(**{**content["config"], **_changed(options)})
        plan = Plan(name=name, folder=folder, data=content["data"], config=config, workers=workers, run_id=content["run_id"])
    except UserError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"cannot resume '{name}': '{file}' is damaged ({error}); start a new run") from None
    return plan


def _changed(options: argparse.Namespace) -> dict[str, Any]:
    """What is to be otherwise from now on. Raises UserError if an option describes the run, which is described already."""
    given = sorted(options.given & {"data", *TrainingConfig.__dataclass_fields__})
    for name in given:
        if name not in FREE_FIELDS:
            raise UserError(
                f"--{name.replace('_', '-')} cannot be changed on the way; leave it out, for --resume goes on with what "
                f"'{options.resume}' was told, or start a new run"
            )
    return {name: getattr(options, name) for name in given}


def _configured(options: argparse.Namespace) -> TrainingConfig:
    """The training that the options describe. Raises ValueError for what cannot be."""
    known = {field: getattr(options, field) for field in TrainingConfig.__dataclass_fields__ if hasattr(options, field)}
    known["crop"] = options.crop or None
    if options.validate_every is None:
        known["validate_every"] = max(options.steps // 10, 1)
    return TrainingConfig(**known)
