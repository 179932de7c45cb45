"""The result of a study, and its report: table, picture, summary."""

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from degrain.evaluation.comparison import Comparison
from degrain.evaluation.contact_sheet import save_contact_sheet
from degrain.evaluation.promotion import Decision
from degrain.storage.json_file import json_bytes
from degrain.storage.location import Location
from degrain.tracking.registry import ModelVersion
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
    folder: Path
    """Local folder of the table, the picture and the summary."""

    @property
    def picture(self) -> Path:
        """Path of the contact sheet."""
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

    def write_report(self, folder: Location, run: Run) -> None:
        """Write table, picture and summary to the study's folder and to its run in MLflow."""
        best = max(self.refits, key=lambda r: self.comparison.row(r.name).score.psnr)
        table, summary = self.folder / "comparison.md", self.folder / "summary.json"
        table.write_text(self.comparison.to_markdown() + "\n")
        save_contact_sheet(self.comparison, ["nlm", best.name], self.picture)
        summary.write_bytes(json_bytes(self.to_summary()))
        for path in (table, self.picture, summary):
            run.file(path)
            if folder.remote:
                (folder / path.name).write_bytes(path.read_bytes())
        for row in self.comparison.rows:
            key = row.model.replace(" ", "-")
            run.metrics({f"test_psnr.{key}": row.score.psnr, f"test_ssim.{key}": row.score.ssim})
        for refit in self.refits:
            score = self.comparison.row(refit.name).score
            refit.run.metrics({"test_psnr": score.psnr, "test_ssim": score.ssim})


def local_folder(folder: Location) -> Path:
    """Create the study's folder, or a temporary one if the study is in a bucket."""
    path = Path(tempfile.mkdtemp(prefix="degrain-")) if folder.remote else Path(folder.path)
    path.mkdir(parents=True, exist_ok=True)
    return path
