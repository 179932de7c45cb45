"""The model registry: a trained network goes in as safetensors and a card, and comes back as a Denoiser.

A registered model is a folder of two files: `weights.safetensors`, and `card.json` with the network's name and arguments,
what it was trained on and what it scored. It is read through `denoisenets`; nothing is unpickled, so that loading a model
runs no code but ours.
"""

import json
import re
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import mlflow.artifacts
import safetensors
import safetensors.torch
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from torch import Tensor

from degrain.errors import UserError
from degrain.imaging.denoiser import Application, NetworkDenoiser
from degrain.storage import Storage, json_bytes
from degrain.tracking.config import load_tracking_config
from degrain.tracking.runs import Run, Tracker, connect
from degrain.tracking.store import patiently

CARD_FORMAT = 1
WEIGHTS_FILE = "weights.safetensors"
CARD_FILE = "card.json"
ARTIFACT_FOLDER = "model"


@dataclass(frozen=True, kw_only=True)
class Card:
    """What is known of a trained network."""

    model: str
    """Name of the network in `denoisenets`."""
    arguments: Mapping[str, Any]
    """All its arguments."""
    patch_set: str
    """Version of the patch set it was trained on."""
    training: Mapping[str, Any]
    """The training configuration."""
    crop: int
    """Side in pixels of what it saw in training; means over the frame are taken over as much of a photo."""
    size_multiple: int
    """Sides that the network takes are multiples of this."""
    halo: int
    """Pixels of context that a tile needs on each side."""
    scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """By protocol: psnr in dB, ssim, and the number of photos."""
    code: str | None = None
    """Git commit of the code that trained it."""
    format: int = CARD_FORMAT


@dataclass(frozen=True)
class ModelVersion:
    """One version in the registry."""

    name: str
    version: str
    aliases: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """What tables call it: `NAME vVERSION`."""
        return f"{self.name} v{self.version}"

    @property
    def uri(self) -> str:
        """`models:/NAME/VERSION`."""
        return f"models:/{self.name}/{self.version}"


def write_model(folder: Path, weights: Mapping[str, Tensor], card: Card) -> None:
    """Write a network's two files into `folder`."""
    # safetensors wants plain, contiguous memory; channels_last weights are strided.
    plain = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
    safetensors.torch.save_file(plain, folder / WEIGHTS_FILE)
    (folder / CARD_FILE).write_bytes(json_bytes(asdict(card)))


def read_model(
    folder: Path, application: Application | None = None, *, name: str | None = None
) -> tuple[NetworkDenoiser, Card]:
    """Read a network's two files as a denoiser. Raises UserError if they are missing or not of this format."""
    try:
        raw = json.loads((folder / CARD_FILE).read_text())
        kind = raw.get("format") if isinstance(raw, dict) else None
        if kind != CARD_FORMAT:
            raise ValueError(f"its card has format {kind}, this version of degrain reads {CARD_FORMAT}")
        card = Card(**raw)
        weights = safetensors.torch.load_file(folder / WEIGHTS_FILE)
        denoiser = NetworkDenoiser(card.model, card.arguments, weights, name=name, crop=card.crop, application=application)
    except UserError:
        raise
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, safetensors.SafetensorError) as error:
        short = " ".join(str(error).split())[:200]
        raise UserError(f"'{folder}' is not a model of degrain: {short}; name a folder that train.py wrote") from None
    return denoiser, card


def log_model(run: Run, weights: Mapping[str, Tensor], card: Card) -> None:
    """Log a network's two files to `run`, below `model`."""
    with tempfile.TemporaryDirectory() as temporary:
        write_model(Path(temporary), weights, card)
        run.folder(Path(temporary), ARTIFACT_FOLDER)


def register(tracker: Tracker, run: Run, weights: Mapping[str, Tensor], card: Card) -> ModelVersion:
    """Log a network's two files to `run` and make them a new version in the registry."""
    name = tracker.config.model
    log_model(run, weights, card)
    try:
        tracker.client.get_registered_model(name)
    except MlflowException:
        tracker.client.create_registered_model(name)
    scores = {f"{protocol}.{k}": f"{v:.6g}" for protocol, s in card.scores.items() for k, v in s.items()}
    created = tracker.client.create_model_version(
        name,
        source=f"{run.artifact_uri}/{ARTIFACT_FOLDER}",
        run_id=run.id,
        tags={"model": card.model, "patch_set": card.patch_set, **scores},
    )
    return ModelVersion(name, str(created.version))


def holders(client: MlflowClient, name: str) -> dict[str, ModelVersion]:
    """Which version holds each alias; empty if the model is not registered yet."""
    try:
        aliases: dict[str, Any] = client.get_registered_model(name).aliases
    except MlflowException:
        return {}
    return {alias: ModelVersion(name, str(version)) for alias, version in aliases.items()}


def load_registered(client: MlflowClient, uri: str, application: Application | None = None) -> tuple[NetworkDenoiser, Card]:
    """Load `models:/NAME@ALIAS` or `models:/NAME/VERSION` as a denoiser named `NAME vVERSION`.

    Raises UserError, naming what there is, for an unknown model.
    """
    found = _find_version(client, uri)
    version = ModelVersion(str(found.name), str(found.version))
    with tempfile.TemporaryDirectory() as temporary:
        local = patiently(
            lambda: mlflow.artifacts.download_artifacts(
                artifact_uri=str(found.source), dst_path=temporary, tracking_uri=client.tracking_uri
            )
        )
        return read_model(Path(local), application, name=version.label)


def load_model(
    named: str | None, mlflow: Path, storage: Storage, application: Application | None = None
) -> tuple[NetworkDenoiser, Card]:
    """Load what a pipeline's MODEL names: `models:/NAME@ALIAS`, `models:/NAME/VERSION`, a folder, None for the champion.

    `mlflow` is the file that says where the registry is; for a folder it is not read. Raises UserError for what is no model.
    """
    if named and not named.startswith("models:"):
        return read_model(_model_folder(named), application)
    tracking = load_tracking_config(mlflow)
    uri = named or f"models:/{tracking.model}@champion"
    return load_registered(connect(tracking, storage, make=False), uri, application)


def pinned(named: str, mlflow: Path, storage: Storage) -> str:
    """The URI of what MODEL names now: an alias becomes the version that holds it, a folder its whole path.

    Raises UserError for an unknown model.
    """
    if not named.startswith("models:"):
        return str(_model_folder(named).absolute())
    found = _find_version(connect(load_tracking_config(mlflow), storage, make=False), named)
    return ModelVersion(str(found.name), str(found.version)).uri


def _model_folder(text: str) -> Path:
    if ":/" in text:
        raise UserError(
            f"cannot load a model from '{text}': name models:/NAME@ALIAS, models:/NAME/VERSION or a local folder"
        )
    return Path(text).expanduser()


def _find_version(client: MlflowClient, uri: str) -> Any:  # noqa: ANN401 - mlflow's ModelVersion
    parts = re.fullmatch(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>\d+))", uri)
    if parts is None:
        raise UserError(f"cannot read model '{uri}': write models:/NAME@ALIAS or models:/NAME/VERSION")
    name = parts["name"]
    try:
        if parts["alias"]:
            return client.get_model_version_by_alias(name, parts["alias"])
        return client.get_model_version(name, parts["version"])
    except MlflowException:
        known = holders(client, name)
        there = ", ".join(f"models:/{name}@{a}" for a in sorted(known)) or "none; run pipelines/tune.py first"
        raise UserError(f"there is no model '{uri}' in the registry. There is: {there}") from None
