"""Distributed training: the loop on several Ray Train workers, and what the driver sees of it."""

import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import ray
import ray.train
import ray.train.torch
from torch import Tensor

from degrain import cli
from degrain.data.patches import Manifest, PatchSet
from degrain.data.resident import Split, fits, make_resident, make_sample, make_streamed
from degrain.errors import JobFailedError, UserError, find_cause
from degrain.imaging.metrics import PATCH_PROTOCOL
from degrain.storage import Location
from degrain.tracking.registry import Card
from degrain.tracking.runs import git_commit
from degrain.training.config import TrainingConfig
from degrain.training.mailbox import Began, Letter, Mailbox, Rescued, Warned
from degrain.training.session import Metrics
from degrain.training.store import CheckpointStore
from degrain.training.worker import Assignment, run_worker
from denoisenets import full_arguments, model_contract

_RESCUE_SECONDS = 20.0
_RESIZE_SECONDS = 20.0
_PATIENCE_SECONDS = 30.0


@dataclass(frozen=True)
class Trained:
    """The outcome of a training run."""

    config: TrainingConfig
    weights: Mapping[str, Tensor]
    """The averaged weights of the best validation by PSNR: a state dict on the CPU."""
    metrics: Metrics
    """Of the validation of these weights."""


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


@dataclass(frozen=True, kw_only=True)
class Workers:
    """Who trains: how many workers of what size, and how often they may be lost."""

    least: int = 1
    """Workers without which training waits."""
    most: int = 1
    """Workers that it takes if they are to be had; above `least`, training grows and shrinks with the cluster."""
    cpus: float = 1
    """CPUs of each."""
    gpus: float = 0
    """GPUs of each."""
    restarts: int = 10
    """Losses of workers that a run survives; announced ones are not counted."""

    def __post_init__(self) -> None:
        if self.least < 1:
            raise ValueError(f"workers must be at least 1, got {self.least}")
        if self.most < self.least:
            raise ValueError(f"workers must be a range that rises, got {self.least}:{self.most}")
        if not 0 <= self.gpus < float("inf"):
            raise ValueError(f"gpus_per_worker must be a number that is not negative, got {self.gpus}")
        if self.most > 1 and self.gpus != int(self.gpus):
            raise ValueError(f"gpus_per_worker must be whole where there are several workers, got {self.gpus:g}")
        if self.restarts < 0:
            raise ValueError(f"restarts must not be negative, got {self.restarts}")

    @classmethod
    def parse(cls, text: str, **others: Any) -> "Workers":  # noqa: ANN401 - the other fields
        """From `4` or `2:8`. Raises ValueError for what is neither."""
        least, colon, most = text.partition(":")
        if not least.isdecimal() or (colon and not most.isdecimal()):
            raise ValueError(f"workers must be a number, or a range such as 2:8, got '{text}'")
        return cls(least=int(least), most=int(most or least), **others)

    def __str__(self) -> str:
        return f"{self.least}:{self.most}" if self.elastic else str(self.most)

    @property
    def elastic(self) -> bool:
        """Whether their number may change."""
        return self.most > self.least

    def check_batch(self, batch_size: int) -> None:
        """Raise ValueError if some worker would get no patch."""
        if batch_size < self.most:
            raise ValueError(
                f"batch_size {batch_size} leaves some of {self.most} workers without a patch; raise it or take fewer"
            )

    def check_cluster(self) -> None:
        """Raise UserError if the cluster has fewer CPUs or GPUs than the least workers need: Ray would wait for ever."""
        there, free = ray.cluster_resources(), ray.available_resources()
        for kind, each in (("CPU", self.cpus), ("GPU", self.gpus)):
            needed = self.least * each
            if needed > there.get(kind, 0):
                raise UserError(
                    f"{self.least} workers need {needed:g} {kind}s, but the cluster has {there.get(kind, 0):g}, of which "
                    f"{free.get(kind, 0):g} are free; lower --workers or start more nodes"
                )

    def shortage(self) -> str:
        """What the least workers need, and what is free."""
        there, free = ray.cluster_resources(), ray.available_resources()
        kinds = (("CPUs", self.cpus, "CPU"), ("GPUs", self.gpus, "GPU"))
        needs = [f"{self.least * each:g} {name}" for name, each, _ in kinds if each]
        has = [f"{free.get(kind, 0):g} of {there.get(kind, 0):g} {name}" for name, each, kind in kinds if each]
        return f"{' and '.join(needs)} for {self.least} workers; {' and '.join(has)} are free"

    def scaling(self) -> ray.train.ScalingConfig:
        """The same in Ray's words."""
        return ray.train.ScalingConfig(
            num_workers=(self.least, self.most) if self.elastic else self.most,
            use_gpu=self.gpus > 0,
            resources_per_worker={"CPU": self.cpus, **({"GPU": self.gpus} if self.gpus else {})},
            elastic_resize_monitor_interval_s=_RESIZE_SECONDS,
        )


@dataclass(frozen=True)
class Splits:
    """What training sees and what validation scores."""

    train: Split
    val: Split


