"""`degrain train`: one network, by distributed data-parallel training."""

import json
import shlex
import time
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from degrain.cli.console import Console
from degrain.cli.options import TrackingOptions
from degrain.durations import Duration
from degrain.errors import InvalidFieldError, UserError
from degrain.inference.config import STARTER
from degrain.training.config import RESUMABLE_CHANGES, TrainingConfig, by_recipe
from degrain.training.distributed.workers import Workers

if TYPE_CHECKING:
    from degrain.patchsets.patch_set import PatchSet
    from degrain.storage.location import Location
    from degrain.tracking.runs import Tracker
    from degrain.training.distributed.plan import RunPlan

_BUDGET = Duration(600)
"""Of a run that names neither a network nor a length."""


@dataclass(frozen=True, kw_only=True)
class Train(TrackingOptions):
    """Train one network on a patch set by distributed data-parallel training.

    Without a network and a model to start from, the starter is trained on, for ten minutes. Loss,
    learning rate, batch size and sampling that are not given follow the network's recipe, not the
    defaults below; docs/training.md describes recipes.
    """

    data: str | None = None
    """Patch set: a folder or s3:// URI. None: that of the run that is resumed."""
    training: TrainingConfig = field(default_factory=TrainingConfig)
    workers: Workers = field(default_factory=Workers)
    keep_best: int = 1
    """Checkpoints kept for their val PSNR, besides the two newest."""
    resume: str | None = None
    """Name of a run below the output folder to resume. None: a new run."""
    out: str = "runs/train"
    """Folder or s3:// URI for runs and their checkpoints."""

    def __post_init__(self) -> None:
        if self.keep_best < 1:
            raise InvalidFieldError(
                "keep_best",
                f"must be at least 1, for the best checkpoint is shipped, got {self.keep_best}",
            )
        if self.data is None and self.resume is None:
            raise UserError("name a patch set with `data`, or a run to resume with `resume`")

    def defaults(self, given: AbstractSet[str]) -> "Train":
        """The options of the run that is resumed, or those of the network's recipe; `given` names
        the options that the user sets.
        """
        if self.resume is None:
            return replace(self, training=by_recipe(self._with_starting_network(given)))
        from degrain.storage.location import Storage
        from degrain.training.distributed.plan import read_plan

        out = Storage.from_environment().locate(self.out)
        data, config, _, _ = read_plan(out, self.resume)
        return replace(self, data=data, training=config)

    def _with_starting_network(self, given: AbstractSet[str]) -> TrainingConfig:
        """The training options with the network of the model that training starts from."""
        training = self.training
        if given.isdisjoint({"model", "arguments", "start", "teacher"}):
            training = replace(training, start=STARTER)
            if given.isdisjoint({"steps", "budget"}):
                training = replace(training, budget=_BUDGET)
        if training.start is None:
            return training
        from degrain.registry.resolver import Resolver
        from degrain.storage.location import Storage

        card = Resolver(self.mlflow, Storage.from_environment()).load(training.start)[1]
        return replace(training, model=card.model, arguments=card.arguments)

    def check_against(self, before: "Train") -> None:
        """Raise InvalidFieldError if an option differs that the resumed run, or the model that
        training starts from, has settled; the patch set may be at another place.
        """
        if self.resume is None:
            self._check_network(before.training)
            return
        now, old = self.training.to_dict(), before.training.to_dict()
        changed = [n for n in now if now[n] != old[n] and n not in RESUMABLE_CHANGES]
        if self.data != before.data:
            from degrain.patchsets.patch_set import check_moved
            from degrain.storage.location import Storage

            assert self.data is not None
            assert before.data is not None
            check_moved(self.data, before.data, Storage.from_environment())
        if changed:
            raise InvalidFieldError(
                changed[0],
                "cannot be changed on the way; leave it out, for `resume` continues with the "
                f"options of '{self.resume}', or start a new run",
            )

    def _check_network(self, start: TrainingConfig) -> None:
        if self.training.start is None:
            return
        for name in ("model", "arguments"):
            ours, its = getattr(self.training, name), getattr(start, name)
            if ours != its:
                shown = json.dumps(dict(its)) if name == "arguments" else its
                raise InvalidFieldError(
                    name,
                    f"cannot be chosen with `start`: '{self.training.start}' has {shown}; leave "
                    "one of them out",
                )

    def run(self, console: Console) -> dict[str, object]:
        """Train, and show the progress."""
        from degrain.cluster import start_ray
        from degrain.patchsets.patch_set import PatchSet
        from degrain.tracking.runs import Tracker

        began = time.time()
        out, tracking = self.open_output(self.out)
        plan = self._plan(out)
        patch_set = PatchSet.open(plan.data, out.storage)
        plan.config.crop_of(patch_set.manifest.geometry.patch_size)
        with ThreadPoolExecutor(1) as pool:
            # Both wait for seconds, a new store for more than Ray.
            opening = pool.submit(Tracker.open, tracking, out.storage)
            start_ray()
            tracker = opening.result()
        workers = self.workers.fit_to_cluster()
        workers.check_cluster()
        summary = self._train(plan, patch_set, workers, tracker, console, began)
        return {**summary, "seconds": time.time() - began}

    def _plan(self, out: "Location") -> "RunPlan":
        from degrain.registry.resolver import Resolver
        from degrain.training.distributed.plan import new_plan, resumed_plan

        models = Resolver(self.mlflow, out.storage)
        self.workers.check_batch(self.training.batch_size)
        assert self.data is not None
        if self.resume is not None:
            return resumed_plan(out, self.resume, self.data, self.training, models)
        return new_plan(out, self.data, self.training, models)

    def _train(
        self,
        plan: "RunPlan",
        patch_set: "PatchSet",
        workers: Workers,
        tracker: "Tracker",
        console: Console,
        started: float,
    ) -> dict[str, object]:
        from degrain.training.distributed.run import train_run

        try:
            result = train_run(
                plan,
                patch_set,
                workers,
                tracker,
                keep_best=self.keep_best,
                started=started,
                log=console.print,
                status=console.status,
            )
        except KeyboardInterrupt:
            console.end_status()
            console.print(f"resume:  {self._resume_command(plan.name)}")
            raise
        console.end_status()
        if not plan.folder.remote:
            model = Path(plan.folder.path) / "model"
            console.print(f"model:   {model}")
            path, data = shlex.quote(str(model)), shlex.quote(plan.data)
            console.print(f"apply:   degrain denoise PHOTO --out denoised --model {path}")
            console.print(
                f"compare: degrain evaluate --data {data} --models nlm,starter,{path} --out report"
            )
        words = ["degrain", "promote", f"runs:/{result.run_id}", "--data", plan.data]
        if self.mlflow is not None:
            words += ["--mlflow", str(self.mlflow)]
        console.print(f"promote: {shlex.join(words)}")
        return {
            "run_id": result.run_id,
            "name": plan.name,
            "model": result.config.model,
            **result.metrics,
            "best_step": result.metrics["step"],
            "steps": result.config.steps,
        }

    def _resume_command(self, name: str) -> str:
        """The command that goes on with a run."""
        words = ["degrain", "train", "--resume", name]
        if self.out != Train.out:
            words += ["--out", self.out]
        if self.mlflow is not None:
            words += ["--mlflow", str(self.mlflow)]
        return shlex.join(words)


COMMAND = Train
