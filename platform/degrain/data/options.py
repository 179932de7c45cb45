"""The options of an ingest, shared by `ingest.py` and `retrain.py`."""

import argparse

from degrain import cli
from degrain.data.checks import ALIGNMENTS, CheckRules
from degrain.data.corpora import ADAPTERS, CorpusOptions
from degrain.data.ingest import IngestConfig
from degrain.data.patches import PatchGeometry
from degrain.imaging.codecs import PROFILES


def add_ingest_options(made: argparse.ArgumentParser) -> None:
    """Add the options that make an IngestConfig."""
    geometry, options, rules = PatchGeometry(), CorpusOptions(), CheckRules()
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
    add("--noisy-name", default=options.noisy_name, help="how a pairs corpus names noisy photos: template or regex:...")
    add("--clean-name", default=options.clean_name, help="how it names the clean ones")
    add("--noise", default=options.noise, help="noise for a corpus of clean photos, see docs/patch-sets.md")
    add("--alignment", choices=ALIGNMENTS, default=rules.alignment, help="what becomes of shifted pairs")
    add("--max-shift", type=float, default=rules.max_shift, help="shift above which a pair is misaligned, pixels")
    add("--max-exposure", type=float, default=rules.max_exposure, help="ratio of mean brightness that is refused above")
    add("--max-clipped", type=float, default=rules.max_clipped, help="share of black and white that is refused above")
    add("--largest-megapixels", type=float, default=rules.largest_megapixels, help="larger photos are refused")
    add("--profiles", choices=PROFILES, default=rules.profiles, help="whether colour profiles become sRGB")
    add("--max-refused", type=float, default=0.05, help="share of refused pairs above which the job fails")
    add("--reread", action="store_true", help="read all photos again, even those of unchanged size and time")
    add("--val-scenes", type=cli.names, default="", help="scenes for the val split (default: by hash)")
    add("--test-scenes", type=cli.names, default="", help="scenes for the test split (default: by hash)")


def ingest_config(options: argparse.Namespace) -> IngestConfig:
    """The ingest that the options describe. Raises ValueError for what cannot be."""
    stride = options.patch_size if options.stride is None else options.stride
    return IngestConfig(
        corpora=options.corpus,
        out=options.out,
        geometry=PatchGeometry(patch_size=options.patch_size, stride=stride),
        rules=CheckRules(
            alignment=options.alignment,
            max_shift=options.max_shift,
            max_exposure=options.max_exposure,
            max_clipped=options.max_clipped,
            largest_megapixels=options.largest_megapixels,
            profiles=options.profiles,
        ),
        options=CorpusOptions(noisy_name=options.noisy_name, clean_name=options.clean_name, noise=options.noise),
        max_refused=options.max_refused,
        val_scenes=options.val_scenes,
        test_scenes=options.test_scenes,
        reread=options.reread,
    )
