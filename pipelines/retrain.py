"""Ingest what is new and, if anything is, run a study and promote its model if it beats the champion.

Does nothing and ends with status 0 where nothing is new. With --schedule it stays and repeats.
"""

import argparse
import sys

import ray

from degrain import cli
from degrain.data.options import add_ingest_options, ingest_config
from degrain.locking import only_one
from degrain.retraining import Retrained, check_schedule, retrain, wait_for
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
    """Retrain once and give the outcome, or on schedule until interrupted."""
    config, study = cli.checked(lambda: (ingest_config(options), study_config(options)), options)
    storage = Storage.from_environment()
    tracking = load_tracking_config(options.mlflow)
    out, studies = storage.locate(options.out), storage.locate(options.studies)
    for place in (out, studies):
        place.check_writable()
    if options.schedule:
        check_schedule(options.schedule)
    tracker = Tracker.open(tracking, storage)

    def once() -> Retrained:
        cli.start_ray(verbose=options.verbose)
        fitted = cli.checked(lambda: fitted_to_cluster(study, options), options)
        with only_one(out / "retrain.lock", "retraining"):
            result = retrain(config, fitted, storage, tracker, folder=studies, say=console.say, progress=console.progress)
        if result.study is not None:
            console.say(f"\n{result.study.comparison.to_markdown()}\n")
        console.say(f"{result.decision}: {result.reason}; the champion is version {result.champion}")
        return result

    if not options.schedule:
        return once().to_summary()
    while True:
        console.say(f"waiting for '{options.schedule}'")
        console.say(f"{wait_for(options.schedule):%Y-%m-%d %H:%M}: looking for new photos")
        try:
            once()
        except Exception as error:  # noqa: BLE001 - the next time may go well: the disk freed, the server back
            cli.complain(error)
        finally:
            # A cluster of this machine would hold its memory until the next time.
            ray.shutdown()


if __name__ == "__main__":
    sys.exit(cli.run(main, arguments()))
