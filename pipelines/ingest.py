"""Cut a corpus of paired noisy and clean photos into a patch set."""

import argparse
import sys

from degrain import cli
from degrain.data.ingest import ingest
from degrain.data.options import add_ingest_options, ingest_config
from degrain.storage import Storage


def arguments() -> argparse.ArgumentParser:
    """The options."""
    made = cli.parser(__doc__)
    add_ingest_options(made)
    return made


def main(options: argparse.Namespace, console: cli.Console) -> dict[str, object]:
    """Ingest and print what was found."""
    config = cli.checked(lambda: ingest_config(options), options)
    storage = Storage.from_environment()
    done = ingest(
        config,
        storage,
        start_ray=lambda: cli.start_ray(verbose=options.verbose),
        progress=console.progress("ingest", "pairs"),
    )
    manifest = done.patch_set.manifest
    for row in done.patch_set.catalog:
        if row.refused:
            console.say(f"refused: {row.refused}")
    if done.unplaced:
        console.say(f"not placed: {len(done.unplaced)} photos that belong to no pair, e.g. {done.unplaced[0]}")
    for split in ("train", "val", "test"):
        rows = done.patch_set.photos(split)
        scenes = len({row.scene for row in rows})
        of = f"{len(rows)} pairs of {scenes} scene{'' if scenes == 1 else 's'}"
        console.say(f"{split + ':':6} {of}, {manifest.patches(split)} patches")
    state = "was there already" if done.reused else f"made in {done.seconds:.1f} s"
    console.say(f"patch set {done.patch_set.uri}: {manifest.pairs} pairs, {manifest.refused} refused, {state}")
    return {
        "uri": done.patch_set.uri,
        "version": manifest.version,
        "pairs": manifest.pairs,
        "refused": manifest.refused,
        "unplaced": len(done.unplaced),
        "patches": manifest.patches(),
        "reused": done.reused,
        "seconds": done.seconds,
    }


if __name__ == "__main__":
    sys.exit(cli.run(main, arguments()))
