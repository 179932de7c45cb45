"""Job entry point of `degrain retrain`, for `ray job submit -- python pipelines/retrain.py`."""

import sys

from degrain.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["retrain", *sys.argv[1:]]))
