"""A command from its options to its exit status: errors become one line, results a summary."""

import contextlib
import errno
import logging
import os
import signal
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from degrain.cli.config_file import config_text
from degrain.cli.console import Console, visible
from degrain.cli.option_types import option_types, with_flags
from degrain.cli.options import given_options, parse
from degrain.errors import JobFailedError, UserError, find_cause
from degrain.interrupts import interrupt_on_signals

_REMEDIES = {
    errno.ENOSPC: "free some space and run it again",
    errno.EDQUOT: "free some of your quota and run it again",
    errno.EROFS: "name a folder that can be written",
    errno.EACCES: "check the permissions, or name another folder",
}


class Command(Protocol):
    """A subcommand: its fields are its options, `run` does its work."""

    @property
    def summary(self) -> Path | None:
        """File to write the result to."""
        ...

    @property
    def print_config(self) -> bool:
        """Whether the options are printed, and nothing else is done."""
        ...

    @property
    def verbose(self) -> bool:
        """Whether Ray's and MLflow's messages are shown."""
        ...

    def run(self, console: Console) -> dict[str, object]:
        """Do the work and return the summary."""
        ...


C = TypeVar("C", bound=Command)


class PartialFailureError(JobFailedError):
    """Part of the work failed; `summary` describes all of it and is written all the same."""

    def __init__(self, message: str, summary: dict[str, object]) -> None:
        super().__init__(message)
        self.summary = summary


def execute(kind: type[C], argv: Sequence[str], *, prog: str, interrupt: object = None) -> int:
    """Parse the options, run the command, write its summary; returns the exit status.

    `interrupt` is the handler of SIGINT that is restored when the work begins.
    """
    names = option_types(kind)
    console = Console()
    try:
        command = parse(kind, argv, prog=prog)
        # Defaults that depend on other options: those of a resumed run, or of a network's recipe.
        if (defaults := getattr(command, "defaults", None)) is not None:
            default = defaults(given_options(kind, argv))
            command = parse(kind, argv, prog=prog, default=default)
            command.check_against(default)
        if command.print_config:
            print(config_text(command), end="")
            return 0
        _check_summary(command.summary)
        logging.getLogger("degrain").setLevel(logging.DEBUG if command.verbose else logging.INFO)
        if interrupt is not None:
            signal.signal(signal.SIGINT, interrupt)  # type: ignore[arg-type]
        interrupt_on_signals()
        failure: PartialFailureError | None = None
        try:
            result = command.run(console)
        except PartialFailureError as error:
            result, failure = error.summary, error
        console.end_status()
        _write_summary(command.summary, result)
        if failure is not None:
            raise failure
    except KeyboardInterrupt:
        console.end_status()
        return _interrupted()
    except Exception as error:  # noqa: BLE001 - the outermost frame: every error gets a status
        console.end_status()
        return _exit(report_error(error, names))
    return 0


def report_error(error: Exception, names: Mapping[str, Any]) -> int:
    """Print the one line of an error; returns the exit status. Fields in it become options."""
    known = find_cause(error)
    if isinstance(known, UserError):
        return _fail(with_flags(str(known), names), 2)
    if isinstance(known, JobFailedError):
        return _fail(with_flags(str(known), names), 1)
    if isinstance(error, OSError) and error.errno is not None:
        where = f" ('{error.filename}')" if error.filename else ""
        remedy = _REMEDIES.get(error.errno)
        return _fail(f"{error.strerror}{where}" + (f"; {remedy}" if remedy else ""), 1)
    from degrain.storage.retry import bucket_error

    if (line := bucket_error(_innermost(error))) is not None:
        return _fail(line, 1)
    traceback.print_exc()
    kind = type(error).__name__
    return _fail(f"unexpected {kind}; this is a bug in degrain, please report it", 1)


def _innermost(error: BaseException) -> BaseException:
    """The exception that an error of a Ray task or worker wraps."""
    while isinstance(inside := getattr(error, "cause", None) or error.__cause__, BaseException):
        error = inside
    return error


def _interrupted() -> int:
    from degrain.cluster import shut_down_ray

    # Who presses Ctrl-C once more does not want to wait for it.
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    shut_down_ray()
    _fail("interrupted; what was finished is kept", 130)
    return _exit(130)


def _exit(status: int) -> int:
    """The exit status; ends the process here if a thread is blocked in Ray.

    Ray would end it with a status of its own.
    """
    from degrain.cluster import blocked_in_ray

    if blocked_in_ray():
        import psutil

        sys.stdout.flush()
        # Processes of a Ray that this process started outlive it by up to a minute.
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        os._exit(status)
    return status


def _fail(text: str, status: int) -> int:
    print(f"error: {visible(text)}", file=sys.stderr, flush=True)
    return status


def _check_summary(path: Path | None) -> None:
    """Raise UserError before the work, not after it, if the summary cannot be written."""
    if path is None:
        return
    if not path.absolute().parent.is_dir():
        folder = path.absolute().parent
        raise UserError(f"cannot write '{path}': there is no folder '{folder}'; make it first")
    if path.is_dir():
        raise UserError(f"cannot write '{path}': it is a folder; name a file with `summary`")
    if path.is_file() and not _may_be_summary(path):
        raise UserError(
            f"cannot write '{path}': it is a file but no summary; name another with `summary`"
        )


def _may_be_summary(path: Path) -> bool:
    """Whether a file is empty or begins as a summary does; others are not overwritten."""
    with path.open("rb") as file:
        return file.read(1) in (b"", b"{")


def _write_summary(path: Path | None, result: Mapping[str, object]) -> None:
    if path is not None:
        from degrain.storage.json_file import json_bytes
        from degrain.storage.location import Storage

        content = json_bytes(result)
        if path.exists() and not path.is_file():  # a pipe or a terminal, which cannot be replaced
            path.write_bytes(content)
        else:
            Storage().locate(path.resolve()).write_bytes(content)
