"""`degrain rollback`: back to the champion before."""

from dataclasses import dataclass

from degrain.cli.console import Console
from degrain.cli.options import TrackingOptions


@dataclass(frozen=True, kw_only=True)
class Rollback(TrackingOptions):
    """Make the version that was champion before the champion again."""

    def run(self, console: Console) -> dict[str, object]:
        """Move the alias and record it."""
        from degrain.registry.aliases import rollback
        from degrain.storage.location import Storage
        from degrain.tracking.config import load_tracking_config
        from degrain.tracking.runs import Tracker

        tracking = load_tracking_config(self.mlflow)
        entry = rollback(Tracker.open(tracking, Storage.from_environment()))
        console.print(f"champion: version {entry.version} (before: {entry.before})")
        return {"champion": entry.version, "before": entry.before}


COMMAND = Rollback
