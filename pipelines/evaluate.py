"""Job entry point of `degrain evaluate`, for `ray job submit -- python pipelines/evaluate.py`."""

import sys

from degrain.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
