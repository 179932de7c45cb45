"""Follows the aliases of the registered model: looks, downloads new versions, remembers the last.

While the registry does not answer, the last models stay. `connect` and downloads block, so a thread
calls `look`.
"""

import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from mlflow import MlflowClient

from degrain.errors import JobFailedError, NoModelError, UserError
from degrain.inference.config import STARTER
from degrain.registry.files import CARD_FILE, STARTER_FOLDER, check_manifest
from degrain.registry.resolver import lost_champion
from degrain.registry.versions import (
    DownloadedModel,
    ModelVersion,
    alias_holders,
    download_registered,
)
from degrain.serving.messages import CHAMPION, Models, ServedModel
from degrain.storage.location import Storage
from degrain.tracking.client import connect, no_retry, short_text
from degrain.tracking.config import TrackingConfig

REACHABLE = "reachable"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelFiles:
    """The files of a model's folder by name, with the SHA-256 of its manifest where it has one."""

    files: Mapping[str, bytes]
    digest: str | None


class RegistryFollower:
    """The models that clients may name: those that hold an alias, and the starter model.

    Their files are in `folder`.
    """

    def __init__(self, tracking: TrackingConfig, storage: Storage, folder: Path) -> None:
        self._tracking, self._storage, self._folder = tracking, storage, folder
        starter = DownloadedModel(STARTER_FOLDER, STARTER, None)
        self._downloaded = {STARTER: starter}
        self._client: MlflowClient | None = None
        self.current: Models | None = None
        """The models at the last look that succeeded; None before it."""

    def look(self) -> Models | None:
        """Look at the registry once; downloads versions that are new."""
        try:
            with no_retry():
                self.current = self._read(self._holders())
        except (UserError, JobFailedError, OSError) as error:
            self._client = None
            _log.warning("the registry does not answer: %s", short_text(error))
            if self.current is not None:
                self.current = replace(self.current, registry=short_text(error))
        return self.current

    def files(self, label: str) -> ModelFiles | None:
        """The files of a model of `current`; None for another."""
        if (found := self._downloaded.get(label)) is None:
            return None
        paths = [path for path in found.folder.rglob("*") if path.is_file()]
        files = {path.relative_to(found.folder).as_posix(): path.read_bytes() for path in paths}
        return ModelFiles(files, found.digest)

    def _holders(self) -> Mapping[str, ModelVersion]:
        """Alias to version; empty where nothing was registered yet."""
        try:
            if self._client is None:
                self._client = connect(self._tracking, self._storage, create=False)
        except NoModelError:
            # A store that had a champion and is not there any more does not answer.
            if self.current is not None and not self.current.is_starter:
                raise
            return {}
        return alias_holders(self._client, self._tracking.model)

    def _read(self, holders: Mapping[str, ModelVersion]) -> Models:
        found = []
        # The champion first: it is the one that serves.
        for alias, version in sorted(holders.items(), key=lambda item: item[0] != CHAMPION):
            try:
                self._download(version)
            except UserError as error:
                # A champion that was changed in the store does not replace the one that serves.
                if alias == CHAMPION:
                    raise
                _log.warning("%s is left out: %s", version.label, short_text(error))
            else:
                found.append(self._served(alias, version.label))
        starter = self._served(STARTER, STARTER)
        has_champion = bool(found) and found[0].id == CHAMPION
        self._forget({model.label for model in found})
        models = [*found, starter] if has_champion else [starter, *found]
        lost = None if has_champion or self._client is None else self._lost_champion()
        return Models(models=tuple(models), registry=REACHABLE, lost_champion=lost)

    def _lost_champion(self) -> str | None:
        """Why there is no champion any more; it is logged once."""
        assert self._client is not None
        lost = lost_champion(self._client, self._tracking)
        if lost and (self.current is None or self.current.lost_champion != lost):
            _log.warning("the starter model serves: %s", lost)
        return lost

    def _download(self, version: ModelVersion) -> None:
        if version.label in self._downloaded:
            return
        assert self._client is not None
        folder = self._folder / version.version
        folder.mkdir(exist_ok=True)
        found = download_registered(self._client, version.uri, folder)
        check_manifest(found.folder, found.name, found.digest)
        self._downloaded[version.label] = found

    def _served(self, alias: str, label: str) -> ServedModel:
        card = json.loads((self._downloaded[label].folder / CARD_FILE).read_text())
        return ServedModel(id=alias, label=label, card=card)

    def _forget(self, kept: set[str]) -> None:
        """Delete the files of versions without an alias; replicas have loaded what they use."""
        for label in self._downloaded.keys() - kept - {STARTER}:
            shutil.rmtree(self._downloaded.pop(label).folder, ignore_errors=True)
