"""The repository as a whole: names that would shadow others, and imports that do nothing."""

import ast
import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from degrain.cli.main import COMMANDS, MODULES

REPOSITORY = Path(__file__).parents[2]
PIPELINES = sorted(path.stem for path in (REPOSITORY / "pipelines").glob("*.py"))
LIMITS = {"platform": 300, "models": 300, "pipelines": 300, "infra": 300}
LONGEST_FUNCTION = 40


@pytest.mark.parametrize("folder", ["platform", "models", "pipelines"])
def test_folders_of_the_repository_are_no_packages(folder: str) -> None:
    """`platform` as a package would shadow the standard library's module."""
    assert (REPOSITORY / folder).is_dir()
    assert not (REPOSITORY / folder / "__init__.py").exists()


def test_standard_library_platform_is_found_from_the_root() -> None:
    script = (
        "import sys; sys.path.insert(0, ''); import platform; "
        "print(platform.__file__, platform.system())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    file, system = done.stdout.split()
    assert not Path(file).is_relative_to(REPOSITORY / "platform")
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
        assert f'main(["{name}", ' in (REPOSITORY / "pipelines" / f"{file}.py").read_text()


@pytest.mark.parametrize("folder", LIMITS)
def test_files_are_short(folder: str) -> None:
    lengths = {
        str(path.relative_to(REPOSITORY)): len(path.read_text().splitlines())
        for path in (REPOSITORY / folder).rglob("*.py")
    }
    assert {name: n for name, n in lengths.items() if n > LIMITS[folder]} == {}


@pytest.mark.parametrize("folder", LIMITS)
def test_functions_and_lines_are_short(folder: str) -> None:
    long: list[str] = []
    for path in (REPOSITORY / folder).rglob("*.py"):
        text = path.read_text()
        name = path.relative_to(REPOSITORY)
        long += [f"{name}:{n}" for n, line in enumerate(text.splitlines(), 1) if len(line) > 100]
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and node.end_lineno:
                lines = node.end_lineno - node.lineno + 1
                if lines > LONGEST_FUNCTION:
                    long.append(f"{name}: {node.name} has {lines} lines")
    assert long == []


OLD_WORDS = (
    r"[`\"]untouched|Letter\b|Mailbox|must_go|want_rescue|\bgathering\(|tells_apart|passes_as_clean|"
    r"_Shelf|Outbox|\bhush\b|patiently|\bat_once\(|\bMix\b|--mix\b|FrameMean\.spread"
)


def test_old_words_are_gone() -> None:
    """Each of these has a plainer name now; the CHANGELOG may mention them."""
    listed = subprocess.run(
        ["git", "ls-files", "*.py", "*.md", "*.yaml", "*.toml"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    found: list[str] = []
    for name in listed.stdout.split():
        path = REPOSITORY / name
        if name == "CHANGELOG.md" or path == Path(__file__) or not path.exists():
            continue
        found += [f"{name}: {m}" for m in re.findall(OLD_WORDS, path.read_text())]
    assert found == []


def test_no_message_below_the_command_line_names_an_option() -> None:
    """Only `degrain.cli` knows options; the core names fields."""
    option = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
    # Options of other programs.
    foreign = {"--experiment-id", "--object-store-memory", "--always", "--abbrev", "--dirty"}
    found = {
        f"{path.relative_to(REPOSITORY)}: {text}"
        for root in ("platform/degrain", "models/denoisenets")
        for path in (REPOSITORY / root).rglob("*.py")
        if "cli" not in path.parts
        for text in option.findall(path.read_text())
        if text not in foreign
    }
    assert found == set()