def open_splits(config: TrainingConfig, patch_set: PatchSet) -> tuple[TrainingConfig, Splits]:
    """The splits of a patch set, in memory or streamed, and the configuration that says which, where it said `auto`.

    Raises UserError if a split is empty or does not fit.
    """
    patches = patch_set.manifest.patches("train")
    if patches < config.batch_size:
        raise UserError(
            f"the train split of {patch_set.uri} has {patches} patches, fewer than a batch of {config.batch_size}; lower "
            "--batch-size or ingest more photos"
        )
    if config.noise == "fresh" and all(row.noise is None for row in patch_set.catalog):
        raise UserError(
            f"{patch_set.uri} has no patches of clean-only corpora, which --noise fresh is for; leave it out, or ingest "
            "one with --noise"
        )
    if config.batches == "auto":
        config = replace(config, batches="resident" if fits(patch_set, "train") else "streaming")
    if config.batches == "streaming":
        train: Split = make_streamed(patch_set, "train", config.window_megabytes * 10**6)
    else:
        train = make_resident(patch_set, "train")
    return config, Splits(train, make_sample(patch_set, "val", config.validation_patches))


Listener: TypeAlias = Callable[[Letter], None]


@dataclass
class Job:
    """Training of one network by several workers, with its checkpoints in `folder`/checkpoints.

    A job whose folder has checkpoints goes on from the newest. `listen` is told, in the driver, what the workers report.
    """

    config: TrainingConfig
    splits: Splits
    folder: Location
    name: str
    workers: Workers
    start: Mapping[str, Tensor] | None = None
    keep_best: int = 1
    listen: Listener = lambda _: None
    _mailbox: Mailbox = field(init=False, repr=False)
    _draining: set[str] = field(default_factory=set, init=False, repr=False)
    """Nodes that were announced to go."""
    _began: bool = field(default=False, init=False, repr=False)
    """Whether workers have begun to train."""

    def run(self) -> Trained:
        """Train to the end. Raises UserError if the cluster is too small, JobFailedError if training fails.

        On Ctrl-C the workers are asked for a checkpoint before the interrupt goes on.
        """
        self.workers.check_cluster()
        self._mailbox = Mailbox.open()
        outcome: list[BaseException] = []
        # Ray answers Ctrl-C in its own way, ending the process with status 0, unless it runs beside the main thread.
        training = threading.Thread(target=self._fit, args=(outcome,), daemon=True, name=cli.INSIDE_RAY)
        try:
            training.start()
            self._wait_for_workers(training)
            while training.is_alive():
                self._deliver(seconds=0.5)
            self._deliver(seconds=0)
            failure = self._mailbox.failure()
        except KeyboardInterrupt:
            self._rescue(training)
            raise
        finally:
            self._mailbox.close()
        if failure is not None:
            raise failure
        if outcome:
            raise JobFailedError(f"training '{self.name}' failed: {_last_line(outcome[0])}") from outcome[0]
        return self._trained()

    def _wait_for_workers(self, training: threading.Thread) -> None:
        """Deliver until workers begin, and say now and then what they wait for."""
        due = time.monotonic() + _PATIENCE_SECONDS
        while training.is_alive() and not self._began:
            self._deliver(seconds=0.5)
            if time.monotonic() > due:
                self.listen(Warned(f"still waiting for {self.workers.shortage()}"))
                due = time.monotonic() + 4 * _PATIENCE_SECONDS

    def _fit(self, outcome: list[BaseException]) -> None:
        # Ray asks every two seconds whether workers have ended; that nodes go away we see without an actor of its.
        os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
        # It may plan with a node that is just lost; the next plan, which knows, should not come a minute later.
        os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "20")
        try:
            ray.train.torch.TorchTrainer(
                run_worker,
                train_loop_config={"assignment": self._assignment()},
                scaling_config=self.workers.scaling(),
                run_config=ray.train.RunConfig(
                    name=self.name,
                    storage_path=(self.folder / "ray").path,
                    storage_filesystem=self.folder.filesystem,
                    failure_config=ray.train.FailureConfig(max_failures=self.workers.restarts),
                ),
            ).fit()
        except Exception as error:  # noqa: BLE001 - the outermost frame of a thread: who waits for it raises it
            outcome.append(error)

    def _assignment(self) -> Assignment:
        return Assignment(
            config=self.config,
            train_split=self.splits.train,
            val_split=self.splits.val,
            start=None if self.start is None else ray.put(dict(self.start)),
            checkpoints=self.folder / "checkpoints",
            keep_best=self.keep_best,
            mailbox=self._mailbox,
        )

    def _deliver(self, seconds: float) -> list[Letter]:
        """Tell of what has arrived; have a checkpoint written if a node is announced to go away."""
        draining = _draining_nodes()
        if draining - self._draining:
            self.listen(Warned("a node is about to go away; its workers go on elsewhere"))
            self._mailbox.want_rescue()
        self._draining = draining
        letters = self._mailbox.take(seconds)
        for letter in letters:
            self._began = self._began or isinstance(letter, Began)
            self.listen(letter)
        return letters

    def _rescue(self, training: threading.Thread) -> None:
        """Have a checkpoint written, and wait for it for a while, unless a second Ctrl-C says not to."""
        if not self._began:
            return
        self._mailbox.want_rescue()
        deadline = time.monotonic() + _RESCUE_SECONDS
        while training.is_alive() and time.monotonic() < deadline:
            if any(isinstance(letter, Rescued) for letter in self._deliver(seconds=0.5)):
                return

    def _trained(self) -> Trained:
        store = CheckpointStore(self.folder / "checkpoints", warn=lambda text: self.listen(Warned(text)))
        best = store.best()
        if best is None:
            raise JobFailedError(f"training '{self.name}' ended, but '{store.folder}' has no whole checkpoint; run it again")
        return Trained(self.config, best["ema"], best["metrics"])


def _draining_nodes() -> set[str]:
    """Nodes that are announced to go away, by an autoscaler or `ray drain-node`: Ray has no public word for them."""
    return set(ray._private.state.state.get_draining_nodes())


def _last_line(error: BaseException) -> str:
    lines = [line for line in str(find_cause(error) or error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
