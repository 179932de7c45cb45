"""`degrain promote`: a version becomes champion by hand."""

from dataclasses import dataclass

from degrain.cli.console import Console
from degrain.cli.options import TrackingOptions
from degrain.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Promote(TrackingOptions):
    """Make a version the champion: the one that waits for approval, or another that passed the
    gates against the present champion.
    """

    version: str | None = None
    """Number of the version. None: the one that holds the alias `challenger`."""
    without_gates: str | None = None
    """Reason to promote a version that has not passed the gates; it is recorded. None: the gates
    count."""

    def __post_init__(self) -> None:
        if self.version is not None and not self.version.isdigit():
            raise UserError(f"`version` must be a number, got '{self.version}'")
        if self.without_gates is not None and not self.without_gates.strip():
            raise UserError("`without_gates` needs a reason, which is recorded")

    def run(self, console: Console) -> dict[str, object]:
        """Move the alias and record why."""
        from degrain.evaluation.aliases import promote
        from degrain.storage.location import Storage
        from degrain.tracking.config import load_tracking_config
        from degrain.tracking.runs import Tracker

        tracking = load_tracking_config(self.mlflow)
        tracker = Tracker.open(tracking, Storage.from_environment())
        entry = promote(tracker, self.version, override=self.without_gates)
        console.print(f"champion: version {entry.version} (before: {entry.before})")
        return {"champion": entry.version, "before": entry.before, "reason": entry.reason}


COMMAND = Promote
