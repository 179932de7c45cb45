"""`degrain history`: the decisions on the champion."""

import time
from dataclasses import asdict, dataclass

from degrain.cli.console import Console
from degrain.cli.options import TrackingOptions
from degrain.fields import check_minimum


@dataclass(frozen=True, kw_only=True)
class History(TrackingOptions):
    """List the decisions on the champion, newest first, with their reasons."""

    most: int = 20
    """Decisions that are listed, at most."""

    def __post_init__(self) -> None:
        check_minimum(self, 1, "most")

    def run(self, console: Console) -> dict[str, object]:
        """Print a line for each decision."""
        from degrain.registry.aliases import history
        from degrain.storage.location import Storage
        from degrain.tracking.config import load_tracking_config
        from degrain.tracking.runs import Tracker

        tracking = load_tracking_config(self.mlflow)
        entries = history(Tracker.open(tracking, Storage.from_environment()), self.most)
        for entry in entries:
            when = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.time))
            versions = f"{entry.before} -> {entry.version}"
            console.print(f"{when}  {entry.action:<18}  {versions:<12}  {entry.reason}")
        if not entries:
            console.print(f"no decision on '{tracking.model}' yet; run `degrain tune`")
        return {"decisions": [asdict(entry) for entry in entries]}


COMMAND = History
