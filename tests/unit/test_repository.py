"""The repository as a whole: names that would shadow others, and imports that do nothing."""

import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from documented import ROOT

from degrain.cli.main import COMMANDS, MODULES

PIPELINES = sorted(path.stem for path in (ROOT / "pipelines").glob("*.py"))


@pytest.mark.parametrize("folder", ["platform", "models", "pipelines"])
def test_folders_of_the_repository_are_no_packages(folder: str) -> None:
    """`platform` as a package would shadow the standard library's module."""
    assert (ROOT / folder).is_dir()
    assert not (ROOT / folder / "__init__.py").exists()


def test_standard_library_platform_is_found_from_the_root() -> None:
    script = (
        "import sys; sys.path.insert(0, ''); import platform; "
        "print(platform.__file__, platform.system())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    file, system = done.stdout.split()
    assert not Path(file).is_relative_to(ROOT / "platform")
    assert system == os.uname().sysname


def test_no_pipeline_shadows_a_package() -> None:
    """Python puts a script's folder first on its path: `pipelines/ray.py` would replace Ray."""
    taken = set(importlib.metadata.packages_distributions()) | sys.stdlib_module_names
    assert {"ray", "mlflow", "torch", "numpy"} <= taken
    assert set(PIPELINES) & taken == set()


def test_every_command_has_a_job_entry_point() -> None:
    files = {MODULES.get(name, name): name for name in COMMANDS}
    assert set(PIPELINES) == set(files)
    for file, name in files.items():
        assert f'main(["{name}", ' in (ROOT / "pipelines" / f"{file}.py").read_text()


def test_no_message_below_the_command_line_names_an_option() -> None:
    """Only `degrain.cli` knows options; the core names fields."""
    option = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
    # Options of other programs.
    foreign = {"--experiment-id", "--object-store-memory", "--always", "--abbrev", "--dirty"}
    found = {
        f"{path.relative_to(ROOT)}: {text}"
        for root in ("platform/degrain", "models/denoisenets")
        for path in (ROOT / root).rglob("*.py")
        if "cli" not in path.parts
        for text in option.findall(path.read_text())
        if text not in foreign
    }
    assert found == set()
