"""Look at a patch set: one HTML page with the figures of its photos, noise, alignment, refused pairs and splits."""

import argparse
import sys

from degrain import cli
from degrain.data.explore.facts import gather, gather_refused
from degrain.data.explore.page import write_report
from degrain.data.patches import PatchSet
from degrain.data.spread import spread
from degrain.storage import Storage
from degrain.tracking.config import load_tracking_config
from degrain.tracking.runs import Tracker

SHOWN_REFUSED = 60


def arguments() -> argparse.ArgumentParser:
    """The options."""
    made = cli.parser(__doc__)
    made.add_argument("--data", required=True, metavar="URI", help="patch set")
    made.add_argument("--out", required=True, metavar="URI", help="folder that the page and its figures go into")
    made.add_argument("--photos", type=int, default=400, help="pairs whose pixels are looked at, at most")
    cli.add_tracking(made)
    return made


def main(options: argparse.Namespace, console: cli.Console) -> dict[str, object]:
    """Gather facts, write the page, and log it to MLflow."""
    cli.checked(lambda: check_photos(options.photos), options)
    storage = Storage.from_environment()
    tracking = load_tracking_config(options.mlflow)
    patch_set = PatchSet.open(options.data, storage)
    out = storage.locate(options.out)
    out.check_writable()
    used = [row for row in patch_set.catalog if row.refused is None]
    refused = [row for row in patch_set.catalog if row.refused is not None]
    chosen = [used[i] for i in spread(len(used), options.photos)]
    patch_set.source.check(chosen)
    tracker = Tracker.open(tracking, storage)
    cli.start_ray(verbose=options.verbose)
    facts = gather(chosen, patch_set.source, console.progress("explore", "pairs"))
    report = write_report(patch_set, facts, gather_refused(refused[:SHOWN_REFUSED], patch_set.source))
    files = {f"{name}.png": content for name, content in report.figures.items()} | {"report.html": report.html()}
    for name, content in files.items():
        (out / name).write_bytes(content)
    version = patch_set.manifest.version
    with tracker.run(f"explore-{version}", "exploration", tags={"patch_set": version}) as run:
        run.files(files, "report")
    console.say(f"looked at {len(facts)} pairs; {len(refused)} were refused")
    console.say(f"page:  {out / 'report.html'}")
    return {
        "uri": patch_set.uri,
        "version": version,
        "pairs": len(patch_set.catalog),
        "refused": len(refused),
        "examined": len(facts),
        "page": str(out / "report.html"),
        "run_id": run.id,
    }


def check_photos(photos: int) -> None:
    """Raise ValueError unless at least one pair is to be looked at."""
    if photos < 1:
        raise ValueError(f"photos must be at least 1, got {photos}")


if __name__ == "__main__":
    sys.exit(cli.run(main, arguments()))
