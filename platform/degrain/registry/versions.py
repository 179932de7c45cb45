"""Versions of the registered model: registered, found by URI or alias, downloaded."""

import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow.artifacts
from botocore.exceptions import ClientError
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode
from torch import Tensor

from degrain.errors import NoModelError, UserError
from degrain.inference.config import InferenceConfig
from degrain.inference.denoiser import NetworkDenoiser
from degrain.registry.card import ModelCard, provenance_tags
from degrain.registry.files import manifest_digest, read_model, write_model
from degrain.tracking.client import retry, short_text, store_errors
from degrain.tracking.runs import ALREADY_EXISTS, Run, Tracker

ARTIFACT_FOLDER = "model"
DIGEST_TAG = "degrain.sha256"
"""Tag of a registered version: the SHA-256 of its manifest."""
_NOT_REGISTERED = ErrorCode.Name(RESOURCE_DOES_NOT_EXIST)


@dataclass(frozen=True)
class ModelVersion:
    """One version in the registry."""

    name: str
    version: str
    aliases: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """Name in tables: `NAME vVERSION`."""
        return f"{self.name} v{self.version}"

    @property
    def uri(self) -> str:
        """`models:/NAME/VERSION`."""
        return f"models:/{self.name}/{self.version}"


def log_model(run: Run, weights: Mapping[str, Tensor], card: ModelCard) -> str:
    """Log a network's files to `run`, below `model`; returns the SHA-256 of their manifest."""
    with tempfile.TemporaryDirectory() as temporary:
        write_model(Path(temporary), weights, card)
        run.folder(Path(temporary), ARTIFACT_FOLDER)
        return manifest_digest(Path(temporary))


def register(
    tracker: Tracker, run: Run, weights: Mapping[str, Tensor], card: ModelCard
) -> ModelVersion:
    """Log a network's files to `run` and register them as a new version.

    A run has one version: if it was registered before, by a job that was interrupted afterwards,
    that version is returned.
    """
    name = tracker.config.model
    if (before := version_of_run(tracker.client, name, run.id)) is not None:
        return before
    digest = log_model(run, weights, card)
    try:
        tracker.client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != ALREADY_EXISTS:
            raise
    scores = {
        f"{protocol}.{k}": f"{v:.6g}" for protocol, s in card.scores.items() for k, v in s.items()
    }
    created = tracker.client.create_model_version(
        name,
        source=f"{run.artifact_uri}/{ARTIFACT_FOLDER}",
        run_id=run.id,
        tags={"model": card.model, DIGEST_TAG: digest, **provenance_tags(card), **scores},
    )
    return ModelVersion(name, str(created.version))


def register_import(
    tracker: Tracker, weights: Mapping[str, Tensor], card: ModelCard
) -> ModelVersion:
    """Register a network as a new version, under a run of its own."""
    with tracker.run(f"import {card.model}", "import", tags=provenance_tags(card)) as run:
        run.params({"model": card.model, "arguments": card.arguments})
        return register(tracker, run, weights, card)


def version_of_run(client: MlflowClient, name: str, run_id: str) -> ModelVersion | None:
    """The version of a registered model that a run's model has become, or None."""
    found = client.search_model_versions(f"name='{name}' and run_id='{run_id}'")
    return ModelVersion(name, str(found[0].version)) if found else None


def alias_holders(client: MlflowClient, name: str) -> dict[str, ModelVersion]:
    """Map each alias to the version that holds it; empty if the model is not registered.

    Raises JobFailedError if the store fails.
    """
    with store_errors():
        try:
            aliases: dict[str, Any] = client.get_registered_model(name).aliases
        except MlflowException as error:
            if error.error_code != _NOT_REGISTERED:
                raise
            return {}
    return {alias: ModelVersion(name, str(version)) for alias, version in aliases.items()}


@dataclass(frozen=True)
class DownloadedModel:
    """The files of a registered version in a local folder, not yet checked."""

    folder: Path
    name: str
    """`NAME vVERSION`."""
    digest: str | None
    """SHA-256 of the manifest; None for versions that were registered before there were any."""

    def read(self, config: InferenceConfig | None = None) -> tuple[NetworkDenoiser, ModelCard]:
        """Read it as a denoiser. Raises UserError if files are not those that were registered."""
        return read_model(self.folder, config, name=self.name, digest=self.digest)


def download_registered(client: MlflowClient, uri: str, folder: Path) -> DownloadedModel:
    """Download `models:/NAME@ALIAS` or `models:/NAME/VERSION` into `folder`.

    Raises UserError, listing the known aliases, for an unknown model, and for one whose files are
    not there.
    """
    found = find_version(client, uri)
    version = ModelVersion(str(found.name), str(found.version))
    try:
        local = download_artifacts(client, str(found.source), folder)
    except (MlflowException, OSError, ClientError) as error:
        raise UserError(
            f"the files of {version.label} cannot be read from '{found.source}': "
            f"{short_text(error)}; restore them there or in the folder `artifacts` of mlflow.yaml, "
            "or make another version the champion with `degrain promote`"
        ) from None
    return DownloadedModel(local, version.label, found.tags.get(DIGEST_TAG))


def load_registered(
    client: MlflowClient, uri: str, config: InferenceConfig | None = None
) -> tuple[NetworkDenoiser, ModelCard]:
    """Load `models:/NAME@ALIAS` or `models:/NAME/VERSION` as a denoiser named `NAME vVERSION`.

    Raises UserError, listing the known aliases, for an unknown model, and for files that are not
    those that were registered.
    """
    with tempfile.TemporaryDirectory() as temporary:
        return download_registered(client, uri, Path(temporary)).read(config)


def find_version(client: MlflowClient, uri: str) -> Any:  # noqa: ANN401 - mlflow's ModelVersion
    """Find a version by URI. Raises UserError, listing the known aliases, for an unknown one."""
    parts = re.fullmatch(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>\d+))", uri)
    if parts is None:
        raise UserError(
            f"'{uri}' is not a model URI; write models:/NAME@ALIAS or models:/NAME/VERSION"
        )
    name = parts["name"]
    try:
        if parts["alias"]:
            return client.get_model_version_by_alias(name, parts["alias"])
        return client.get_model_version(name, parts["version"])
    except MlflowException:
        known = alias_holders(client, name)
        names = ", ".join(f"models:/{name}@{alias}" for alias in sorted(known))
        remedy = f"name one of {names}" if names else "run `degrain tune` first"
        raise NoModelError(f"model '{uri}' does not exist in the registry; {remedy}") from None


def download_artifacts(client: MlflowClient, artifacts: str, folder: Path) -> Path:
    """Download the folder at a URI of artifacts."""
    return Path(
        retry(
            lambda: mlflow.artifacts.download_artifacts(
                artifact_uri=artifacts, dst_path=str(folder), tracking_uri=client.tracking_uri
            )
        )
    )
