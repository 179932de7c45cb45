"""Job entry point of `degrain rollback`, for `ray job submit -- python pipelines/rollback.py`."""

import sys

from degrain.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["rollback", *sys.argv[1:]]))
