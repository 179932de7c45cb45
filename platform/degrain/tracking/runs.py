"""Runs in MLflow: a study is a parent run, its trials and refits are children.

Only the driver logs, through one client without global state. Trials and workers send their metrics
to the driver, so that workers need neither MLflow nor its credentials.
"""

import contextlib
import math
import re
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import DatasetInput, Experiment, Metric, Param, RunTag
from mlflow.entities import Run as TrackedRun
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, ErrorCode
from mlflow.utils.validation import MAX_ENTITY_KEY_LENGTH

from degrain import __version__
from degrain.errors import JobFailedError, UserError
from degrain.interrupts import defer_interrupts
from degrain.patchsets.patch_set import PatchSet
from degrain.storage.location import Storage
from degrain.tracking.client import (
    ServerUnavailableError,
    connect,
    no_retry,
    short_text,
    store_errors,
)
from degrain.tracking.config import TrackingConfig
from degrain.tracking.datasets import patch_set_inputs
from degrain.tracking.provenance import source_tags

_LONGEST_PARAM = 500
_PAGE = 1000
"""Runs that one request asks for."""
_EXPERIMENT_KIND = "mlflow.experimentKind"
_MODEL_TRAINING = "custom_model_development"
_NOTE = "mlflow.note.content"
ALREADY_EXISTS = ErrorCode.Name(RESOURCE_ALREADY_EXISTS)
"""MLflow's error code where another job was first to create something."""
_SCORES = ("val_psnr", "val_ssim")
BOOKKEEPING = frozenset({"step", "progress", "seconds_left"})
"""Metrics of the training loop that MLflow does not get: they do not describe the model, and the
charts of the UI would begin with them. MLflow stores the step beside each value."""


class Run:
    """One open run.

    Its methods retry while the server is unavailable, and raise JobFailedError if it stays
    unavailable or rejects a call.
    """

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self.id = run_id
        self._client = client
        self._note = ""

    def params(self, values: Mapping[str, object]) -> None:
        """Log parameters; nested mappings become `outer.inner`."""
        flat = [
            Param(valid_key(key), str(value)[:_LONGEST_PARAM]) for key, value in _flattened(values)
        ]
        with store_errors():
            self._client.log_batch(self.id, params=flat)

    def has_params(self) -> bool:
        """Whether parameters were logged."""
        with store_errors():
            return bool(self._client.get_run(self.id).data.params)

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Log metrics at a step; see `stamped` for those that are left out."""
        self.log(stamped(values, step))

    def log(self, metrics: Sequence[Metric]) -> None:
        """Log at most 1000 metrics, with their times and steps, in one call."""
        with store_errors():
            self._client.log_batch(self.id, metrics=metrics)

    def tags(self, values: Mapping[str, object]) -> None:
        """Set tags."""
        with store_errors():
            self._client.log_batch(self.id, tags=[RunTag(k, str(v)) for k, v in values.items()])

    def describe(
        self, note: str, patch_set: PatchSet, splits: Iterable[str] = ("train", "val")
    ) -> None:
        """Set the description that the UI shows, and log the splits that the run reads."""
        self.inputs(patch_set_inputs(patch_set, splits))
        self._note = ""
        self.add_note(note)

    def inputs(self, datasets: Sequence[DatasetInput]) -> None:
        """Log the datasets that the run reads."""
        with store_errors():
            self._client.log_inputs(self.id, datasets=datasets)

    def add_note(self, sentence: str) -> None:
        """Add a sentence to the run's description."""
        self._note = f"{self._note} {sentence}".strip()
        self.tags({_NOTE: self._note})

    def folder(self, path: Path, name: str | None = None) -> None:
        """Log all files of a folder as artifacts, below `name`."""
        with store_errors():
            self._client.log_artifacts(self.id, str(path), name)

    def files(self, contents: Mapping[str, bytes], folder: str | None = None) -> None:
        """Log contents as artifacts by name, below `folder`."""
        with tempfile.TemporaryDirectory() as temporary:
            for name, content in contents.items():
                Path(temporary, name).write_bytes(content)
            self.folder(Path(temporary), folder)

    def finish(self, status: str = "FINISHED", note: str = "") -> None:
        """End the run as FINISHED, FAILED or, without retries, KILLED, and add to its note."""
        with store_errors(), no_retry(status == "KILLED"):
            self._client.set_terminated(self.id, status)
            if note:
                self.add_note(note)

    @property
    def artifact_uri(self) -> str:
        """URI of the run's artifacts."""
        return str(self._client.get_run(self.id).info.artifact_uri)


def stamped(values: Mapping[str, float], step: int) -> list[Metric]:
    """Convert values to metrics at a step with the current time.

    Values that are not finite are left out, because MLflow's charts cannot show them, and so is
    BOOKKEEPING. The scores are first, because MLflow's comparison begins with the first metric.
    """
    now = int(time.time() * 1000)
    return [
        Metric(valid_key(key), float(values[key]), now, step)
        for key in sorted(values, key=lambda key: key not in _SCORES)
        if math.isfinite(values[key]) and key not in BOOKKEEPING
    ]


