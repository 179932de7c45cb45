"""Start the MLflow UI on 127.0.0.1 for the store of mlflow.yaml, until Ctrl-C (`make ui`)."""

import argparse
import os
import signal
import sys
from pathlib import Path

from mlflow import MlflowClient
from processes import HOST, ROOT, Server, StackError, choose_port, launch, stop, wait_for
from up import port

from degrain.errors import UserError
from degrain.storage.location import Storage
from degrain.tracking.client import connect
from degrain.tracking.config import TrackingConfig, load_tracking_config
from degrain.tracking.ui import comparison_page, experiment_page, model_page, newest_study_runs

FOLDER = ROOT / "runs" / "ui"
USUAL_PORT = 5000


def main() -> int:
    """Start the server, print the addresses, and wait for Ctrl-C."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mlflow", type=Path, help="tracking file (default: mlflow.yaml)")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="folder of the server's log")
    parser.add_argument(
        "--port", type=port, help=f"TCP port (default: {USUAL_PORT}, or another if it is in use)"
    )
    options = parser.parse_args()
    try:
        tracking = load_tracking_config(options.mlflow)
        storage = Storage.from_environment()
        client = connect(tracking, storage, create=False)
        if not tracking.embedded:
            print_addresses(client, tracking, tracking.shown_uri.rstrip("/"))
            return 0
        chosen = choose_port(options.port, USUAL_PORT, "--port")
        return serve(client, tracking, storage, chosen, options.folder)
    except (UserError, StackError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, UserError) else 1


def serve(
    client: MlflowClient, tracking: TrackingConfig, storage: Storage, on: int, folder: Path
) -> int:
    """Run the server until Ctrl-C or until it ends; returns the exit status."""
    # Otherwise `kill` would end this process, but not the server.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder.mkdir(parents=True, exist_ok=True)
    server = start(tracking, storage, on, folder)
    try:
        wait_for(server, server.answers)
        print_addresses(client, tracking, server.url)
        print("end:       Ctrl-C", flush=True)
        process = server.process()
        if process is not None:
            process.wait()
        raise StackError(f"the server has ended; see its log '{server.log}'")
    except KeyboardInterrupt:
        return 0
    finally:
        stop([server])


def start(tracking: TrackingConfig, storage: Storage, on: int, folder: Path) -> Server:
    """Start the server of an embedded store."""
    command = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(on)]
    command += ["--workers", "1", "--backend-store-uri", tracking.tracking_uri]
    environment = {
        **os.environ,
        **storage.mlflow_environment(),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    url = f"http://{HOST}:{on}"
    return launch("mlflow", command, folder, url, environment, health="/health")


def print_addresses(client: MlflowClient, tracking: TrackingConfig, url: str) -> None:
    """Print the pages of the experiment, of the newest study and of the registered model."""
    print(f"MLflow:    {url}")
    experiment = client.get_experiment_by_name(tracking.experiment)
    if experiment is None:
        print(f"there are no runs in the experiment '{tracking.experiment}' yet")
        return
    print(f"runs:      {experiment_page(url, experiment.experiment_id)}")
    if runs := newest_study_runs(client, experiment.experiment_id):
        print(f"compare:   {comparison_page(url, experiment.experiment_id, runs)}")
    if client.search_registered_models(f"name = '{tracking.model}'"):
        print(f"model:     {model_page(url, tracking.model)}")


if __name__ == "__main__":
    sys.exit(main())
