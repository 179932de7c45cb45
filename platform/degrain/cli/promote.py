"""`degrain promote`: a model that a person puts forward becomes the champion."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated

import tyro

from degrain.cli.console import Console
from degrain.cli.execution import PartialFailureError
from degrain.cli.options import TrackingOptions
from degrain.errors import UserError
from degrain.fields import check_minimum

if TYPE_CHECKING:
    from degrain.registry.proposal import Proposal
    from degrain.storage.location import Storage
    from degrain.tracking.runs import Tracker


@dataclass(frozen=True, kw_only=True)
class Promote(TrackingOptions):
    """Make a model the champion: the version that waits for approval, one that passed the gates
    against the present champion, or, with a patch set, any model that passes them now.
    """

    model: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")] = None
    """Number of a version, models:/NAME/VERSION, runs:/ID of a training, or a folder with a model.
    None: the version that holds the alias `challenger`."""
    data: str | None = None
    """Patch set whose whole test photos decide: the model is compared on them with the champion,
    registered if it is not, and promoted if it passes the gates. None: an earlier comparison
    counts."""
    test_photos: int = 40
    """Most test photos, evenly spaced over the split."""
    without_gates: str | None = None
    """Reason to promote a model that has not passed the gates; it is recorded. None: the gates
    count."""

    def __post_init__(self) -> None:
        check_minimum(self, 1, "test_photos")
        if self.without_gates is not None and not self.without_gates.strip():
            raise UserError("`without_gates` needs a reason, which is recorded")
        if self.data is not None and self.without_gates is not None:
            raise UserError(
                "`data` asks for the gates, which `without_gates` leaves out; leave one of them out"
            )
        if self.data is not None and self.model is None:
            raise UserError("name the model that is to be compared on the photos of `data`")

    def run(self, console: Console) -> dict[str, object]:
        """Move the alias and record why."""
        from degrain.registry.proposal import Proposal, find_registered
        from degrain.registry.resolver import Resolver
        from degrain.storage.location import Storage
        from degrain.tracking.config import load_tracking_config
        from degrain.tracking.runs import Tracker

        tracking, storage = load_tracking_config(self.mlflow), Storage.from_environment()
        tracker = Tracker.open(tracking, storage)
        if self.model is None:
            return self._approve(None, tracker, console)
        known = find_registered(self.model, tracker)
        if self.data is None and known is not None:
            return self._approve(known.version, tracker, console)
        if self.data is None and self.without_gates is None:
            raise UserError(
                f"'{self.model}' was never compared with the champion; name a patch set with "
                "`data` to compare them now, or give a reason with `without_gates`"
            )
        proposal = Proposal.find(self.model, tracker, Resolver(self.mlflow, storage))
        if self.data is None:
            return self._approve(proposal.register(tracker).version, tracker, console)
        return self._at_the_gates(proposal, self.data, tracker, storage, console)

    def _approve(
        self, version: str | None, tracker: "Tracker", console: Console
    ) -> dict[str, object]:
        """Promote a version without comparing it."""
        from degrain.registry.aliases import promote

        entry = promote(tracker, version, override=self.without_gates)
        console.print(f"champion: version {entry.version} (before: {entry.before})")
        return {"champion": entry.version, "before": entry.before, "reason": entry.reason}

    def _at_the_gates(
        self,
        proposal: "Proposal",
        data: str,
        tracker: "Tracker",
        storage: "Storage",
        console: Console,
    ) -> dict[str, object]:
        """Compare the model with the champion, and promote it if it passes the gates.

        Raises PartialFailureError if it does not pass them.
        """
        from degrain.cluster import start_ray
        from degrain.evaluation.photo_set import split_photos
        from degrain.patchsets.patch_set import PatchSet
        from degrain.registry.gates import describe_rule
        from degrain.registry.promotion import champion_of
        from degrain.registry.standing import Candidate, Standing

        standing = Standing.now(tracker, storage).without(proposal.version)
        photos = split_photos(PatchSet.open(data, storage), "test", self.test_photos)
        proposal.check_unseen(photos)
        scenes = len({pair.scene for pair in photos.pairs})
        for line in (f"gates: {describe_rule(scenes, tracker.config)}", *standing.lost):
            console.print(line)
        start_ray()
        progress = console.progress("compare", "photos")
        comparison = proposal.compare(photos, standing, progress)
        console.print(comparison.to_markdown())
        version = proposal.register(tracker, comparison)
        candidate = Candidate(version, proposal.denoiser)
        decisions = standing.settle([candidate], comparison)
        champion = champion_of(decisions)
        summary: dict[str, object] = {
            "version": version.version,
            "champion": champion.version,
            "comparison": [row.to_dict() for row in comparison.rows],
            "decisions": [asdict(decision) for decision in decisions],
        }
        if champion.version != version.version:
            raise PartialFailureError(
                f"the champion stays, {champion.reason}. Use {version.uri} all the same, ingest "
                "more test scenes for a clearer comparison, or give a reason with `without_gates`",
                summary,
            )
        console.print(f"champion: version {version.version}, {champion.reason}")
        return summary


COMMAND = Promote
