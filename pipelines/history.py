"""Job entry point of `degrain history`, for `ray job submit -- python pipelines/history.py`."""

import sys

from degrain.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["history", *sys.argv[1:]]))
