"""The model registry: stores trained networks as safetensors with a card, and loads them.

A registered model is a folder with `weights.safetensors` and `card.json`, which has the network's
name and arguments, its training data and its scores. Loading builds the network with `denoisenets`
and unpickles nothing, so that a model file cannot run code. `MLmodel` is for MLflow's own loading,
and `manifest.json` has the SHA-256 of each file.
"""

import json
import re
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import mlflow.artifacts
import safetensors.torch
from botocore.exceptions import ClientError
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode
from safetensors import SafetensorError
from torch import Tensor

from degrain.errors import NoModelError, UserError
from degrain.inference.config import STARTER, InferenceConfig
from degrain.inference.denoiser import NetworkDenoiser
from degrain.storage.json_file import json_bytes
from degrain.storage.location import Storage
from degrain.tracking.card import CARD_FORMAT, ModelCard, provenance_tags
from degrain.tracking.client import connect, retry, short_text, store_errors
from degrain.tracking.config import load_tracking_config
from degrain.tracking.lost_champion import warn_of_lost_champion
from degrain.tracking.mlmodel import write_mlmodel
from degrain.tracking.model_manifest import (
    DIGEST_TAG,
    check_manifest,
    manifest_digest,
    write_manifest,
)
from degrain.tracking.runs import ALREADY_EXISTS, Run, Tracker

WEIGHTS_FILE = "weights.safetensors"
CARD_FILE = "card.json"
ARTIFACT_FOLDER = "model"
_UNREADABLE = (OSError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError)
"""Errors of reading files that are not a model's."""
_NOT_REGISTERED = ErrorCode.Name(RESOURCE_DOES_NOT_EXIST)
STARTER_FOLDER = Path(__file__).parent.parent / "starter"


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


def write_model(folder: Path, weights: Mapping[str, Tensor], card: ModelCard) -> None:
    """Write a network's files into the empty `folder`."""
    # safetensors requires contiguous memory; channels_last weights are strided.
    plain = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
    safetensors.torch.save_file(plain, folder / WEIGHTS_FILE)
    (folder / CARD_FILE).write_bytes(json_bytes(asdict(card)))
    write_mlmodel(folder)
    write_manifest(folder)


def read_model(
    folder: Path,
    config: InferenceConfig | None = None,
    *,
    name: str | None = None,
    digest: str | None = None,
) -> tuple[NetworkDenoiser, ModelCard]:
    """Read a network's weights and card as a denoiser.

    `digest` is the SHA-256 of the folder's manifest; None: the folder may have none. Raises
    UserError if weights or card are missing or have another format, or if a file differs from the
    manifest.
    """
    check_manifest(folder, name or str(folder), digest)
    try:
        raw = json.loads((folder / CARD_FILE).read_text())
        kind = raw.get("format") if isinstance(raw, dict) else None
        if kind != CARD_FORMAT:
            raise ValueError(
                f"its card has format {kind}, but this version of degrain reads {CARD_FORMAT}"
            )
        card = ModelCard(**raw)
        weights = safetensors.torch.load_file(folder / WEIGHTS_FILE)
        denoiser = NetworkDenoiser(
            card.model, card.arguments, weights, name=name, crop=card.crop, config=config
        )
    except UserError:
        raise
    except _UNREADABLE as error:
        short = " ".join(str(error).split())[:200]
        raise UserError(
            f"'{folder}' is not a degrain model: {short}; name a folder written by `degrain train`"
        ) from None
    return denoiser, card


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
        local = _download(client, str(found.source), folder)
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


def _download(client: MlflowClient, artifacts: str, folder: Path) -> Path:
    """Download the folder at a URI of artifacts."""
    return Path(
        retry(
            lambda: mlflow.artifacts.download_artifacts(
                artifact_uri=artifacts, dst_path=str(folder), tracking_uri=client.tracking_uri
            )
        )
    )


def _load_of_run(
    client: MlflowClient, uri: str, config: InferenceConfig | None
) -> tuple[NetworkDenoiser, ModelCard]:
    """Load the model that the run `runs:/ID` logged. Raises UserError if there is none."""
    try:
        run = client.get_run(uri.removeprefix("runs:/"))
        artifacts = f"{run.info.artifact_uri}/{ARTIFACT_FOLDER}"
        with tempfile.TemporaryDirectory() as temporary:
            local = _download(client, artifacts, Path(temporary))
            return read_model(local, config, name=str(run.info.run_name))
    except (MlflowException, OSError):
        raise UserError(
            f"there is no model in the run '{uri}'; name a run of `degrain train` or a refit"
        ) from None


def load_model(
    named: str | None, mlflow: Path | None, storage: Storage, config: InferenceConfig | None = None
) -> tuple[NetworkDenoiser, ModelCard]:
    """Load a model: `models:/NAME@ALIAS`, `models:/NAME/VERSION`, `runs:/ID`, `starter`, a folder;
    None: the champion, or the starter model where the registry has none.

    `mlflow` is the tracking configuration file, which is read for models of the registry only.
    Raises UserError if the name is not that of a model.
    """
    if named == STARTER:
        return read_model(STARTER_FOLDER, config, name=STARTER)
    if named is not None and not named.startswith(("models:", "runs:/")):
        return read_model(_model_folder(named), config)
    tracking = load_tracking_config(mlflow)
    if named and named.startswith("runs:/"):
        return _load_of_run(connect(tracking, storage, create=False), named, config)
    uri = named or f"models:/{tracking.model}@champion"
    client = None
    try:
        client = connect(tracking, storage, create=False)
        return load_registered(client, uri, config)
    except NoModelError:
        if named:
            raise
    warn_of_lost_champion(client, tracking)
    return load_model(STARTER, mlflow, storage, config)


def resolve_version(named: str, mlflow: Path | None, storage: Storage) -> str:
    """Resolve a model's name: an alias to the URI of its version, a folder to its absolute path.

    Raises UserError for an unknown model.
    """
    if named == STARTER:
        return named
    if not named.startswith("models:"):
        return str(_model_folder(named).absolute())
    found = find_version(connect(load_tracking_config(mlflow), storage, create=False), named)
    return ModelVersion(str(found.name), str(found.version)).uri


def _model_folder(text: str) -> Path:
    folder = Path(text).expanduser()
    if not text or ":/" in text or not folder.is_dir():
        raise UserError(
            f"there is no model '{text}': name models:/NAME@ALIAS, models:/NAME/VERSION, starter, "
            "or a folder that `degrain train` wrote"
        )
    return folder


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
