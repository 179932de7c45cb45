"""Job entry point of `degrain runs`, for `ray job submit -- python pipelines/runs.py`."""

import sys

from degrain.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["runs", *sys.argv[1:]]))
