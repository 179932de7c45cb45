"""Job entry point of `degrain serve`, for `ray job submit -- python pipelines/serve.py`."""

import sys

from degrain.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["serve", *sys.argv[1:]]))
