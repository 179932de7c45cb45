"""What becomes of a study's refits: they are compared, registered, reported, and promoted where the
gates let them.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property

from degrain.corpora.record import PairRecord
from degrain.evaluation.comparison import Comparison
from degrain.evaluation.contact_sheet import contact_sheet
from degrain.imaging.metrics import PROTOCOL
from degrain.inference.denoiser import NetworkDenoiser
from degrain.patchsets.patch_set import PatchSet
from degrain.registry.card import ModelCard
from degrain.registry.promotion import Decision
from degrain.registry.resolver import Named
from degrain.registry.standing import Candidate, Standing, current_holders
from degrain.registry.versions import ModelVersion, log_model, register
from degrain.storage.json_file import json_bytes
from degrain.storage.location import Location
from degrain.tracking.runs import Run, Tracker
from degrain.tracking.training_photos import TrainingPhotos, union_of
from degrain.training.distributed.result import TrainingResult, model_card
from degrain.tuning.config import FittedStudy
from degrain.tuning.search import front_of
from degrain.tuning.starts import Starts
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


def holders_without(
    refits: Sequence[Refit], tracker: Tracker, before: Mapping[str, str]
) -> dict[str, ModelVersion]:
    """The versions that hold aliases, by alias, as they are without the study's own `refits`.

    `before` has the numbers of those that held them before the study moved any.
    """
    present, own = current_holders(tracker), {refit.run.id for refit in refits}
    for alias, version in list(present.items()):
        found = tracker.client.get_model_version(version.name, version.version)
        if found.run_id not in own:
            continue
        # An earlier process of this study moved the alias before it was interrupted.
        del present[alias]
        if alias in before:
            present[alias] = ModelVersion(version.name, before[alias])
    return present


@dataclass(frozen=True)
class Publication:
    """The refits of one study on their way into the registry."""

    config: FittedStudy
    patch_set: PatchSet
    run: Run
    """The study's run."""
    starts: Starts
    refits: Sequence[Refit]
    standing: Standing

    @cached_property
    def _denoisers(self) -> dict[str, NetworkDenoiser]:
        """The refits' networks, by name."""
        patch_size = self.patch_set.manifest.geometry.patch_size
        found: dict[str, NetworkDenoiser] = {}
        for refit in self.refits:
            config, weights = refit.result.config, refit.result.weights
            found[refit.name] = NetworkDenoiser(
                config.model,
                config.arguments,
                weights,
                name=refit.name,
                crop=config.crop_of(patch_size),
            )
        return found

    def compare(
        self,
        photos: Sequence[PairRecord],
        earlier_scenes: Collection[str] | None,
        progress: Callable[[int, int], None],
    ) -> Comparison:
        """Compare the refits with the baselines and the current alias holders."""
        return self.standing.compare(
            [Named(self._denoisers[refit.name], self._photos(refit)) for refit in self.refits],
            photos,
            self.patch_set.source,
            earlier_scenes=earlier_scenes,
            progress=progress,
        )

    def _photos(self, refit: Refit) -> TrainingPhotos | None:
        """The photos that a refit and the model it started from were trained on."""
        own = TrainingPhotos.of(self.patch_set.photos("train"))
        start = refit.result.config.start
        if start is None:
            return own
        return union_of([own, self.starts.of(start).card.photos])

    def register(self, comparison: Comparison) -> tuple[list[ModelVersion], list[Decision]]:
        """Register the refits that are best on the val split, by PSNR and by SSIM, or both ends of
        the front; move aliases as the gates allow. The others' models are in their runs alone.
        """
        tracker = self.standing.tracker
        chosen = {
            max(self.refits, key=lambda r: r.result.metrics[metric]).name
            for metric in ("val_psnr", "val_ssim")
        }
        if self.config.objective == "psnr+speed":
            chosen = {refit.name for refit in self.refits}
        candidates: list[Candidate] = []
        for refit in self.refits:
            card = self._card(refit, comparison)
            if refit.name in chosen:
                version = register(tracker, refit.run, refit.result.weights, card)
                candidates.append(Candidate(version, self._denoisers[refit.name]))
            else:
                log_model(refit.run, refit.result.weights, card)
        approval = tracker.config.promotion.approval
        decisions = self.standing.settle(candidates, comparison, parent=self.run, approval=approval)
        return [_with_aliases(one.version, decisions) for one in candidates], decisions

    def _card(self, refit: Refit, comparison: Comparison) -> ModelCard:
        scores = {PROTOCOL: comparison.scores_of(refit.name)}
        manifest = self.patch_set.manifest
        return model_card(refit.result, manifest, self._photos(refit), scores)


def _with_aliases(version: ModelVersion, decisions: Sequence[Decision]) -> ModelVersion:
    held = sorted(d.alias for d in decisions if d.version == version.version)
    return replace(version, aliases=tuple(held))
