"""Job entry point of `degrain export`, for `ray job submit -- python pipelines/export.py`."""

import sys

from degrain.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["export", *sys.argv[1:]]))
