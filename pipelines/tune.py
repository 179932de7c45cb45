"""Job entry point of `degrain tune`, for `ray job submit -- python pipelines/tune.py`."""

import sys

from degrain.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["tune", *sys.argv[1:]]))
