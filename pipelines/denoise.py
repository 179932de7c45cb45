"""Job entry point of `degrain denoise`, for `ray job submit -- python pipelines/denoise.py`."""

import sys

from degrain.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["denoise", *sys.argv[1:]]))
