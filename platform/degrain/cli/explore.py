"""`degrain explore`: the exploratory page of a patch set."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from degrain.cli.console import Console
from degrain.cli.options import TrackingOptions
from degrain.fields import check_minimum

if TYPE_CHECKING:
    from collections.abc import Sequence

    from degrain.corpora.record import PairRecord

PAGE = "exploration.html"
SHOWN_REFUSED = 60
"""Refused pairs whose thumbnails the page has, at most."""


@dataclass(frozen=True, kw_only=True)
class Explore(TrackingOptions):
    """Write one HTML page with the figures of a patch set: its photos, noise, alignment, refused
    pairs and splits. The page is logged to MLflow too.
    """

    data: str
    """Patch set: a folder or s3:// URI."""
    out: str
    """Folder or s3:// URI for the page and its figures."""
    photos: int = 400
    """Pairs whose pixels are read, at most; evenly spaced over the catalog."""

    def __post_init__(self) -> None:
        check_minimum(self, 1, "photos")

    def run(self, console: Console) -> dict[str, object]:
        """Gather facts, write the page, and log it to MLflow."""
        from degrain.cluster import start_ray
        from degrain.patchsets.patch_set import PatchSet
        from degrain.report.facts import gather, gather_refused
        from degrain.report.page import write_report
        from degrain.tracking.runs import Tracker

        out, tracking = self.open_output(self.out)
        patch_set = PatchSet.open(self.data, out.storage)
        refused = [row for row in patch_set.catalog if row.refused is not None]
        chosen = _choose(patch_set.catalog, self.photos)
        patch_set.source.check(chosen)
        tracker = Tracker.open(tracking, out.storage)
        start_ray()
        facts = gather(chosen, patch_set.source, console.progress("explore", "pairs"))
        shown = gather_refused(refused[:SHOWN_REFUSED], patch_set.source)
        report = write_report(patch_set, facts, shown)
        files = report.files(PAGE)
        for name, content in files.items():
            (out / name).write_bytes(content)
        version = patch_set.manifest.version
        with tracker.run(f"explore-{version}", "exploration", tags={"patch_set": version}) as run:
            run.files(files, "report")
        console.print(f"read {len(facts)} pairs; {len(refused)} were refused")
        console.print(f"page:  {out / PAGE}")
        return {
            "uri": patch_set.uri,
            "version": version,
            "pairs": len(patch_set.catalog),
            "refused": len(refused),
            "examined": len(facts),
            "page": str(out / PAGE),
            "run_id": run.id,
        }


def _choose(catalog: "Sequence[PairRecord]", photos: int) -> "list[PairRecord]":
    """At most `photos` of the pairs that were not refused and have clean photos, evenly
    spaced.
    """
    from degrain.spacing import evenly_spaced

    used = [row for row in catalog if row.refused is None and not row.unpaired]
    return [used[i] for i in evenly_spaced(len(used), photos)]


COMMAND = Explore
