"""The options of an ingest, shared by `ingest.py` and `retrain.py`."""

import argparse

from degrain import cli
from degrain.data.corpora import ADAPTERS, CorpusOptions
from degrain.data.ingest import IngestConfig
from degrain.data.patches import PatchGeometry


def add_ingest_options(made: argparse.ArgumentParser) -> None:
    """Add the options that make an IngestConfig."""
    geometry, options = PatchGeometry(), CorpusOptions()
    add = made.add_argument
    known = ", ".join(sorted(ADAPTERS))
    add(
        "--corpus",
        action="append",
        required=True,
        metavar="NAME=URI",
        help=f"a corpus and its folder, on disk or s3://; may be repeated; known: {known}",
    )
    add("--out", required=True, metavar="URI", help="folder that patch sets go into")
    add("--patch-size", type=int, default=geometry.patch_size, help="side of a patch, pixels")
    add("--stride", type=int, help="distance between patches, pixels (default: the patch size)")
    add("--noisy-name", default=options.noisy_name, help="how a pairs corpus names noisy photos")
    add("--clean-name", default=options.clean_name, help="how it names the clean ones")
    add("--max-refused", type=float, default=0.05, help="share of refused pairs above which the job fails")
    add("--val-scenes", type=cli.names, default="", help="scenes for the val split (default: by hash)")
    add("--test-scenes", type=cli.names, default="", help="scenes for the test split (default: by hash)")


def ingest_config(options: argparse.Namespace) -> IngestConfig:
    """The ingest that the options describe. Raises ValueError for what cannot be."""
    stride = options.patch_size if options.stride is None else options.stride
    return IngestConfig(
        corpora=options.corpus,
        out=options.out,
        geometry=PatchGeometry(patch_size=options.patch_size, stride=stride),
        options=CorpusOptions(noisy_name=options.noisy_name, clean_name=options.clean_name),
        max_refused=options.max_refused,
        val_scenes=options.val_scenes,
        test_scenes=options.test_scenes,
    )
