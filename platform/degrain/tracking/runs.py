"""Runs in MLflow: a study is a parent run, its trials and refits are children.

All logging happens in the driver, through one client that holds no global state. Trials and workers send their metrics to
the driver, so that workers need neither MLflow nor its credentials.
"""

import contextlib
import importlib.metadata
import logging
import math
import os
import platform
import signal
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.telemetry import set_telemetry_client
from sqlalchemy.exc import SQLAlchemyError

from degrain import __version__
from degrain.errors import JobFailedError, UserError
from degrain.storage import Storage
from degrain.tracking.config import TrackingConfig
from degrain.tracking.store import StoreLostError, at_once, make_impatient, patient, store_errors

_HEALTH_TIMEOUT_SECONDS = 10
_LONGEST_PARAM = 500


@contextlib.contextmanager
def interrupts_deferred() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM wait for the end of a block: a run that is made but not known yet would stay RUNNING."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[int] = []
    before = {s: signal.signal(s, lambda number, _: arrived.append(number)) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if arrived:
        raise KeyboardInterrupt


class Run:
    """One run, being written. Its methods wait for a lost store, and raise JobFailedError if it stays lost or refuses."""

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self.id = run_id
        self._client = client

    def params(self, values: Mapping[str, object]) -> None:
        """Log parameters; nested mappings become `outer.inner`."""
        flat = [Param(key, str(value)[:_LONGEST_PARAM]) for key, value in _flattened(values)]
        with store_errors():
            self._client.log_batch(self.id, params=flat)

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Log metrics at a step; values that are not finite are left out, as no chart can show them."""
        self.log(stamped(values, step))

    def log(self, metrics: Sequence[Metric]) -> None:
        """Log metrics that have their time and step; at most 1000, in one call."""
        with store_errors():
            self._client.log_batch(self.id, metrics=metrics)

    def tags(self, values: Mapping[str, object]) -> None:
        """Set tags."""
        with store_errors():
            self._client.log_batch(self.id, tags=[RunTag(k, str(v)) for k, v in values.items()])

    def file(self, path: Path, folder: str | None = None) -> None:
        """Log one file as an artifact."""
        with store_errors():
            self._client.log_artifact(self.id, str(path), folder)

    def folder(self, path: Path, name: str) -> None:
        """Log all files of a folder as artifacts below `name`."""
        with store_errors():
            self._client.log_artifacts(self.id, str(path), name)

    def files(self, contents: Mapping[str, bytes], folder: str) -> None:
        """Log contents as artifacts of these names below `folder`."""
        with tempfile.TemporaryDirectory() as temporary:
            for name, content in contents.items():
                Path(temporary, name).write_bytes(content)
            self.folder(Path(temporary), folder)

    def finish(self, status: str = "FINISHED") -> None:
        """End the run as FINISHED, FAILED or KILLED; who kills a run does not want to wait for the store."""
        with store_errors(), at_once(status == "KILLED"):
            self._client.set_terminated(self.id, status)

    @property
    def artifact_uri(self) -> str:
        """Where the run's artifacts lie."""
        return str(self._client.get_run(self.id).info.artifact_uri)


def stamped(values: Mapping[str, float], step: int) -> list[Metric]:
    """Values at a step as metrics of this moment; those that are not finite are left out, as no chart can show them."""
    now = int(time.time() * 1000)
    return [Metric(k, float(v), now, step) for k, v in values.items() if math.isfinite(v)]


def connect(config: TrackingConfig, storage: Storage, *, make: bool = True) -> MlflowClient:
    """A patient client of the tracking store and registry; makes an embedded store that is not there, unless told not to.

    Raises UserError if the server does not answer or the store cannot be used.
    """
    if not make and config.embedded and not Path(config.tracking_uri.removeprefix("sqlite:///")).exists():
        raise UserError(f"there are no models yet: no store at {config.tracking_uri}; run pipelines/tune.py first")
    os.environ.update(storage.mlflow_environment())
    os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
    # MLflow reports its use to its makers unless told not to, and has made its client when it was imported.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    set_telemetry_client()  # type: ignore[no-untyped-call]
    for name in ("alembic", "mlflow"):
        logging.getLogger(name).setLevel(logging.WARNING)
    make_impatient()
    _check_server(config.tracking_uri)
    try:
        client = MlflowClient(config.tracking_uri, registry_uri=config.tracking_uri)
        client.search_experiments(max_results=1)
    except (MlflowException, SQLAlchemyError) as error:
        short = " ".join(str(error).split())[:160]
        raise UserError(
            f"cannot use the MLflow store {config.tracking_uri}: {short}; name a server or a sqlite:/// file that "
            "can be written in mlflow.yaml or MLFLOW_TRACKING_URI"
        ) from None
    return patient(client)


class Tracker:
    """The tracking store, opened for writing runs."""

    def __init__(self, config: TrackingConfig, client: MlflowClient, experiment_id: str) -> None:
        self.config = config
        self.client = client
        self.experiment_id = experiment_id

    @classmethod
    def open(cls, config: TrackingConfig, storage: Storage) -> "Tracker":
        """Connect to the store and find or make the experiment.

        Raises UserError if the server does not answer or the database cannot be opened, JobFailedError if it fails later.
        """
        client = connect(config, storage)
        with store_errors():
            experiment = client.get_experiment_by_name(config.experiment)
            if experiment is None:
                location = str(storage.locate(config.artifacts)) if config.embedded else None
                experiment_id = client.create_experiment(config.experiment, artifact_location=location)
            elif experiment.lifecycle_stage != "active":
                raise UserError(
                    f"the MLflow experiment '{config.experiment}' was deleted; restore it with 'mlflow experiments restore "
                    f"--experiment-id {experiment.experiment_id}', or name another in mlflow.yaml"
                )
            else:
                experiment_id = experiment.experiment_id
        return cls(config, client, str(experiment_id))

    @contextlib.contextmanager
    def run(
        self,
        name: str,
        kind: str,
        *,
        parent: Run | None = None,
        tags: Mapping[str, object] | None = None,
        resume: str | None = None,
    ) -> Iterator[Run]:
        """A run for the length of a block: FINISHED at its end, FAILED on an error, KILLED on Ctrl-C.

        `resume` is the id of a run that goes on; if the store does not know it, a new one is started.
        """
        run: Run | None = None
        try:
            with interrupts_deferred():
                run = (self.reopen(resume) if resume else None) or self.start(name, kind, parent=parent, tags=tags)
            yield run
        except BaseException as error:
            if run is not None:
                # What the block raised says more than that the run could not be marked then.
                with contextlib.suppress(JobFailedError), at_once(isinstance(error, StoreLostError)):
                    run.finish("KILLED" if isinstance(error, KeyboardInterrupt | SystemExit) else "FAILED")
            raise
        run.finish()

    def reopen(self, run_id: str) -> Run | None:
        """Go on with a run that was ended or broken off; None if the store does not know it."""
        try:
            self.client.update_run(run_id, status="RUNNING")
        except MlflowException:
            return None
        return Run(self.client, run_id)

    def start(self, name: str, kind: str, *, parent: Run | None = None, tags: Mapping[str, object] | None = None) -> Run:
        """Start a run that the caller finishes.

        `kind` is `study`, `trial`, `refit`, `training`, `retraining` or `exploration`.
        """
        all_tags: dict[str, object] = {
            "mlflow.runName": name,
            "degrain.kind": kind,
            "degrain.version": __version__,
            **(tags or {}),
        }
        if commit := git_commit():
            all_tags["mlflow.source.git.commit"] = commit
        if parent is not None:
            all_tags["mlflow.parentRunId"] = parent.id
        created = self.client.create_run(self.experiment_id, tags={k: str(v) for k, v in all_tags.items()}, run_name=name)
        return Run(self.client, str(created.info.run_id))


def versions() -> dict[str, str]:
    """Versions of what a run is made with, by name: the code's commit, Python, the packages that decide, the machine."""
    packages = ("degrain", "torch", "ray", "mlflow", "numpy", "pyarrow")
    return {
        "commit": git_commit() or "",
        "python": platform.python_version(),
        "machine": platform.platform(),
        **{name: importlib.metadata.version(name) for name in packages},
    }


def git_commit() -> str | None:
    """The commit of the code that runs, with `-dirty` if files differ from it; None outside a checkout."""
    folder = Path(__file__).parent
    try:
        said = subprocess.run(
            ["git", "-C", str(folder), "describe", "--always", "--abbrev=40", "--dirty"],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return said.stdout.strip() or None


def _check_server(uri: str) -> None:
    """Ask a tracking server once whether it is there, because MLflow's own client retries for minutes."""
    if not uri.startswith(("http://", "https://")):
        return
    try:
        with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=_HEALTH_TIMEOUT_SECONDS):
            pass
    except (urllib.error.URLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise UserError(
            f"the MLflow server {uri} does not answer ({reason}); start it, or unset MLFLOW_TRACKING_URI to use "
            "the embedded store of mlflow.yaml"
        ) from None


def _flattened(values: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flattened(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
