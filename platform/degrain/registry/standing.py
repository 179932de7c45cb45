"""The versions that hold aliases now: new models are compared with them, on the same photos as the
baselines, and take their aliases where the gates let them.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from degrain.corpora.record import PairRecord
from degrain.errors import UserError
from degrain.evaluation.comparison import Comparison, compare
from degrain.inference.denoiser import NetworkDenoiser
from degrain.patchsets.photos import PhotoSource
from degrain.registry.aliases import publish
from degrain.registry.fresh_process import check_in_fresh_process
from degrain.registry.promotion import ALIASES, Decision, Entrants, champion_of, decide, with_check
from degrain.registry.resolver import Named, find_baselines
from degrain.registry.versions import ModelVersion, alias_holders, load_registered
from degrain.storage.location import Storage
from degrain.tracking.runs import Run, Tracker


@dataclass(frozen=True)
class Candidate:
    """A new version that may take aliases."""

    version: ModelVersion
    denoiser: NetworkDenoiser
    """Named as its row in the comparison."""


@dataclass(frozen=True)
class Standing:
    """The holders of aliases, and the baselines."""

    tracker: Tracker
    holders: Mapping[str, ModelVersion]
    """Alias to version."""
    rows: Mapping[ModelVersion, Named]
    """The holders whose files can be read, by number; rows are named by the versions' labels."""
    lost: Sequence[str]
    """Why the other holders cannot be read, a line each."""
    baselines: Sequence[Named]

    @classmethod
    def now(
        cls, tracker: Tracker, storage: Storage, holders: Mapping[str, ModelVersion] | None = None
    ) -> "Standing":
        """Load the versions that hold ALIASES, or those that are named, and the baselines.

        Raises UserError if mlflow.yaml names a baseline that there is not.
        """
        baselines = find_baselines(tracker.config.promotion.must_beat, storage)
        present = current_holders(tracker) if holders is None else holders
        rows: dict[ModelVersion, Named] = {}
        lost: list[str] = []
        for version in sorted(set(present.values()), key=lambda v: int(v.version)):
            try:
                denoiser, card = load_registered(tracker.client, version.uri)
            except UserError as error:
                lost.append(f"{version.label} is not compared: {error}")
            else:
                rows[version] = Named(denoiser, card.photos)
        return cls(tracker, present, rows, lost, baselines)

    def without(self, version: ModelVersion | None) -> "Standing":
        """The others, where a version that holds aliases competes for them again.

        Raises UserError for the champion, which has nothing to win.
        """
        if version is not None and version == self.holders.get("champion"):
            raise UserError(f"version {version.version} is the champion already")
        return replace(
            self,
            holders={alias: held for alias, held in self.holders.items() if held != version},
            rows={held: row for held, row in self.rows.items() if held != version},
        )

    def compare(
        self,
        candidates: Sequence[Named],
        photos: Sequence[PairRecord],
        source: PhotoSource,
        *,
        earlier_scenes: Collection[str] | None = None,
        progress: Callable[[int, int], None] = lambda _done, _all: None,
    ) -> Comparison:
        """Score the baselines, the candidates and the holders, see `comparison.compare`."""
        everyone = [*self.baselines, *candidates, *self.rows.values()]
        return compare(
            [one.denoiser for one in everyone],
            photos,
            source,
            trained_on={one.denoiser.name: one.photos for one in everyone},
            earlier_scenes=earlier_scenes,
            progress=progress,
        )

    def settle(
        self,
        candidates: Sequence[Candidate],
        comparison: Comparison,
        *,
        parent: Run | None = None,
        approval: bool = False,
    ) -> list[Decision]:
        """Decide the aliases, move them and record the decision, see `aliases.publish`."""
        config, champion_now = self.tracker.config, self.holders.get("champion")
        before = champion_now.version if champion_now else None
        by_number = {one.version.version: one for one in candidates}
        entrants = Entrants(
            candidates={number: one.denoiser.name for number, one in by_number.items()},
            holders={alias: version.version for alias, version in self.holders.items()},
            names={version.version: version.label for version in self.rows},
        )
        decisions = decide(comparison.evaluation, entrants, config)
        champion = champion_of(decisions)
        if champion.moved and champion.version is not None:
            best = by_number[champion.version]
            photo = comparison.examples[0].noisy
            check = check_in_fresh_process(best.version.uri, best.denoiser, photo, config)
            checked = with_check(champion, check, before)
            decisions = [checked if d is champion else d for d in decisions]
        return publish(
            self.tracker,
            decisions,
            comparison.evaluation,
            before=before,
            parent=parent,
            approval=approval,
        )


def current_holders(tracker: Tracker) -> dict[str, ModelVersion]:
    """The versions that hold ALIASES, by alias."""
    held = alias_holders(tracker.client, tracker.config.model)
    return {alias: held[alias] for alias in ALIASES if alias in held}
