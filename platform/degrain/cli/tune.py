"""`degrain tune`: a study, from search to registered models."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from degrain.cli.console import Console
from degrain.cli.options import TrackingOptions
from degrain.tuning.config import StudyConfig

if TYPE_CHECKING:
    from degrain.patchsets.patch_set import PatchSet
    from degrain.storage.location import Location, Storage
    from degrain.tracking.config import TrackingConfig
    from degrain.tuning.result import StudyResult


@dataclass(frozen=True, kw_only=True)
class Tune(TrackingOptions):
    """Search networks and hyperparameters, refit the best of each, compare them on whole photos and
    register them.

    Without a patch set the study runs on the embedded corpus: photographs of scikit-image with
    camera-like noise.
    """

    data: str | None = None
    """Patch set to train on. None: the embedded corpus."""
    out: str = "runs"
    """Folder or s3:// URI for checkpoints, tables and pictures."""
    study: StudyConfig = field(default_factory=StudyConfig)

    def run(self, console: Console) -> dict[str, object]:
        """Run the study and print its results."""
        from degrain.cluster import start_ray
        from degrain.patchsets.patch_set import PatchSet
        from degrain.storage.location import Storage
        from degrain.tracking.config import load_tracking_config
        from degrain.tracking.runs import Tracker
        from degrain.tuning.study import fit_to_cluster, run_study

        storage = Storage.from_environment()
        tracking = load_tracking_config(self.mlflow)
        out = storage.locate(self.out)
        out.check_writable()
        patch_set = PatchSet.open(self.data, storage) if self.data else None
        tracker = Tracker.open(tracking, storage)
        start_ray()
        if patch_set is None:
            patch_set = embedded_patch_set(out, storage, console)
        manifest = patch_set.manifest
        counts = ", ".join(f"{manifest.patches(s)} {s}" for s in ("train", "val", "test"))
        console.print(
            f"patch set: {patch_set.uri} ({counts} patches of "
            f"{manifest.geometry.patch_size} pixels)"
        )
        result = run_study(
            fit_to_cluster(self.study),
            patch_set,
            tracker,
            folder=out / "studies",
            log=console.print,
            progress=console.progress,
        )
        print_result(result, patch_set, tracking, console)
        return result.to_summary()


def embedded_patch_set(out: "Location", storage: "Storage", console: Console) -> "PatchSet":
    """Ingest the embedded corpus below `out`, or find it there."""
    from degrain.patchsets.ingest.config import IngestConfig
    from degrain.patchsets.ingest.run import ingest

    console.print("data: the embedded corpus, 21 pairs of 7 photographs with camera-like noise")
    config = IngestConfig(
        corpus=(f"embedded={out}/embedded/photos",), out=f"{out}/embedded/patches"
    )
    return ingest(config, storage, progress=console.progress("ingest", "pairs")).patch_set


def print_result(
    result: "StudyResult", patch_set: "PatchSet", tracking: "TrackingConfig", console: Console
) -> None:
    """Print the comparison, the decisions, and the commands that come next."""
    photo = patch_set.photos("test")[-1].noisy
    console.print(f"\n{result.comparison.to_markdown()}\n")
    for decision in result.decisions:
        moved = " (moved)" if decision.moved else ""
        console.print(f"{decision.alias}: version {decision.version}{moved}, {decision.reason}")
    console.print(f"picture:  {result.picture}")
    console.print(f"runs:     {tracking.tracking_uri}")
    if tracking.embedded:
        program = Path(sys.executable).parent / "mlflow"
        console.print(f"compare:  {program} ui --backend-store-uri {tracking.tracking_uri}")
    held = any(d.alias == "champion" and d.version for d in result.decisions)
    model = f"models:/{tracking.model}@champion" if held else result.registered[0].uri
    console.print(f"apply:    degrain denoise '{photo}' --out denoised --model {model}")


COMMAND = Tune
