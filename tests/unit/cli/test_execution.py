"""From options to an exit status: summaries and errors."""

import errno
import os
import resource
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from degrain.cli.console import Console
from degrain.cli.execution import PartialFailureError, execute
from degrain.cli.main import main
from degrain.cli.options import CommonOptions
from degrain.errors import InvalidFieldError, JobFailedError, UserError


def command(work: Callable[[Console], dict[str, object]]) -> type[CommonOptions]:
    @dataclass(frozen=True, kw_only=True)
    class Command(CommonOptions):
        """A command."""

        batch_size: int = 1
        """Batch."""

        def run(self, console: Console) -> dict[str, object]:
            return work(console)

    return Command


def run(work: Callable[[Console], dict[str, object]], *argv: str) -> int:
    return execute(command(work), argv, prog="degrain test")  # type: ignore[type-var]


def raising(error: BaseException) -> Callable[[Console], dict[str, object]]:
    def work(_: Console) -> dict[str, object]:
        raise error

    return work


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (UserError("lower `batch_size`"), 2, "error: lower --batch-size\n"),
        (InvalidFieldError("batch_size", "is bad"), 2, "error: --batch-size is bad\n"),
        (JobFailedError("it broke"), 1, "error: it broke\n"),
        (
            OSError(errno.ENOSPC, "No space left on device", "/x"),
            1,
            "error: No space left on device ('/x'); free some space and run it again\n",
        ),
        (KeyboardInterrupt(), 130, "error: interrupted; what was finished is kept\n"),
        (
            UserError("there is no photo 'a\nb\x1b[2J\udcff'"),
            2,
            "error: there is no photo 'a\\nb\\x1b[2J\\udcff'\n",
        ),
    ],
)
def test_errors_become_one_line_and_a_status(
    error: BaseException, status: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(raising(error)) == status
    assert capsys.readouterr().err == line


def test_bug_keeps_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(raising(ZeroDivisionError())) == 1
    said = capsys.readouterr().err
    assert "Traceback" in said
    assert said.endswith(
        "error: unexpected ZeroDivisionError; this is a bug in degrain, please report it\n"
    )


def test_interrupt_after_output_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    def work(console: Console) -> dict[str, object]:
        console.print("begun")
        raise KeyboardInterrupt

    assert run(work) == 130
    assert capsys.readouterr().err == "error: interrupted; what was finished is kept\n"


def test_summary_is_written(tmp_path: Path) -> None:
    file = tmp_path / "s.json"
    assert run(lambda _: {"b": float("inf")}, "--summary", str(file)) == 0
    assert file.read_text() == '{\n "b": null\n}\n'
    assert run(lambda _: {"c": 2}, "--summary", str(file)) == 0
    assert file.read_text() == '{\n "c": 2\n}\n'


def test_summary_is_written_when_part_of_the_work_fails(tmp_path: Path) -> None:
    file = tmp_path / "s.json"
    failure = PartialFailureError("one photo failed", {"failed": ["a.png"]})
    assert run(raising(failure), "--summary", str(file)) == 1
    assert '"a.png"' in file.read_text()


def test_summary_does_not_replace_another_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = tmp_path / "a.png"
    photo.write_bytes(b"\x89PNG")
    assert run(lambda _: {}, "--summary", str(photo)) == 2
    assert "it is a file but no summary" in capsys.readouterr().err
    assert photo.read_bytes() == b"\x89PNG"


@pytest.mark.parametrize(
    "work",
    [
        lambda _: {"photos": "x" * 40_000},
        raising(PartialFailureError("2 of 3 failed", {"photos": "x" * 40_000})),
    ],
    ids=["success", "part failed"],
)
def test_a_summary_on_a_full_disk_is_named_and_the_old_one_stays(
    work: Callable[[Console], dict[str, object]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    summary = tmp_path / "summary.json"
    summary.write_text("{}")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, limit[1]))
    try:
        assert run(work, "--summary", str(summary)) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, before)
    assert str(summary) in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["summary.json"]
    assert summary.read_text() == "{}"


def test_a_user_without_a_home_folder_gets_the_name_of_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """MLflow cannot be imported without."""

    def unknown() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setenv("HOME", "")
    monkeypatch.setattr(Path, "home", unknown)
    assert main(["history", "--nothing"]) == 2
    assert os.environ["HOME"] == "/nonexistent"
