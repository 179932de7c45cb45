"""Job entry point of `degrain ingest`, for `ray job submit -- python pipelines/ingest.py`."""

import sys

from degrain.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["ingest", *sys.argv[1:]]))
