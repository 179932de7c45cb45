"""`degrain evaluate`: denoisers on the whole photos of a split."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from degrain.cli.console import Console
from degrain.cli.options import TrackingOptions
from degrain.errors import UserError
from degrain.fields import check_choices, check_minimum

if TYPE_CHECKING:
    from degrain.evaluation.comparison import Comparison
    from degrain.patchsets.patch_set import PatchSet


@dataclass(frozen=True, kw_only=True)
class Evaluate(TrackingOptions):
    """Score denoisers on whole photos that training did not see: the table with confidence
    intervals, slices by camera and ISO, and a page with crops side by side.
    """

    data: str
    """Patch set: a folder or s3:// URI."""
    out: str
    """Folder or s3:// URI for the page, the table and the scores."""
    models: tuple[str, ...] = ("noisy", "nlm", "starter")
    """Denoisers, separated by commas: noisy, a filter such as nlm or bm3d, starter,
    models:/NAME@ALIAS, models:/NAME/VERSION, runs:/ID, or a folder with a model."""
    split: Literal["val", "test"] = "test"
    """Split whose photos are scored."""
    photos: int = 1000
    """Most photos, evenly spaced over the split."""
    examples: int = 4
    """Photos that the page shows."""

    def __post_init__(self) -> None:
        check_choices(self)
        check_minimum(self, 1, "photos", "examples")
        if not self.models:
            raise UserError("name at least one denoiser with `models`")

    def run(self, console: Console) -> dict[str, object]:
        """Score, write the page, and log it to MLflow."""
        from degrain.evaluation.page import write_page
        from degrain.patchsets.patch_set import PatchSet
        from degrain.storage.json_file import json_bytes
        from degrain.storage.location import Storage
        from degrain.tracking.config import load_tracking_config
        from degrain.tracking.runs import Tracker

        storage = Storage.from_environment()
        tracking = load_tracking_config(self.mlflow)
        patch_set = PatchSet.open(self.data, storage)
        out = storage.locate(self.out)
        out.check_writable()
        comparison = self._compare(patch_set, console)
        title = f"{self.split} photos of patch set {patch_set.manifest.version}"
        files = write_page(comparison, title).files()
        files["evaluation.json"] = json_bytes(comparison.evaluation.to_dict())
        files["comparison.md"] = f"{comparison.to_markdown()}\n".encode()
        for name, content in files.items():
            (out / name).write_bytes(content)
        version = patch_set.manifest.version
        tracker, tags = Tracker.open(tracking, storage), {"patch_set": version}
        with tracker.run(f"evaluate-{version}", "evaluation", tags=tags) as run:
            run.describe(f"Evaluation of {', '.join(self.models)}.", patch_set, (self.split,))
            run.files(files, "evaluation")
            for row in comparison.rows:
                scores = {"psnr": row.score.psnr, "ssim": row.score.ssim}
                key = _key(row.model)
                run.metrics({f"{self.split}_{name}.{key}": v for name, v in scores.items()})
        self._show(comparison, console)
        console.print(f"page:  {out / 'report.html'}")
        rows = [row.to_dict() for row in comparison.rows]
        return {"comparison": rows, "page": str(out / "report.html"), "run_id": run.id}

    def _compare(self, patch_set: "PatchSet", console: Console) -> "Comparison":
        from degrain.cluster import start_ray
        from degrain.evaluation.comparison import compare
        from degrain.evaluation.denoisers import find_denoisers
        from degrain.spacing import evenly_spaced

        found = find_denoisers(self.models, self.mlflow, patch_set.root.storage)
        rows = patch_set.photos(self.split)
        if not rows:
            raise UserError(
                f"patch set {patch_set.uri} has no photos in its {self.split} split; ingest more "
                "scenes, or name another `split`"
            )
        photos = [rows[i] for i in evenly_spaced(len(rows), self.photos)]
        patch_set.source.check(photos)
        start_ray()
        console.print(f"evaluate: {len(found)} denoisers on {len(photos)} whole photos")
        return compare(
            [one.denoiser for one in found],
            photos,
            patch_set.source,
            examples=self.examples,
            trained_on={one.denoiser.name: one.photos for one in found},
            progress=console.progress("evaluate", "photos"),
        )

    def _show(self, comparison: "Comparison", console: Console) -> None:
        console.print(comparison.to_markdown())
        for denoiser in comparison.evaluation.denoisers:
            if denoiser.leaked:
                console.print(
                    f"leaked: {denoiser.name} was trained on {len(denoiser.leaked)} of these "
                    f"photos, e.g. {denoiser.leaked[0]}; its scores do not count"
                )


def _key(name: str) -> str:
    """A denoiser's name as MLflow allows it in a metric."""
    return "".join(c if c.isalnum() or c in "_-. /" else "-" for c in name)


COMMAND = Evaluate
