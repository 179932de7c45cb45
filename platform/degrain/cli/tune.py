"""`degrain tune`: a study, from search to registered models."""

import shlex
import sys
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from degrain.cli.console import Console
from degrain.cli.options import TrackingOptions
from degrain.errors import InvalidFieldError
from degrain.inference.config import STARTER
from degrain.tuning.config import EMBEDDED_MODELS, StudyConfig

if TYPE_CHECKING:
    from degrain.patchsets.patch_set import PatchSet
    from degrain.storage.location import Location
    from degrain.tracking.config import TrackingConfig
    from degrain.tracking.runs import Tracker
    from degrain.tuning.publish import StudyResult
    from degrain.tuning.state import StudyState


@dataclass(frozen=True, kw_only=True)
class Tune(TrackingOptions):
    """Search networks and hyperparameters, refit the best of each, compare them on whole photos and
    register them.

    Without a patch set the study runs on the embedded corpus: photographs of scikit-image with
    camera-like noise.
    """

    data: str | None = None
    """Patch set to train on. None: the embedded corpus, or that of the resumed study, which is
    named only if it was moved."""
    out: str = "runs"
    """Folder or s3:// URI for checkpoints, tables and pictures."""
    study: StudyConfig = field(default_factory=StudyConfig)
    resume: str | None = None
    """Name of an interrupted study below the output folder to resume. None: a new study."""

    def defaults(self, _given: AbstractSet[str]) -> "Tune":
        """The options of the study that is resumed."""
        if self.resume is None:
            return self
        state = self._state(self.resume)
        return replace(self, data=state.data, study=state.config)

    def check_against(self, before: "Tune") -> None:
        """Raise InvalidFieldError if an option differs from that of the resumed study; its patch
        set may be at another place.
        """
        if self.resume is None:
            return
        if self.data != before.data:
            from degrain.patchsets.patch_set import check_moved
            from degrain.storage.location import Storage

            assert self.data is not None
            assert before.data is not None
            check_moved(self.data, before.data, Storage.from_environment())
        now, old = (t.study.to_dict() for t in (self, before))
        for name, value in now.items():
            if value != old[name]:
                raise InvalidFieldError(
                    name,
                    "cannot be changed on the way; leave it out, for `resume` continues with the "
                    f"options of '{self.resume}', or start a new study",
                )

    def _state(self, name: str) -> "StudyState":
        from degrain.storage.location import Storage
        from degrain.tuning.state import read_state

        return read_state(Storage.from_environment().locate(self.out) / "studies", name)

    def run(self, console: Console) -> dict[str, object]:
        """Run the study and print its results."""
        from degrain.cluster import start_ray
        from degrain.patchsets.patch_set import PatchSet
        from degrain.tracking.runs import Tracker

        out, tracking = self.open_output(self.out)
        study, patch_set = self.study, None
        if self.data is None:
            study = replace(study, models=study.models or EMBEDDED_MODELS)
        else:
            patch_set = PatchSet.open(self.data, out.storage)
        tracker = Tracker.open(tracking, out.storage)
        start_ray()
        if patch_set is None:
            patch_set = embedded_patch_set(out, console)
        manifest = patch_set.manifest
        counts = ", ".join(f"{manifest.patches(s)} {s}" for s in ("train", "val", "test"))
        console.print(
            f"patch set: {patch_set.uri} ({counts} patches of "
            f"{manifest.geometry.patch_size} pixels)"
        )
        result = self._study(study, patch_set, tracker, out, console)
        print_result(result, patch_set, tracking, console)
        return result.to_summary()

    def _study(
        self,
        study: StudyConfig,
        patch_set: "PatchSet",
        tracker: "Tracker",
        out: "Location",
        console: Console,
    ) -> "StudyResult":
        """Run or resume the study; after Ctrl-C, print the command that resumes it."""
        from degrain.tuning.state import new_name
        from degrain.tuning.study import fit_to_cluster, run_study

        name = self.resume or new_name()
        try:
            return run_study(
                fit_to_cluster(study),
                patch_set,
                tracker,
                folder=out / "studies",
                log=console.print,
                progress=console.progress,
                name=name,
                resume=self._state(name) if self.resume else None,
            )
        except KeyboardInterrupt:
            others = "" if self.out == "runs" else f" --out {shlex.quote(self.out)}"
            others += f" --mlflow {shlex.quote(str(self.mlflow))}" if self.mlflow else ""
            console.print(f"resume:  degrain tune --resume {name}{others}")
            raise


def embedded_patch_set(out: "Location", console: Console) -> "PatchSet":
    """Ingest the embedded corpus below `out`, or find it there."""
    from degrain.patchsets.ingest.config import IngestConfig
    from degrain.patchsets.ingest.run import ingest

    console.print("data: the embedded corpus, 21 pairs of 7 photographs with camera-like noise")
    config = IngestConfig(
        corpus=(f"embedded={out}/embedded/photos",), out=f"{out}/embedded/patches"
    )
    return ingest(config, out.storage, progress=console.progress("ingest", "pairs")).patch_set


def print_result(
    result: "StudyResult", patch_set: "PatchSet", tracking: "TrackingConfig", console: Console
) -> None:
    """Print the comparison, the decisions, and the commands that come next."""
    photo = patch_set.photos("test")[-1].noisy
    console.print(f"\n{result.comparison.to_markdown()}\n")
    for decision in result.decisions:
        moved = " (moved)" if decision.moved else ""
        holder = f"version {decision.version}" if decision.version else "nobody"
        console.print(f"{decision.alias}: {holder}{moved}, {decision.reason}")
    console.print(f"versions: {', '.join(version.uri for version in result.registered)}")
    console.print(f"picture:  {result.picture}")
    console.print(f"runs:     {tracking.shown_uri}")
    if tracking.embedded:
        program = str(Path(sys.executable).parent / "mlflow")
        words = [program, "ui", "--backend-store-uri", tracking.shown_uri]
        console.print(f"compare:  {shlex.join(words)}")
    held = any(d.alias == "champion" and d.version for d in result.decisions)
    # Without a champion `denoise` goes on with the starter, and so does who follows this line.
    model = f"models:/{tracking.model}@champion" if held else STARTER
    console.print(f"apply:    degrain denoise {shlex.quote(photo)} --out denoised --model {model}")


COMMAND = Tune
