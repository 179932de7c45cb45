"""Options from dataclasses: help, errors of one line, YAML files, fast answers."""

import dataclasses
import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from documented import ROOT

from degrain.cli.denoise import Denoise
from degrain.cli.main import COMMANDS, MODULES, main
from degrain.cli.option_types import option_types, with_flags
from degrain.cli.options import CommonOptions, given_options, parse
from degrain.cli.train import Train
from degrain.cli.tune import Tune
from degrain.errors import InvalidFieldError, UserError
from degrain.training.distributed.workers import WorkerRange

PACKAGES = [str(ROOT / folder) for folder in ("platform", "models")]


@dataclass(frozen=True, kw_only=True)
class Nested:
    """Patches."""

    patch_size: int = 128
    """Side of a patch, pixels."""

    def __post_init__(self) -> None:
        if self.patch_size < 16:
            raise InvalidFieldError("patch_size", f"must be at least 16, got {self.patch_size}")


@dataclass(frozen=True, kw_only=True)
class Example(CommonOptions):
    """An example."""

    corpus: Sequence[str]
    """Corpora."""
    models: tuple[str, ...] = ("a", "b")
    """Models."""
    kind: Literal["red", "blue"] = "red"
    """Colour."""
    compiled: Literal["auto", "on", "off"] = "auto"
    """Compiled."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Arguments."""
    workers: WorkerRange = WorkerRange()  # noqa: RUF009 - it is frozen
    """Workers."""
    steps: int | None = None
    """Steps. None: all."""
    reread: bool = False
    """Read again."""
    nested: Nested = field(default_factory=Nested)


def read(*argv: str) -> Example:
    return parse(Example, argv, prog="degrain example")


def test_options_become_fields() -> None:
    found = read(
        *("--corpus", "a=b", "--models", "x, y", "--kind", "blue", "--steps", "3", "--reread"),
        *("--arguments", '{"width": 4}', "--workers", "2:8", "--patch-size", "32", "-v"),
    )
    assert found == Example(
        corpus=["a=b"],
        models=("x", "y"),
        kind="blue",
        steps=3,
        reread=True,
        arguments={"width": 4},
        workers=WorkerRange(2, 8),
        nested=Nested(patch_size=32),
        verbose=True,
    )


