"""What a model's name stands for: a version, an alias, a run, a folder, the starter, a filter."""

import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from degrain.errors import NoModelError, UserError
from degrain.imaging.filters import create_filter, list_filters
from degrain.inference.config import STARTER, InferenceConfig
from degrain.inference.denoiser import Denoiser, Identity, NetworkDenoiser
from degrain.registry.card import ModelCard
from degrain.registry.files import STARTER_FOLDER, read_model
from degrain.registry.versions import (
    ARTIFACT_FOLDER,
    ModelVersion,
    download_artifacts,
    find_version,
    load_registered,
)
from degrain.storage.location import Storage
from degrain.tracking.client import connect, store_errors
from degrain.tracking.config import TrackingConfig, load_tracking_config
from degrain.tracking.training_photos import TrainingPhotos

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Named:
    """A denoiser, and the photos that it was trained on; None where they are not known."""

    denoiser: Denoiser
    photos: TrainingPhotos | None


@dataclass(frozen=True)
class Resolver:
    """What the names of models stand for."""

    mlflow: Path | None
    """The tracking configuration file, which is read for models of the registry only; None:
    `mlflow.yaml` of the working folder."""
    storage: Storage

    def load(
        self, named: str | None, config: InferenceConfig | None = None
    ) -> tuple[NetworkDenoiser, ModelCard]:
        """Load `models:/NAME@ALIAS`, `models:/NAME/VERSION`, `runs:/ID`, `starter`, or a folder;
        None: the champion, or the starter where the registry has none.

        Raises UserError if the name is not that of a model.
        """
        if named == STARTER:
            return read_model(STARTER_FOLDER, config, name=STARTER)
        if named is not None and not named.startswith(("models:", "runs:/")):
            return read_model(_model_folder(named), config)
        tracking = load_tracking_config(self.mlflow)
        if named and named.startswith("runs:/"):
            return _load_of_run(connect(tracking, self.storage, create=False), named, config)
        uri = named or f"models:/{tracking.model}@champion"
        client = None
        try:
            client = connect(tracking, self.storage, create=False)
            return load_registered(client, uri, config)
        except NoModelError:
            if named:
                raise
        if client is not None and (lost := lost_champion(client, tracking)):
            _log.warning("%s", lost)
        return self.load(STARTER, config)

    def fixed(self, named: str) -> str:
        """The name that stays: of an alias the URI of its version, of a folder its absolute path.

        Raises UserError for an unknown model.
        """
        if named == STARTER:
            return named
        if not named.startswith("models:"):
            return str(_model_folder(named).absolute())
        tracking = load_tracking_config(self.mlflow)
        found = find_version(connect(tracking, self.storage, create=False), named)
        return ModelVersion(str(found.name), str(found.version)).uri

    def denoisers(self, names: Sequence[str]) -> list[Named]:
        """The denoisers of an evaluation, `noisy` first: filters by name, `starter`, models:/ and
        runs:/ URIs, and folders.

        Raises UserError for a name that is none of these, or twice the same denoiser.
        """
        found = [Named(Identity(), TrainingPhotos())]
        seen = {"noisy"}
        for name in names:
            if name == "noisy":
                continue
            one = self._denoiser(name)
            if one.denoiser.name in seen and isinstance(one.denoiser, NetworkDenoiser):
                # Of folders with one name, the others are called by their paths.
                one.denoiser.name = name
            if one.denoiser.name in seen:
                raise UserError(f"`models` names {one.denoiser.name} twice; name each model once")
            seen.add(one.denoiser.name)
            found.append(one)
        return found

    def _denoiser(self, name: str) -> Named:
        if name in list_filters():
            return Named(create_filter(name), TrainingPhotos())
        if ":/" not in name and name != STARTER and not Path(name).expanduser().is_dir():
            raise UserError(
                f"`models`: '{name}' is no filter ({', '.join(list_filters())}), not `starter`, no "
                "models:/ or runs:/ URI and no folder"
            )
        denoiser, card = self.load(name)
        if isinstance(denoiser, NetworkDenoiser) and denoiser.name == card.model:
            # Two models of one network in one table need names of their own.
            denoiser.name = name if ":/" in name else folder_name(name)
        return Named(denoiser, card.photos)


def find_baselines(names: Sequence[str], storage: Storage) -> list[Named]:
    """What a study's models are compared with: `noisy`, `nlm`, `starter`, and filters by name.

    Raises UserError for a name that is none of these.
    """
    known = ("noisy", STARTER, *list_filters())
    if unknown := [name for name in names if name not in known]:
        raise UserError(
            f"promotion.must_beat names '{unknown[0]}', which no comparison has; name some of "
            f"{', '.join(known)}"
        )
    return Resolver(None, storage).denoisers(list(dict.fromkeys(("nlm", STARTER, *names))))


def folder_name(folder: str) -> str:
    """The folder's own name; of `runs/train/NAME/model`, as training writes it, the run's."""
    path = Path(folder).expanduser().absolute()
    return path.parent.name if path.name == "model" else path.name


def _model_folder(text: str) -> Path:
    folder = Path(text).expanduser()
    if not text or ":/" in text or not folder.is_dir():
        raise UserError(
            f"there is no model '{text}': name models:/NAME@ALIAS, models:/NAME/VERSION, starter, "
            "or a folder that `degrain train` wrote"
        )
    return folder


def _load_of_run(
    client: MlflowClient, uri: str, config: InferenceConfig | None
) -> tuple[NetworkDenoiser, ModelCard]:
    """Load the model that the run `runs:/ID` logged. Raises UserError if there is none."""
    try:
        run = client.get_run(uri.removeprefix("runs:/"))
        artifacts = f"{run.info.artifact_uri}/{ARTIFACT_FOLDER}"
        with tempfile.TemporaryDirectory() as temporary:
            local = download_artifacts(client, artifacts, Path(temporary))
            return read_model(local, config, name=str(run.info.run_name))
    except (MlflowException, OSError):
        raise UserError(
            f"there is no model in the run '{uri}'; name a run of `degrain train` or a refit"
        ) from None


def lost_champion(client: MlflowClient, config: TrackingConfig) -> str | None:
    """Describe the last champion, if no version has the alias; None if there never was one.

    MLflow deletes the aliases of a version with it, so the last decision is looked up.
    """
    with store_errors():
        experiment = client.get_experiment_by_name(config.experiment)
        runs = experiment and client.search_runs(
            [experiment.experiment_id],
            filter_string="tags.`degrain.kind` = 'promotion' and "
            f"tags.`degrain.model` = '{config.model}' and tags.`degrain.champion` != 'none'",
            order_by=["attributes.start_time DESC"],
            max_results=1,
        )
    if not runs:
        return None
    return (
        f"the champion was {config.model} v{runs[0].data.tags['degrain.champion']}, which was "
        "deleted or lost the alias; make another version the champion with `degrain promote`"
    )
