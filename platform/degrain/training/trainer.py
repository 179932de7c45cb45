"""Distributed training: the loop on several Ray Train workers, and what the driver sees of it."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import ray
import ray.train
import ray.train.torch
from ray.util.queue import Empty, Queue
from torch import Tensor

from degrain.data.patches import Manifest
from degrain.data.resident import ResidentSplit
from degrain.errors import JobFailedError, UserError, find_cause
from degrain.imaging.metrics import PATCH_PROTOCOL
from degrain.storage import Location
from degrain.tracking.registry import Card
from degrain.tracking.runs import git_commit
from degrain.training.checkpoint import CHECKPOINT_FILE, read_checkpoint
from degrain.training.config import TrainingConfig
from degrain.training.session import Metrics
from degrain.training.worker import run_worker
from denoisenets import full_arguments, model_contract


@dataclass(frozen=True)
class Trained:
    """The outcome of a training run."""

    config: TrainingConfig
    weights: Mapping[str, Tensor]
    """The averaged weights: a state dict on the CPU."""
    metrics: Metrics
    """The last report."""


def trained_card(trained: Trained, patches: Manifest, scores: Mapping[str, Mapping[str, float]] | None = None) -> Card:
    """The card of a network trained on `patches`; `scores` are those beyond its validation, by protocol."""
    config, metrics = trained.config, trained.metrics
    contract = model_contract(config.model, **config.arguments)
    return Card(
        model=config.model,
        arguments=full_arguments(config.model, config.arguments),
        patch_set=patches.version,
        training=config.to_dict(),
        crop=config.crop_of(patches.geometry.patch_size),
        size_multiple=contract.size.multiple,
        halo=contract.receptive_radius,
        scores={PATCH_PROTOCOL: {"psnr": metrics["val_psnr"], "ssim": metrics["val_ssim"]}, **(scores or {})},
        code=git_commit(),
    )


def report_line(metrics: Metrics, steps: int) -> str:
    """What a user watches: one line for a report of a run of `steps` steps."""
    return (
        f"  step {metrics['step']:.0f}/{steps}  loss {metrics['train_loss']:.5f}  val PSNR "
        f"{metrics['val_psnr']:.2f} dB, SSIM {metrics['val_ssim']:.3f}  {metrics['patches_per_second']:.0f} patches/s"
    )


def check_workers(workers: int, gpus_per_worker: float, batch_size: int) -> None:
    """Raise ValueError unless so many workers can be, and share a batch evenly."""
    if workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    if not 0 <= gpus_per_worker < float("inf"):
        raise ValueError(f"gpus must be a number that is not negative, got {gpus_per_worker}")
    if batch_size % workers:
        raise ValueError(f"batch_size {batch_size} is not a multiple of {workers} workers")


def check_resources(workers: int, gpus_per_worker: float) -> None:
    """Raise UserError if the cluster has fewer CPUs or GPUs than asked, for Ray would wait for ever."""
    there = ray.cluster_resources()
    for kind, needed in (("CPU", float(workers)), ("GPU", workers * gpus_per_worker)):
        if needed > there.get(kind, 0):
            raise UserError(
                f"{workers} workers need {needed:g} {kind}s, but the cluster has {there.get(kind, 0):g}; "
                "lower --workers or start more nodes"
            )


def train_distributed(
    config: TrainingConfig,
    *,
    train_split: ResidentSplit,
    val_split: ResidentSplit,
    folder: Location,
    name: str,
    workers: int,
    gpus_per_worker: float = 0,
    on_report: Callable[[Metrics], None] = lambda _: None,
) -> Trained:
    """Train by DDP over `workers` workers; checkpoints go to `folder`/`name`.

    A run of the same name that was interrupted goes on from its newest checkpoint. `on_report` gets each report, in the
    driver. Raises UserError if the cluster is too small, JobFailedError if training fails.
    """
    check_resources(workers, gpus_per_worker)
    mailbox = Queue(actor_options={"num_cpus": 0})
    trainer = ray.train.torch.TorchTrainer(
        run_worker,
        train_loop_config={
            "training": config.to_dict(),
            "train_split": train_split,
            "val_split": val_split,
            "mailbox": mailbox,
        },
        scaling_config=ray.train.ScalingConfig(
            num_workers=workers,
            use_gpu=gpus_per_worker > 0,
            resources_per_worker={"CPU": 1, **({"GPU": gpus_per_worker} if gpus_per_worker else {})},
        ),
        run_config=ray.train.RunConfig(
            name=name,
            storage_path=folder.path,
            storage_filesystem=folder.filesystem,
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=2),
        ),
    )
    folder.make_parent()
    try:
        with _delivered(mailbox, on_report), _own_interrupt():
            result = trainer.fit()
    except (ray.train.TrainingFailedError, ray.exceptions.RayError) as error:
        known = find_cause(error)
        if known is not None:
            raise type(known)(str(known)) from error
        raise JobFailedError(f"training '{name}' failed: {_last_line(error)}") from error
    finally:
        mailbox.shutdown(force=True)
    with result.checkpoint.as_directory() as place, open(f"{place}/{CHECKPOINT_FILE}", "rb") as file:
        content = read_checkpoint(file.read())
    return Trained(config, content["ema"], _floats(result.metrics))


@contextlib.contextmanager
def _own_interrupt() -> Iterator[None]:
    """Ray Train answers Ctrl-C by ending the process with status 0, and keeps doing so after it is done: undo both."""
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit:
        raise KeyboardInterrupt from None
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def _delivered(mailbox: Queue, deliver: Callable[[Metrics], None]) -> Iterator[None]:
    """For the length of a block, a thread hands what arrives in the mailbox to `deliver`.

    If `deliver` raises, training goes on; the error is raised when the block has ended well.
    """
    done = threading.Event()
    with ThreadPoolExecutor(max_workers=1) as pool:
        delivering = pool.submit(_deliver_until, done, mailbox, deliver)
        try:
            yield
        finally:
            done.set()
        delivering.result()


def _deliver_until(done: threading.Event, mailbox: Queue, deliver: Callable[[Metrics], None]) -> None:
    """Deliver until told that nothing more will come, and the mailbox is empty."""
    while True:
        finished = done.is_set()
        try:
            while True:
                deliver(mailbox.get(block=not finished, timeout=1))
        except Empty:
            if finished:
                return


def _floats(metrics: Mapping[str, Any]) -> dict[str, float]:
    return {k: float(v) for k, v in metrics.items() if isinstance(v, int | float)}


def _last_line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