def test_repeated_options_are_gathered_and_others_take_the_last_value() -> None:
    found = read("--corpus", "a", "--steps", "1", "--corpus=b", "--steps", "2", "--corpus", "c")
    assert list(found.corpus) == ["a", "b", "c"]
    assert found.steps == 2


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--tpyo"], "unrecognized arguments: --tpyo; see degrain example --help"),
        (["--stepz", "1"], "unrecognized arguments: --stepz 1 .did you mean --steps..; see"),
        (["--steps", "many"], "argument --steps: 'many' is not a number; see degrain example"),
        (["--steps", "a\\b"], "argument --steps: .* is not a number; see degrain example --help"),
        (["--steps", "it's"], "argument --steps: 'it's' is not a number; see degrain example"),
        (
            ["--kind", "rde"],
            "unknown value 'rde'; did you mean 'red'. Known values: blue, red",
        ),
        (["--patch-size", "3"], "--patch-size must be at least 16, got 3"),
        (["--workers", "4:2"], "--workers must be a range MIN:MAX with MIN <= MAX, got 4:2"),
        (["--workers", "x"], "--workers must be a number, or a range such as 2:8, got 'x'"),
        (["--arguments", "width"], "argument --arguments: 'width' is not JSON"),
        (["--arguments", "3"], "argument --arguments: '3' is not a JSON object"),
        (["--steps"], "argument --steps: .* missing; see"),
    ],
)
def test_wrong_options_give_one_line(argv: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        read("--corpus", "a", *argv)
    assert len(str(caught.value).splitlines()) == 1


def test_fields_in_messages_become_options() -> None:
    names = {"batch_size": int, "crop": int}
    assert with_flags("batch_size must be 1; lower `crop`", names) == (
        "--batch-size must be 1; lower --crop"
    )
    assert with_flags("a batch_size of 1, `other`", names) == "a batch_size of 1, `other`"


def write(tmp_path: Path, text: str) -> str:
    (tmp_path / "options.yaml").write_text(text)
    return str(tmp_path / "options.yaml")


def test_yaml_has_the_shape_of_the_fields_and_the_command_line_wins(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        "corpus: [a=b, c=d]\nmodels: [x, y]\narguments: {width: 4}\nsteps: 7\nreread: true\n"
        "workers: 2:8\nnested:\n  patch_size: 64\n",
    )
    found = read("--config", file, "--steps", "9")
    assert list(found.corpus) == ["a=b", "c=d"]
    assert (found.models, found.arguments, found.steps) == (("x", "y"), {"width": 4}, 9)
    assert (found.reread, found.workers, found.nested.patch_size) == (True, WorkerRange(2, 8), 64)


def test_yaml_expands_merge_keys(tmp_path: Path) -> None:
    file = write(tmp_path, "nested: &small {patch_size: 64}\narguments: {<<: *small, width: 4}\n")
    found = read("--corpus", "a", "--config", file)
    assert found.arguments == {"patch_size": 64, "width": 4}
    file = write(tmp_path, "arguments: &small {patch_size: 64}\nnested: {<<: *small}\n")
    assert read("--corpus", "a", "--config", file).nested == Nested(patch_size=64)


@pytest.mark.parametrize("value", ["on", "off", "'off'"])
def test_yaml_words_for_true_and_false_are_values_of_a_choice(tmp_path: Path, value: str) -> None:
    file = write(tmp_path, f"compiled: {value}\n")
    assert read("--corpus", "a", "--config", file).compiled == value.strip("'")


@pytest.mark.parametrize(("value", "expected"), [("yes", True), ("true", True), ("no", False)])
def test_yaml_sets_switches(tmp_path: Path, value: str, expected: bool) -> None:
    file = write(tmp_path, f"reread: {value}\n")
    assert read("--corpus", "a", "--config", file).reread == expected


def test_yaml_lists_names_of_an_option_that_may_be_none(tmp_path: Path) -> None:
    file = write(tmp_path, "study:\n  models: [red10, mwcnn]\n")
    found = parse(Tune, ["--config", file], prog="degrain tune")
    assert found.study.models == ("red10", "mwcnn")


EVERY_COMMAND = {
    "ingest": ["--corpus", "pairs:a=b", "--corpus", "sidd=c", "--out", "p", "--reread"],
    "explore": ["--data", "p", "--out", "r"],
    "train": ["--data", "p", "--budget", "90s", "--learning-rate", "1e-4", "--workers", "2:8"],
    "tune": ["--models", "red10,mwcnn", "--warm-start", "--spaces", '{"red10": {"width": [4, 8]}}'],
    "retrain": ["--corpus", "sidd=b", "--out", "p", "--schedule", "0 3 * * 1"],
    "evaluate": ["--pairs", "pairs=a", "--out", "r", "--models", "noisy,nlm"],
    "promote": ["--without-gates", "yes"],
    "rollback": ["--mlflow", "m.yaml"],
    "history": ["--most", "3"],
    "runs": ["runs", "--remove", "a,b", "--older-than", "30d"],
    "denoise": ["a.png", "--out", "d", "--noise-level", "0.1"],
    "serve": ["--port", "8080"],
    "export": ["starter", "--out", "x.onnx"],
    "import": ["a.pth", "--network", "dncnn", "--licence", "MIT: it's \u00fc"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_printed_config_file_sets_the_same_options(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = EVERY_COMMAND[name]
    assert main([name, *argv, "--print-config"]) == 0
    printed = capsys.readouterr().out
    file, positional = write(tmp_path, printed), [a for a in argv[:1] if not a.startswith("-")]
    command = importlib.import_module(f"degrain.cli.{MODULES.get(name, name)}").COMMAND
    default = None
    if name == "train":  # The recipe sets what the user does not.
        default = parse(command, argv, prog=name).defaults(given_options(command, argv))
    given = parse(command, argv, prog=name, default=default)
    found = parse(command, [*positional, "--config", file], prog=name)
    assert dataclasses.replace(found, config=None) == given
    assert main([name, *positional, "--config", file, "--print-config"]) == 0
    assert capsys.readouterr().out == printed


@pytest.mark.parametrize(("word", "expected"), [("--warm-start", True), ("-v", False)])
def test_switches_are_given_beside_defaults_that_have_them(word: str, expected: bool) -> None:
    default = parse(Tune, [word], prog="degrain tune")
    found = parse(Tune, [word], prog="degrain tune", default=default)
    assert (found, found.study.warm_start) == (default, expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "stepz: 3\n",
            "options.yaml: unknown key 'stepz'; did you mean 'steps'. Known keys",
        ),
        (
            "nested: {patchsize: 3}\n",
            "'nested.patchsize'; did you mean 'nested.patch_size'",
        ),
        ("- a\n", "must be a mapping of keys to values"),
        ("steps: 3\nsteps: 4\n", "cannot read '.*': the key 'steps' is written twice .* line 2"),
        ("nested: {patch_size: 32, patch_size: 64}\n", "'patch_size' is written twice"),
        ("nested: 3\n", "'nested' in '.*' must be a mapping"),
        ("a: [\n", "cannot read '.*options.yaml'"),
        ("reread: 3\n", "options.yaml: 'reread' must be true or false, got '3'"),
        ("steps: true\n", "argument --steps: 'true' is not a number"),
    ],
)
def test_wrong_yaml_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read("--corpus", "a", "--config", write(tmp_path, text))


def test_missing_yaml_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read '.*none.yaml': No such file"):
        read("--config", str(tmp_path / "none.yaml"))


def test_positional_arguments_are_neither_yaml_keys_nor_suggested_options(tmp_path: Path) -> None:
    assert "photos" not in option_types(Denoise)
    file = write(tmp_path, "photos: [a.png]\n")
    with pytest.raises(UserError, match="unknown key 'photos'") as caught:
        parse(Denoise, ["b.png", "--out", "c", "--config", file], prog="degrain denoise")
    assert "photos," not in str(caught.value).partition("Known keys")[2]
    with pytest.raises(UserError, match=r"unrecognized arguments: --photoz=a\S+; see"):
        parse(Denoise, ["b.png", "--out", "c", "--photoz=a.png"], prog="degrain denoise")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_documented(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = importlib.import_module(f"degrain.cli.{MODULES.get(name, name)}").COMMAND
    with pytest.raises(SystemExit) as left:
        main([name, "--help"])
    assert left.value.code == 0
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert command.__doc__.split(".")[0].split("\n")[0] in said
    options = option_types(command)
    assert len(options) > 3
    flags = {f"--{option.replace('_', '-')}" for option in options}
    assert {flag for flag in flags if not re.search(rf"{flag}[ ,]", said)} == set()
    if "{None}|" in said:
        # Whatever may be None says what None means.
        assert said.count("None: ") >= len([f for f in _leaves(command) if f.default is None])


def _leaves(owner: type) -> list[dataclasses.Field[Any]]:
    found: list[dataclasses.Field[Any]] = []
    for part in dataclasses.fields(owner):
        kind = part.type if isinstance(part.type, type) else None
        found += _leaves(kind) if kind and dataclasses.is_dataclass(kind) else [part]
    return found


def test_help_lists_all_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    assert all(f"  {name} " in said for name in COMMANDS)


@pytest.mark.parametrize("command", [Train, Tune])
def test_a_duration_without_a_unit_is_refused_in_one_plain_sentence(command: type) -> None:
    with pytest.raises(UserError) as caught:
        parse(command, ["--budget", "15"], prog="degrain x")
    assert str(caught.value) == (
        "argument --budget: '15' is not a duration; write e.g. 90s, 15m, 2h or 1h30m; see degrain "
        "x --help"
    )


def test_unknown_command_suggests_the_near_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trian"]) == 2
    assert "unknown subcommand 'trian'; did you mean 'train'?" in capsys.readouterr().err


HEAVY = ("torch", "ray", "mlflow", "numpy", "pyarrow", "matplotlib")
PROBE = """
import json, sys
from degrain.cli.denoise import Denoise
from degrain.cli.main import main
try:
    status = main(json.loads(sys.argv[1]))
except SystemExit as left:
    status = left.code
print(json.dumps([status, sorted(set(sys.argv[2:]) & set(sys.modules))]))
"""


@pytest.mark.parametrize(
    "argv",
    [
        ["--help"],
        *([name, "--help"] for name in COMMANDS),
        *([name, "--tpyo"] for name in COMMANDS),
        ["tune", "--models", "red1O"],
        ["train", "--data", "x", "--model", "unet3000"],
        ["train", "--data", "x", "--steps", "0"],
        ["ingest", "--corpus", "sid=x", "--out", "y"],
    ],
    ids=" ".join,
)
def test_help_and_wrong_options_import_nothing_heavy(argv: list[str], tmp_path: Path) -> None:
    """What keeps them below half a second; `make bench` measures the time."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE, json.dumps(argv), *HEAVY],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(PACKAGES)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    status, imported = json.loads(done.stdout.splitlines()[-1])
    assert imported == []
    assert status == (0 if "--help" in argv else 2)
    assert list(tmp_path.iterdir()) == []
