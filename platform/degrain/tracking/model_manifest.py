"""The manifest of a model folder: size and SHA-256 of each file, checked when it is loaded.

The registry stores the SHA-256 of the manifest as a tag of the version. So the artifact store alone
cannot replace a file of a registered model, nor add one.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from degrain.errors import UserError
from degrain.storage.json_file import json_bytes

MANIFEST_FILE = "manifest.json"
DIGEST_TAG = "degrain.sha256"
"""Tag of a registered version: the SHA-256 of its manifest."""
_FORMAT = 1
_WRITTEN_BY_MLFLOW = "registered_model_meta"
"""File that MLflow adds to the folder when it loads a version from an embedded store."""


def write_manifest(folder: Path) -> None:
    """Write the manifest of the files in `folder`."""
    files = {name: _entry(folder / name) for name in _names(folder)}
    (folder / MANIFEST_FILE).write_bytes(json_bytes({"format": _FORMAT, "files": files}))


def manifest_digest(folder: Path) -> str:
    """The SHA-256 of the manifest in `folder`, which covers all its files."""
    return _sha256(folder / MANIFEST_FILE)


def check_manifest(folder: Path, name: str, expected: str | None = None) -> None:
    """Compare the files of the model `name` in `folder` with its manifest, if it has one.

    With `expected`, the SHA-256 of the manifest, it must have one. Raises UserError for a file that
    was changed, removed or added.
    """
    file = folder / MANIFEST_FILE
    if expected is None and not file.exists():
        return
    if not file.exists() or (expected is not None and _sha256(file) != expected):
        raise _changed(name, f"{MANIFEST_FILE} is not the one that was registered")
    listed = _read(file, name)
    found = {path for path in _names(folder) if path != _WRITTEN_BY_MLFLOW}
    if added := sorted(found - set(listed)):
        raise _changed(name, f"'{added[0]}' is not in {MANIFEST_FILE}")
    for path, entry in listed.items():
        if path not in found:
            raise _changed(name, f"'{path}' is missing")
        if _entry(folder / path) != entry:
            raise _changed(name, f"'{path}' does not have the SHA-256 of {MANIFEST_FILE}")


def _changed(name: str, reason: str) -> UserError:
    return UserError(
        f"model '{name}' was changed after it was written: {reason}; it is not loaded. Restore its "
        "files from a backup, or train and register it again"
    )


def _read(file: Path, name: str) -> Mapping[str, object]:
    """The entries of a manifest by path. Raises UserError for another format."""
    try:
        content = json.loads(file.read_bytes())
        if content["format"] != _FORMAT:
            raise ValueError
        return dict(content["files"])
    except (ValueError, KeyError, TypeError):
        raise _changed(name, f"{MANIFEST_FILE} is not a manifest of format {_FORMAT}") from None


def _names(folder: Path) -> list[str]:
    """The paths of all files but the manifest, relative to `folder`."""
    paths = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(path for path in paths if path != MANIFEST_FILE)


def _entry(file: Path) -> dict[str, object]:
    return {"bytes": file.stat().st_size, "sha256": _sha256(file)}


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
