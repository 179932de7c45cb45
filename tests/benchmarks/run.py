"""Run benchmarks and print their results as Markdown tables for docs/performance.md.

    python tests/benchmarks/run.py                           # all; `make bench`
    python tests/benchmarks/run.py cli inference             # some
    python tests/benchmarks/run.py networks --device cuda    # needs PyTorch and NumPy only
    python tests/benchmarks/run.py planning study metrics    # docs/scale.md; an hour, named only
    python tests/benchmarks/run.py serving sharing           # forty minutes, named only
    python tests/benchmarks/run.py memory promotions pairs   # fifteen minutes, named only
    python tests/benchmarks/run.py --quick                   # smallest sizes: do they run?

Each benchmark is a module of this folder with a function `run(settings) -> list[Table]`.
"""

import argparse
import importlib
import os
import sys
from pathlib import Path

from table import Settings, print_tables

BENCHMARKS = (
    "cli",
    "networks",
    "reading",
    "inference",
    "bulk",
    "loader",
    "training",
    "trials",
    "ingest",
    "search",
)
SCALE = ("planning", "study", "metrics", "memory", "promotions", "pairs", "serving", "sharing")
"""Take long, and are run if they are named."""
KNOWN = (*BENCHMARKS, *SCALE)


def main() -> int:
    """Run the named benchmarks one after another."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("names", nargs="*", metavar="NAME", help=", ".join(KNOWN))
    options.add_argument("--quick", action="store_true", help="smallest sizes, no measurement")
    options.add_argument("--device", default="cpu", help="device of the networks (default: cpu)")
    options.add_argument("--models", nargs="+", default=(), help="networks (default: all)")
    options.add_argument("--pixels", type=int, help="pixels of a training batch")
    chosen = options.parse_args()
    for name in chosen.names:
        if name not in KNOWN:
            options.error(f"unknown benchmark '{name}'. Known: {', '.join(KNOWN)}")
    # A checkout where nothing is installed works too, also in subprocesses.
    root = Path(__file__).parents[2]
    sys.path[:0] = roots = [
        str(root / name) for name in ("platform", "models", "tests", "infra/ray")
    ]
    inherited = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    os.environ["PYTHONPATH"] = os.pathsep.join([*roots, *filter(None, inherited)])
    settings = Settings(
        quick=chosen.quick,
        device=chosen.device,
        models=tuple(chosen.models),
        pixels=chosen.pixels,
    )
    for name in chosen.names or BENCHMARKS:
        print(f"\n## {name}", flush=True)
        print_tables(importlib.import_module(name).run(settings))
    return 0


if __name__ == "__main__":
    sys.exit(main())
