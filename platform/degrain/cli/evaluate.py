"""`degrain evaluate`: denoisers on the whole photos of a split, or of corpora."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from degrain.cli.console import Console
from degrain.cli.options import TrackingOptions
from degrain.corpora.config import CorpusOptions, split_name
from degrain.errors import JobFailedError, UserError
from degrain.fields import check_choices, check_minimum
from degrain.patchsets.check_rules import CheckRules

if TYPE_CHECKING:
    from degrain.evaluation.comparison import Comparison
    from degrain.evaluation.photo_set import PhotoSet
    from degrain.registry.resolver import Named
    from degrain.storage.location import Storage
    from degrain.tracking.runs import Tracker


PAGE = "evaluation.html"


@dataclass(frozen=True, kw_only=True)
class Evaluate(TrackingOptions):
    """Score denoisers on whole photos that training did not see: the table with confidence
    intervals, slices by camera and ISO, and a page with crops side by side.
    """

    data: str | None = None
    """Patch set: a folder or s3:// URI. None: corpora are scored."""
    pairs: Sequence[str] = ()
    """Corpora without a patch set, each NAME=URI or NAME:LABEL=URI as for ingest; all their pairs
    are scored. May be repeated."""
    out: str
    """Folder or s3:// URI for the page, the table and the scores."""
    models: tuple[str, ...] = ("noisy", "nlm", "starter")
    """Denoisers, separated by commas: noisy, a filter such as nlm or bm3d, starter,
    models:/NAME@ALIAS, models:/NAME/VERSION, runs:/ID, or a folder with a model."""
    split: Literal["val", "test"] | None = None
    """Split of the patch set whose photos are scored. None: test."""
    photos: int = 1000
    """Most photos, evenly spaced over the split or the corpora."""
    examples: int = 4
    """Photos that the page shows."""
    options: CorpusOptions = field(default_factory=CorpusOptions)
    rules: CheckRules = field(default_factory=CheckRules)

    def __post_init__(self) -> None:
        check_choices(self)
        check_minimum(self, 1, "photos", "examples")
        if not self.models:
            raise UserError("name at least one denoiser with `models`")
        if (self.data is None) == (not self.pairs):
            raise UserError("name either a patch set with `data`, or corpora with `pairs` NAME=URI")
        for text in self.pairs:
            split_name(text)
        if self.pairs and self.split is not None:
            raise UserError(
                "`split` is a part of a patch set; leave it out with `pairs`, whose pairs are all "
                "scored"
            )
        if self.data is not None and (self.options, self.rules) != (CorpusOptions(), CheckRules()):
            raise UserError(
                "names, noise and checks of pairs are options of `pairs`; a patch set has its own, "
                "leave them out with `data`"
            )

    def run(self, console: Console) -> dict[str, object]:
        """Score, write the page, and log it to MLflow."""
        from degrain.evaluation.page import evaluation_page
        from degrain.registry.resolver import Resolver
        from degrain.storage.json_file import json_bytes
        from degrain.tracking.runs import Tracker

        out, tracking = self.open_output(self.out)
        found = Resolver(self.mlflow, out.storage).denoisers(self.models)
        photos = self._photos(out.storage, console)
        tracker = Tracker.open(tracking, out.storage)
        comparison = self._compare(found, photos, console)
        files = evaluation_page(comparison, photos.title).files(PAGE)
        files["evaluation.json"] = json_bytes(comparison.evaluation.to_dict())
        files["comparison.md"] = f"{comparison.to_markdown()}\n".encode()
        for name, content in files.items():
            (out / name).write_bytes(content)
        self._show(comparison, console)
        console.print(f"page:  {out / PAGE}")
        run_id = None
        try:
            run_id = self._log(comparison, photos, files, tracker)
        except JobFailedError as error:
            console.print(f"warning: the scores are in '{out}', but not in MLflow: {error}")
        rows = [row.to_dict() for row in comparison.rows]
        return {"comparison": rows, "page": str(out / PAGE), "run_id": run_id}

    def _log(
        self,
        comparison: "Comparison",
        photos: "PhotoSet",
        files: Mapping[str, bytes],
        tracker: "Tracker",
    ) -> str:
        """Log scores and files to a run, and return its id. Raises JobFailedError."""
        with tracker.run(f"evaluate-{photos.name}", "evaluation", tags=photos.tags) as run:
            run.inputs(photos.datasets)
            run.add_note(f"Evaluation of {', '.join(self.models)} on {photos.title}.")
            run.files(files, "evaluation")
            for row in comparison.rows:
                scores = {"psnr": row.score.psnr, "ssim": row.score.ssim}
                run.metrics(
                    {f"{photos.metrics}_{name}.{row.model}": v for name, v in scores.items()}
                )
        return run.id

    def _compare(
        self, found: "Sequence[Named]", photos: "PhotoSet", console: Console
    ) -> "Comparison":
        from degrain.cluster import start_ray
        from degrain.evaluation.comparison import compare

        start_ray()
        console.print(f"evaluate: {len(found)} denoisers on {len(photos.pairs)} whole photos")
        return compare(
            [one.denoiser for one in found],
            photos.pairs,
            photos.source,
            examples=self.examples,
            trained_on={one.denoiser.name: one.photos for one in found},
            progress=console.progress("evaluate", "photos"),
        )

    def _photos(self, storage: "Storage", console: Console) -> "PhotoSet":
        """The photos that the options name."""
        from degrain.evaluation.photo_set import corpus_photos, split_photos
        from degrain.patchsets.listing import check_outside
        from degrain.patchsets.patch_set import PatchSet

        if self.data is not None:
            patch_set = PatchSet.open(self.data, storage)
            return split_photos(patch_set, self.split or "test", self.photos)
        check_outside(self.pairs, storage.locate(self.out))
        photos = corpus_photos(
            self.pairs,
            self.options,
            self.rules,
            storage,
            most=self.photos,
            progress=console.progress("read", "pairs"),
        )
        for reason in photos.left_out:
            console.print(f"not scored: {reason}")
        return photos

    def _show(self, comparison: "Comparison", console: Console) -> None:
        from degrain.evaluation.differences import Ranking

        console.print(comparison.to_markdown())
        ranking = Ranking.of(comparison.evaluation)
        console.print(f"best:  {ranking.recommend()}")


COMMAND = Evaluate
