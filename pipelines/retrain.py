"""Ingest what is new and, if anything is, run a study and promote its model if it beats the champion.

Does nothing and ends with status 0 where nothing is new. With --schedule it stays and repeats.
"""

import argparse
import sys

from degrain import cli
from degrain.data.options import add_ingest_options, ingest_config
from degrain.locking import only_one
from degrain.retraining import check_schedule, retrain, wait_for
from degrain.storage import Storage
from degrain.tracking.config import load_tracking_config
from degrain.tracking.runs import Tracker
from degrain.tuning.options import add_study_options, fitted_to_cluster, study_config


def arguments() -> argparse.ArgumentParser:
    """The options."""
    made = cli.parser(__doc__)
    add_ingest_options(made)
    made.add_argument("--studies", default="runs/studies", metavar="URI", help="folder for checkpoints and tables")
    made.add_argument("--schedule", metavar="CRON", help="repeat at these times, e.g. '0 3 * * 1', local time")
    cli.add_tracking(made)
    add_study_options(made)
    return made


def main(options: argparse.Namespace, console: cli.Console) -> dict[str, object]:
    """Retrain once, or on schedule; gives the last outcome."""
    config, study = cli.checked(lambda: (ingest_config(options), study_config(options)))
    storage = Storage.from_environment()
    tracking = load_tracking_config(options.mlflow)
    out, studies = storage.locate(options.out), storage.locate(options.studies)
    for place in (out, studies):
        place.check_answers()
    if options.schedule:
        check_schedule(options.schedule)
    tracker = Tracker.open(tracking, storage)
    cli.start_ray(verbose=options.verbose)
    study = cli.checked(lambda: fitted_to_cluster(study, options))
    while True:
        if options.schedule:
            console.say(f"waiting for '{options.schedule}'")
            console.say(f"{wait_for(options.schedule):%Y-%m-%d %H:%M}: looking for new photos")
        with only_one(out / "retrain.lock", "retraining"):
            result = retrain(
                config,
                study,
                storage,
                tracker,
                folder=studies,
                say=console.say,
                progress=console.progress("ingest", "pairs"),
            )
        if result.study is not None:
            console.say(f"\n{result.study.comparison.to_markdown()}\n")
        console.say(f"{result.decision}: {result.reason}; the champion is version {result.champion}")
        if not options.schedule:
            return result.to_summary()


if __name__ == "__main__":
    sys.exit(cli.run(main, arguments()))
