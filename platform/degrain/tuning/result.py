"""The result of a study, and its report: table, picture, summary."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from degrain.evaluation.comparison import Comparison
from degrain.evaluation.contact_sheet import contact_sheet
from degrain.registry.promotion import Decision
from degrain.registry.versions import ModelVersion
from degrain.storage.json_file import json_bytes
from degrain.storage.location import Location
from degrain.tracking.runs import Run
from degrain.training.distributed.result import TrainingResult
from degrain.tuning.choice import front_of
from degrain.tuning.trial import Trial


@dataclass(frozen=True)
class Refit:
    """A chosen trial, trained at full length."""

    name: str
    """Name of its row in the comparison."""
    trial: Trial
    run: Run
    result: TrainingResult


@dataclass(frozen=True)
class StudyResult:
    """The outcome of a study."""

    run_id: str
    trials: Sequence[Trial]
    refits: Sequence[Refit]
    comparison: Comparison
    registered: Sequence[ModelVersion]
    decisions: Sequence[Decision]
    folder: Location
    """Folder of the table, the picture and the summary."""

    @property
    def picture(self) -> Location:
        """File of the contact sheet."""
        return self.folder / "comparison.png"

    def to_summary(self) -> dict[str, object]:
        """Return the content of the summary file."""
        return {
            "study_run_id": self.run_id,
            "trials": [t.to_dict() for t in self.trials],
            "front": [t.number for t in front_of(self.trials)],
            "refits": [
                {"model": r.name, "run_id": r.run.id, **r.result.metrics} for r in self.refits
            ],
            "comparison": [row.to_dict() for row in self.comparison.rows],
            "test_photos": self.comparison.photos,
            "registered": [asdict(v) for v in self.registered],
            "decisions": [asdict(d) for d in self.decisions],
            "picture": str(self.picture),
        }

    def describe(self) -> str:
        """Sentences on the outcome, for the study's description in MLflow."""
        best = max(self.refits, key=lambda r: self.comparison.row(r.name).score.psnr)
        score = self.comparison.row(best.name).score
        versions = ", ".join(version.version for version in self.registered)
        return (
            f"The best of {len(self.refits)} refits is {best.name}, with {score.psnr:.2f} dB and "
            f"SSIM {score.ssim:.3f} on whole test photos. Registered: version {versions}."
        )

    def write_report(self, run: Run) -> None:
        """Write table, picture and summary to the study's folder and to its run in MLflow."""
        best = max(self.refits, key=lambda r: self.comparison.row(r.name).score.psnr)
        files = {
            "comparison.md": f"{self.comparison.to_markdown()}\n".encode(),
            "comparison.png": contact_sheet(self.comparison, ["nlm", best.name]),
            "summary.json": json_bytes(self.to_summary()),
        }
        for name, content in files.items():
            (self.folder / name).write_bytes(content)
        run.files(files)
        for row in self.comparison.rows:
            key = row.model.replace(" ", "-")
            run.metrics({f"test_psnr.{key}": row.score.psnr, f"test_ssim.{key}": row.score.ssim})
        for refit in self.refits:
            score = self.comparison.row(refit.name).score
            refit.run.metrics({"test_psnr": score.psnr, "test_ssim": score.ssim})
