"""Job entry point of `degrain import`: `ray job submit -- python pipelines/import_weights.py`."""

import sys

from degrain.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["import", *sys.argv[1:]]))