def valid_key(name: str) -> str:
    """The name of a metric or parameter as MLflow accepts it; names that it accepts stay.

    It takes names for paths, which it refuses if they are absolute or have parts such as `..`.
    """
    parts = re.sub(r"[^\w./ -]", "-", name).split("/")
    key = "/".join(part for part in parts if part not in ("", ".", ".."))
    if len(key) > MAX_ENTITY_KEY_LENGTH:
        # Names of models that are long paths differ at their end, those of metrics at their start.
        half = MAX_ENTITY_KEY_LENGTH // 2 - 2
        key = f"{key[:half]}---{key[-half:]}"
    return key


class Tracker:
    """An MLflow client, its configuration and its experiment."""

    def __init__(self, config: TrackingConfig, client: MlflowClient, experiment_id: str) -> None:
        self.config = config
        self.client = client
        self.experiment_id = experiment_id

    @classmethod
    def open(cls, config: TrackingConfig, storage: Storage) -> "Tracker":
        """Connect to the store and find or create the experiment.

        Raises UserError if the server does not answer or the database cannot be opened,
        JobFailedError if it fails later.
        """
        client = connect(config, storage)
        with store_errors():
            experiment = client.get_experiment_by_name(config.experiment)
            if experiment is None:
                location = str(storage.locate(config.artifacts)) if config.embedded else None
                experiment = _create_experiment(client, config.experiment, location)
            if experiment.lifecycle_stage != "active":
                raise UserError(
                    f"the MLflow experiment '{config.experiment}' was deleted; restore it with "
                    "'mlflow experiments restore --experiment-id "
                    f"{experiment.experiment_id}', or name another in mlflow.yaml"
                )
            kind = experiment.tags.get(_EXPERIMENT_KIND)
            # The UI stores what it inferred, such as `no_inferred_type`, from earlier visits.
            if kind is None or "inferred" in kind:
                client.set_experiment_tag(
                    experiment.experiment_id, _EXPERIMENT_KIND, _MODEL_TRAINING
                )
        return cls(config, client, str(experiment.experiment_id))

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
        """Context of a run: FINISHED at its end, FAILED on an error, KILLED on Ctrl-C.

        `resume` is the id of a run to reopen; if it does not exist, a new run is started.
        """
        run: Run | None = None
        try:
            with defer_interrupts():
                run = (self.reopen(resume) if resume else None) or self.start(
                    name, kind, parent=parent, tags=tags
                )
            yield run
        except BaseException as error:
            if run is not None:
                # The block's error matters more than the failure to set the status.
                with (
                    contextlib.suppress(JobFailedError),
                    no_retry(isinstance(error, ServerUnavailableError)),
                ):
                    run.finish(*_ending(error))
            raise
        run.finish()

    def search(self, query: str) -> Iterator[TrackedRun]:
        """All runs of the experiment that match a filter of MLflow, oldest first.

        Raises JobFailedError if the store fails.
        """
        token = None
        while True:
            with store_errors():
                page = self.client.search_runs(
                    [self.experiment_id],
                    query,
                    max_results=_PAGE,
                    order_by=["attributes.start_time ASC"],
                    page_token=token,
                )
            yield from page
            if not (token := page.token):
                return

    def reopen(self, run_id: str) -> Run | None:
        """Reopen an ended or interrupted run; None if it does not exist."""
        try:
            self.client.update_run(run_id, status="RUNNING")
        except MlflowException:
            return None
        return Run(self.client, run_id)

    def start(
        self,
        name: str,
        kind: str,
        *,
        parent: Run | None = None,
        tags: Mapping[str, object] | None = None,
    ) -> Run:
        """Start a run that the caller finishes.

        `kind` is `study`, `trial`, `refit`, `training`, `retraining`, `exploration`, `evaluation`,
        `promotion` or `import`. Raises JobFailedError if the store fails.
        """
        all_tags: dict[str, object] = {
            "mlflow.runName": name,
            "degrain.kind": kind,
            "degrain.version": __version__,
            **source_tags(),
            **(tags or {}),
        }
        if parent is not None:
            all_tags["mlflow.parentRunId"] = parent.id
        with store_errors():
            created = self.client.create_run(
                self.experiment_id, tags={k: str(v) for k, v in all_tags.items()}, run_name=name
            )
        return Run(self.client, str(created.info.run_id))


def _create_experiment(client: MlflowClient, name: str, location: str | None) -> Experiment:
    try:
        client.create_experiment(
            name, artifact_location=location, tags={_EXPERIMENT_KIND: _MODEL_TRAINING}
        )
    except MlflowException as error:
        # Another job was first, or the answer to this call was lost, and it was repeated.
        if error.error_code != ALREADY_EXISTS:
            raise
    created = client.get_experiment_by_name(name)
    assert created is not None
    return created


def _ending(error: BaseException) -> tuple[str, str]:
    """The status of a run that ended with an error, and a sentence on it."""
    if isinstance(error, KeyboardInterrupt | SystemExit):
        return "KILLED", "It was interrupted."
    return "FAILED", f"It failed: {short_text(error)}"


def _flattened(values: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flattened(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
