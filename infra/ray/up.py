"""Start or end a Ray head and an MLflow server on this machine (`make up`, `make down`)."""

import argparse
import sys
from pathlib import Path

from cluster import FOLDER, ROOT, ClusterError, down, up


def port(text: str) -> int:
    """Parse a TCP port."""
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"'{text}' is not a port; name a number from 1 to 65535")
    return int(text)


def main() -> int:
    """Start or end the cluster and print the next commands."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("action", choices=["up", "down"])
    parser.add_argument("--folder", type=Path, default=FOLDER, help="folder of logs and state")
    parser.add_argument(
        "--dashboard-port", type=port, default=8265, help="port of Ray's dashboard and job server"
    )
    parser.add_argument("--mlflow-port", type=port, default=5000, help="port of the MLflow server")
    options = parser.parse_args()
    if options.action == "down":
        ended, already_ended = down(options.folder)
        for server in already_ended:
            print(
                f"{server.name} had already ended; see its log "
                f"'{options.folder / (server.name + '.log')}'"
            )
        print(f"ended {', '.join(s.name for s in ended)}" if ended else "no cluster is running")
        return 0
    try:
        servers = up(
            options.folder,
            dashboard_port=options.dashboard_port,
            mlflow_port=options.mlflow_port,
            store=ROOT,
        )
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    address = "" if options.dashboard_port == 8265 else f" --address {servers[1].url}"
    print(f"MLflow:     {servers[0].url}")
    print(f"Ray:        {servers[1].url}  (the dashboard needs the token: ray get-auth-token)")
    print("submit:     . .venv/bin/activate; export RAY_AUTH_MODE=token")
    print(f"            ray job submit{address} -- python pipelines/tune.py")
    down_command = f"{sys.executable} {Path(__file__)} down --folder {options.folder}"
    print(f"end both:   {'make down' if options.folder == FOLDER else down_command}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
