"""Artifacts of an embedded store whose folder was moved or copied, with its database, elsewhere.

MLflow records absolute paths, in each run and version, and has no setting for another place.
"""

import re
from pathlib import Path

from mlflow.store.artifact.artifact_repository_registry import _artifact_repository_registry
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

_OF_RUN = re.compile(r"(?P<root>.*)/(?P<run>[0-9a-f]{32}/artifacts(/.*)?)")
_folders: dict[str, Path] = {}
"""Folder of the artifacts by address of the embedded store."""


class _Repository(LocalArtifactRepository):
    """MLflow's repository of a local folder, at the place where the folder is now."""

    def __init__(
        self, artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None
    ) -> None:
        folder = _folders.get(tracking_uri or "")
        if folder is not None:
            artifact_uri = str(present_path(artifact_uri.removeprefix("file://"), folder))
        super().__init__(artifact_uri, tracking_uri, registry_uri)


def follow_moved_artifacts(tracking_uri: str, folder: Path) -> None:
    """Have MLflow's client look in `folder` for artifacts that are not where they were recorded."""
    _folders[tracking_uri] = folder
    for scheme in ("", "file"):
        _artifact_repository_registry.register(  # type: ignore[no-untyped-call]
            scheme, _Repository
        )


def present_path(recorded: str, folder: Path) -> Path:
    """The path of a run's artifacts: in `folder` if the run is there, or if nothing is left of the
    folder in which they were recorded.
    """
    found = _OF_RUN.fullmatch(recorded)
    if found is None:
        return Path(recorded)
    moved = folder / found["run"]
    run = found["run"].partition("/")[0]
    return moved if (folder / run).exists() or not Path(found["root"]).exists() else Path(recorded)
