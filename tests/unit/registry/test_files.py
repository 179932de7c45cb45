"""The manifest of a model folder refuses files that were changed, removed or added."""

from collections.abc import Callable
from pathlib import Path

import pytest

from degrain.errors import UserError
from degrain.registry.files import check_manifest, manifest_digest, write_manifest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "weights").write_bytes(b"123")
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "card").write_bytes(b"card")
    write_manifest(tmp_path)
    return tmp_path


def test_an_unchanged_folder_is_accepted(folder: Path) -> None:
    check_manifest(folder, "m v1")
    check_manifest(folder, "m v1", manifest_digest(folder))


def rewrite(folder: Path) -> None:
    (folder / "weights").write_bytes(b"124")
    write_manifest(folder)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda f: (f / "weights").write_bytes(b"124"), "'weights' does not have the SHA-256"),
        (lambda f: (f / "below" / "card").unlink(), "'below/card' is missing"),
        (lambda f: (f / "evil.pkl").touch(), r"'evil\.pkl' is not in manifest\.json"),
        (lambda f: (f / "below" / "x.py").touch(), r"'below/x\.py' is not in manifest\.json"),
        (lambda f: (f / "manifest.json").write_bytes(b"[]"), "manifest.json is not of format 1"),
    ],
)
def test_a_changed_folder_is_refused_with_its_reason(
    folder: Path, change: Callable[[Path], object], reason: str
) -> None:
    change(folder)
    message = rf"model 'm v1' was changed after it was written: .*{reason}.*; it is not loaded\."
    with pytest.raises(UserError, match=message) as caught:
        check_manifest(folder, "m v1")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("change", [rewrite, lambda f: (f / "manifest.json").unlink()])
def test_a_manifest_that_was_not_registered_is_refused(
    folder: Path, change: Callable[[Path], object]
) -> None:
    registered = manifest_digest(folder)
    change(folder)
    check_manifest(folder, "m v1")
    with pytest.raises(UserError, match=r"manifest\.json is not the one that was registered"):
        check_manifest(folder, "m v1", registered)


def test_a_folder_without_manifest_is_accepted_unless_one_was_registered(tmp_path: Path) -> None:
    check_manifest(tmp_path, "m")


def test_the_file_that_mlflow_adds_on_loading_is_accepted(folder: Path) -> None:
    (folder / "registered_model_meta").touch()
    check_manifest(folder, "m v1", manifest_digest(folder))
