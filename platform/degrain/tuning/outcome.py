"""What becomes of a study's refits: compared, registered, and promoted where the gates let them."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from degrain.corpora.record import PairRecord
from degrain.errors import UserError
from degrain.evaluation.aliases import publish
from degrain.evaluation.comparison import Comparison, compare
from degrain.evaluation.denoisers import find_baselines
from degrain.evaluation.fresh_process import check_in_fresh_process
from degrain.evaluation.promotion import ALIASES, Decision, Entrants, decide, with_check
from degrain.imaging.metrics import PROTOCOL
from degrain.inference.denoiser import Denoiser, NetworkDenoiser
from degrain.patchsets.patch_set import PatchSet
from degrain.tracking.card import ModelCard
from degrain.tracking.registry import (
    ModelVersion,
    alias_holders,
    load_registered,
    log_model,
    register,
)
from degrain.tracking.runs import Run, Tracker
from degrain.tracking.training_photos import TrainingPhotos, union_of
from degrain.training.distributed.result import model_card
from degrain.tuning.config import StudyConfig
from degrain.tuning.result import Refit
from degrain.tuning.starts import Starts


def load_holders(
    tracker: Tracker, versions: Iterable[ModelVersion]
) -> tuple[dict[ModelVersion, tuple[NetworkDenoiser, ModelCard]], list[str]]:
    """Load versions, by number; also returns why some cannot be read, a line each."""
    readable: dict[ModelVersion, tuple[NetworkDenoiser, ModelCard]] = {}
    problems: list[str] = []
    for version in sorted(set(versions), key=lambda v: int(v.version)):
        try:
            readable[version] = load_registered(tracker.client, version.uri)
        except UserError as error:
            problems.append(f"{version.label} is not compared: {error}")
    return readable, problems


@dataclass(frozen=True)
class Outcome:
    """The refits of one study, and the registry that they are to enter."""

    config: StudyConfig
    patch_set: PatchSet
    tracker: Tracker
    run: Run
    """The study's run."""
    starts: Starts
    refits: Sequence[Refit]
    present: Mapping[str, ModelVersion]
    """Versions that hold aliases, by alias."""
    readable: Mapping[ModelVersion, tuple[NetworkDenoiser, ModelCard]]
    """Those of them whose files are there, by number."""

    @classmethod
    def of(
        cls,
        config: StudyConfig,
        patch_set: PatchSet,
        tracker: Tracker,
        run: Run,
        starts: Starts,
        refits: Sequence[Refit],
        before: Mapping[str, str],
    ) -> "Outcome":
        """The outcome of a study, with the aliases as they are without it.

        `before` has the versions that held them before the study moved any.
        """
        held = alias_holders(tracker.client, tracker.config.model)
        present = {alias: held[alias] for alias in ALIASES if alias in held}
        own = {refit.run.id for refit in refits}
        for alias, version in list(present.items()):
            found = tracker.client.get_model_version(version.name, version.version)
            if found.run_id not in own:
                continue
            # An earlier process of this study moved the alias before it was interrupted.
            del present[alias]
            if alias in before:
                present[alias] = ModelVersion(version.name, before[alias])
        readable, _ = load_holders(tracker, present.values())
        return cls(config, patch_set, tracker, run, starts, refits, present, readable)

    def compare(
        self,
        photos: Sequence[PairRecord],
        earlier_scenes: Collection[str] | None,
        progress: Callable[[int, int], None],
    ) -> Comparison:
        """Compare the refits with the baselines, the starter and the current alias holders, whose
        rows are named by their labels.
        """
        baselines = find_baselines(
            self.tracker.config.promotion.must_beat, self.patch_set.root.storage
        )
        denoisers: list[Denoiser] = [one.denoiser for one in baselines]
        trained_on = {one.denoiser.name: one.photos for one in baselines}
        for refit in self.refits:
            denoisers.append(self._denoiser(refit))
            trained_on[refit.name] = self._photos(refit)
        for version, (denoiser, card) in self.readable.items():
            denoisers.append(denoiser)
            trained_on[version.label] = card.photos
        source = self.patch_set.source
        return compare(
            denoisers,
            photos,
            source,
            trained_on=trained_on,
            earlier_scenes=earlier_scenes,
            progress=progress,
        )

    def _denoiser(self, refit: Refit) -> NetworkDenoiser:
        config = refit.result.config
        crop = config.crop_of(self.patch_set.manifest.geometry.patch_size)
        weights = refit.result.weights
        return NetworkDenoiser(config.model, config.arguments, weights, name=refit.name, crop=crop)

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
        chosen = {
            max(self.refits, key=lambda r: r.result.metrics[metric]).name
            for metric in ("val_psnr", "val_ssim")
        }
        if self.config.objective == "psnr+speed":
            chosen = {refit.name for refit in self.refits}
        versions: dict[str, ModelVersion] = {}
        for refit in self.refits:
            card = self._card(refit, comparison)
            if refit.name in chosen:
                weights = refit.result.weights
                versions[refit.name] = register(self.tracker, refit.run, weights, card)
            else:
                log_model(refit.run, refit.result.weights, card)
        decisions = self._decide(versions, comparison)
        held = {
            v.version: tuple(sorted(d.alias for d in decisions if d.version == v.version))
            for v in versions.values()
        }
        registered = [replace(v, aliases=held[v.version]) for v in versions.values()]
        return registered, decisions

    def _card(self, refit: Refit, comparison: Comparison) -> ModelCard:
        test = comparison.row(refit.name).score
        scores = {"psnr": test.psnr, "ssim": test.ssim, "photos": len(comparison.photos)}
        return model_card(
            refit.result, self.patch_set.manifest, self._photos(refit), {PROTOCOL: scores}
        )

    def _decide(
        self, versions: Mapping[str, ModelVersion], comparison: Comparison
    ) -> list[Decision]:
        """Decide the aliases and move them."""
        entrants = Entrants(
            candidates={v.version: name for name, v in versions.items()},
            holders={alias: v.version for alias, v in self.present.items()},
            names={v.version: v.label for v in self.readable},
        )
        evaluation, config = comparison.evaluation, self.tracker.config
        decisions = decide(evaluation, entrants, config)
        champion = decisions[-1]
        if champion.moved and champion.version is not None:
            name = entrants.candidates[champion.version]
            refit = next(r for r in self.refits if r.name == name)
            check = check_in_fresh_process(
                versions[name].uri, self._denoiser(refit), comparison.examples[0].noisy, config
            )
            before = entrants.holder("champion")
            decisions[-1] = with_check(champion, check, before)
        return publish(
            self.tracker,
            decisions,
            evaluation,
            before=entrants.holder("champion"),
            parent=self.run,
            approval=config.promotion.approval,
        )
