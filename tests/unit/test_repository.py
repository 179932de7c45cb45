"""The repository as a whole: names that would shadow others, and what the pipelines say of themselves."""

import importlib.metadata
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[2]
PIPELINES = sorted(path.stem for path in (REPOSITORY / "pipelines").glob("*.py"))


@pytest.mark.parametrize("folder", ["platform", "models", "pipelines"])
def test_folders_of_the_repository_are_no_packages(folder: str) -> None:
    """`platform` as a package would shadow the standard library's module."""
    assert (REPOSITORY / folder).is_dir()
    assert not (REPOSITORY / folder / "__init__.py").exists()


def test_the_standard_librarys_platform_is_found_from_the_root() -> None:
    script = "import sys; sys.path.insert(0, ''); import platform; print(platform.__file__, platform.system())"
    done = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    file, system = done.stdout.split()
    assert not Path(file).is_relative_to(REPOSITORY / "platform")
    assert system == os.uname().sysname


def test_no_pipeline_shadows_a_package() -> None:
    """Python puts a script's folder first on its path: `pipelines/ray.py` would be imported for Ray."""
    taken = set(importlib.metadata.packages_distributions()) | sys.stdlib_module_names
    assert {"ray", "mlflow", "torch", "numpy"} <= taken
    assert len(PIPELINES) >= 5
    assert set(PIPELINES) & taken == set()


DESCRIBE = """
import importlib.util, json, sys
from pathlib import Path
import ray
described = {}
for file in sys.argv[1:]:
    spec = importlib.util.spec_from_file_location(Path(file).stem, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made = module.arguments()
    described[spec.name] = {
        "documentation": module.__doc__.split(".")[0],
        "help": made.format_help(),
        "options": {(a.option_strings or [a.dest])[-1]: {"help": a.help, "required": a.required} for a in made._actions},
    }
print(json.dumps({"pipelines": described, "ray": ray.is_initialized(), "made": [str(p) for p in Path().iterdir()]}))
"""


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the pipelines' parsers say, asked for in a process of its own, in an empty folder."""
    files = [str(REPOSITORY / "pipelines" / f"{name}.py") for name in PIPELINES]
    packages = os.pathsep.join(str(REPOSITORY / folder) for folder in ("platform", "models"))
    done = subprocess.run(
        [sys.executable, "-c", DESCRIBE, *files],
        cwd=tmp_path_factory.mktemp("empty"),
        env={**os.environ, "PYTHONPATH": packages, "COLUMNS": "1000"},
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def entries(text: str) -> dict[str, str]:
    """The text of each option in a parser's help, on one line."""
    options = re.split(r"\n  (?=-)", text.partition("\noptions:")[2])[1:]
    names = [re.findall(r"(?<!\w)--?[a-z-]+", option.split("  ")[0])[-1] for option in options]
    return {name: " ".join(option.split()) for name, option in zip(names, options, strict=True)}


def test_importing_a_pipeline_does_nothing(described: dict[str, Any]) -> None:
    assert described["ray"] is False
    assert described["made"] == []


@pytest.mark.parametrize("name", PIPELINES)
def test_a_pipeline_and_all_its_options_say_what_they_are_for(described: dict[str, Any], name: str) -> None:
    pipeline = described["pipelines"][name]
    assert pipeline["documentation"] in pipeline["help"]
    assert len(pipeline["options"]) > 3
    assert [option for option, said in pipeline["options"].items() if not said["help"]] == []


@pytest.mark.parametrize("name", PIPELINES)
def test_every_option_that_may_be_left_out_names_its_default_once(described: dict[str, Any], name: str) -> None:
    pipeline = described["pipelines"][name]
    said = entries(pipeline["help"])
    free = {o for o, known in pipeline["options"].items() if o.startswith("--") and not known["required"]} - {"--help"}
    assert free <= set(said)
    assert {option: said[option] for option in free if said[option].count("(default: ") != 1} == {}


@pytest.mark.parametrize("name", PIPELINES)
def test_none_is_no_default(described: dict[str, Any], name: str) -> None:
    said = entries(described["pipelines"][name]["help"])
    assert [text for text in said.values() if re.search(r"\(default: (None)?\)", text)] == []
