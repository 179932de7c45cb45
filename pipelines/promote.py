"""Job entry point of `degrain promote`, for `ray job submit -- python pipelines/promote.py`."""

import sys

from degrain.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["promote", *sys.argv[1:]]))
