"""Job entry point of `degrain explore`, for `ray job submit -- python pipelines/explore.py`."""

import sys

from degrain.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["explore", *sys.argv[1:]]))
