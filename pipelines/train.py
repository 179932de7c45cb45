"""Job entry point of `degrain train`, for `ray job submit -- python pipelines/train.py`."""

import sys

from degrain.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
