"""All that the service needs to start, read and checked before Ray starts."""

import contextlib
import errno
import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path

from degrain.errors import NoModelError, UserError
from degrain.inference.config import InferenceConfig
from degrain.registry.versions import download_registered
from degrain.serving.config import ServingConfig
from degrain.serving.messages import CHAMPION
from degrain.serving.tokens import read_token
from degrain.storage.location import Storage
from degrain.tracking.client import connect
from degrain.tracking.config import TrackingConfig, load_tracking_config


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Configuration, registry and token of the service."""

    serving: ServingConfig
    inference: InferenceConfig
    tracking: TrackingConfig
    storage: Storage
    token: str | None


def read_settings(
    serving: ServingConfig, inference: InferenceConfig, mlflow: Path | None
) -> Settings:
    """Read the token and `mlflow.yaml`. Raises UserError for what cannot be used."""
    token = read_token(serving.token_file)
    serving.check_token(token)
    return Settings(
        serving=serving,
        inference=inference,
        tracking=load_tracking_config(mlflow),
        storage=Storage.from_environment(),
        token=token,
    )


def check_reachable(settings: Settings) -> None:
    """Raise UserError if a port is taken, the registry does not answer, or the champion's files are
    not there.
    """
    serving = settings.serving
    _check_port(serving.host, serving.port, "port")
    if serving.metrics_port is not None:
        _check_port(serving.host, serving.metrics_port, "metrics_port")
    # A registry without models is no error: the starter model serves.
    with contextlib.suppress(NoModelError), tempfile.TemporaryDirectory() as folder:
        client = connect(settings.tracking, settings.storage, create=False)
        champion = f"models:/{settings.tracking.model}@{CHAMPION}"
        download_registered(client, champion, Path(folder))


def _check_port(host: str, port: int, field: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            taken = error.errno == errno.EADDRINUSE
            remedy = f"name another `{field}`" if taken else "name an address of this machine"
            raise UserError(f"cannot listen on {host}:{port}: {error.strerror}; {remedy}") from None
