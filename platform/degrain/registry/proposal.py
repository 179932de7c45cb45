"""A model that a person puts forward: it is compared as a study's models are, registered, and takes
the aliases that the gates let it.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from degrain.errors import UserError
from degrain.evaluation.comparison import Comparison
from degrain.evaluation.photo_set import PhotoSet
from degrain.imaging.metrics import PROTOCOL
from degrain.inference.denoiser import NetworkDenoiser
from degrain.registry.card import ModelCard
from degrain.registry.resolver import Named, Resolver, folder_name
from degrain.registry.standing import Standing
from degrain.registry.versions import (
    ModelVersion,
    find_version,
    register,
    register_import,
    version_of_run,
)
from degrain.tracking.runs import Run, Tracker


@dataclass(frozen=True)
class Proposal:
    """The model, and where it is known already."""

    denoiser: NetworkDenoiser
    card: ModelCard
    version: ModelVersion | None
    """None: it is not registered yet."""
    run_id: str | None
    """The MLflow run that trained it; None for a folder."""

    @classmethod
    def find(cls, name: str, tracker: Tracker, models: Resolver) -> "Proposal":
        """Load a model by the number or URI of its version, runs:/ID, or a folder.

        Raises UserError if there is none.
        """
        version, run_id = find_registered(name, tracker), None
        if name.startswith("runs:/"):
            run_id = name.removeprefix("runs:/")
        denoiser, card = models.load(version.uri if version else name)
        shown = version.label if version else name if run_id else folder_name(name)
        # Its row stands beside the starter, filters and holders of aliases.
        denoiser.name = f"{shown} (proposed)"
        return cls(denoiser, card, version, run_id)

    def check_unseen(self, photos: PhotoSet) -> None:
        """Raise UserError, before anything is scored, if it was trained on one of the photos."""
        known = self.card.photos
        seen = [pair.id for pair in photos.pairs if known is not None and pair in known]
        if seen:
            raise UserError(
                f"the model was trained on {len(seen)} of the {len(photos.pairs)} {photos.title}, "
                f"e.g. {seen[0]}, so its scores there prove nothing; name a patch set with other "
                "test photos, or give a reason with `without_gates`"
            )

    def compare(
        self,
        photos: PhotoSet,
        standing: Standing,
        progress: Callable[[int, int], None],
    ) -> Comparison:
        """Score it beside the baselines and the holders. Needs a running Ray."""
        proposed = Named(self.denoiser, self.card.photos)
        return standing.compare([proposed], photos.pairs, photos.source, progress=progress)

    def register(self, tracker: Tracker, comparison: Comparison | None = None) -> ModelVersion:
        """Its version; a new one has the scores of the comparison, if there is one."""
        if self.version is not None:
            return self.version
        card, weights = self.card, self.denoiser.weights
        if comparison is not None:
            scores = {**card.scores, PROTOCOL: comparison.scores_of(self.denoiser.name)}
            card = replace(card, scores=scores)
        if self.run_id is None:
            return register_import(tracker, weights, card)
        return register(tracker, Run(tracker.client, self.run_id), weights, card)


def find_registered(name: str, tracker: Tracker) -> ModelVersion | None:
    """The version of the registered model that a number, models:/ or runs:/ URI names; None if it
    has none. Raises UserError for one that does not exist, or of another registered model.
    """
    model = tracker.config.model
    if name.isdigit():
        name = f"models:/{model}/{name}"
    if name.startswith("models:"):
        found = find_version(tracker.client, name)
        if found.name != model:
            raise UserError(
                f"'{name}' is a version of another registered model than '{model}', which has the "
                "champion; name its run, or the folder of its files"
            )
        return ModelVersion(model, str(found.version))
    if not name.startswith("runs:/"):
        return None
    return version_of_run(tracker.client, model, name.removeprefix("runs:/"))
