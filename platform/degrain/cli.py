"""What every pipeline shares: options, progress, summary, exit status, and the way to Ray.

A pipeline is `parse -> job -> lines`. Exit status 0 means done, 1 failed, 2 bad input, 130 interrupted.
"""

import argparse
import contextlib
import errno
import json
import logging
import os
import re
import signal
import socket
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import psutil
from rich.console import Console as RichConsole
from rich.markup import escape
from rich.status import Status

from degrain.errors import JobFailedError, UserError, find_cause
from degrain.storage import json_bytes

INSIDE_RAY = "inside-ray"
"""Name of a thread that waits in a call of Ray's for as long as a job takes."""
_PROGRESS_SECONDS = 15
_CONNECT_SECONDS = 5
_REMEDIES = {
    errno.ENOSPC: "free some space and run it again",
    errno.EDQUOT: "free some of your quota and run it again",
    errno.EROFS: "name a folder that can be written",
    errno.EACCES: "check the permissions, or name another folder",
}
T = TypeVar("T")


class _Help(argparse.HelpFormatter):
    """Help that ends each option that may be left out with its default."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        text = action.help or ""
        if not action.option_strings or action.required or "(default:" in text or action.default is argparse.SUPPRESS:
            return text
        if action.default is False:
            return f"{text} (default: off)"
        default = "none" if action.default in (None, "") else "%(default)s"
        return f"{text} (default: {default})"


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints are one line, as all of ours are."""

    def error(self, message: str) -> NoReturn:
        sys.exit(_fail(f"{message}; see {self.prog} --help", 2))


def parser(description: str) -> argparse.ArgumentParser:
    """An argument parser with the options that every pipeline has."""
    made = _Parser(description=description, formatter_class=_Help, allow_abbrev=False)
    made.add_argument("--summary", type=Path, metavar="FILE", help="write the result there as JSON")
    made.add_argument("-v", "--verbose", action="store_true", help="show the messages of Ray and MLflow too")
    return made


def add_tracking(made: argparse.ArgumentParser) -> None:
    """The option that names `mlflow.yaml`."""
    made.add_argument("--mlflow", type=Path, default=Path("mlflow.yaml"), metavar="FILE", help="where runs and models go")


def checked(build: Callable[[], T], options: argparse.Namespace) -> T:
    """What `build` gives, its ValueError turned into a UserError: for configurations made of options.

    A message that begins with the name of an option's field is told with the option: `batch_size` becomes `--batch-size`.
    """
    try:
        return build()
    except ValueError as error:
        first, _, rest = str(error).partition(" ")
        option = f"--{first.replace('_', '-')}" if first in vars(options) else first
        raise UserError(f"{option} {rest}") from None


def names(text: str) -> list[str]:
    """An option that is a comma-separated list."""
    return [name.strip() for name in text.split(",") if name.strip()]


def json_object(text: str) -> dict[str, Any]:
    """An option that is a JSON object."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"'{text}' is not JSON ({error}); write e.g. '{{\"width\": 32}}'") from None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"'{text}' is not a JSON object; write e.g. '{{\"width\": 32}}'")
    return value


class Console:
    """Lines for the user, and a progress display: transient on a terminal, a line now and then elsewhere."""

    def __init__(self) -> None:
        self._rich = RichConsole(highlight=False, soft_wrap=True)
        self._status: Status | None = None
        self._last = 0.0

    def say(self, text: str = "") -> None:
        """Print a line."""
        if self._rich.is_terminal:
            self._rich.print(text, markup=False)
        else:
            print(text, flush=True)

    def progress(self, label: str, unit: str) -> Callable[[int, int], None]:
        """A function of (done, all) that shows how far `label` is."""
        self._last = time.monotonic()

        def show(done: int, total: int) -> None:
            if done < total:
                self.status(f"  {label}: {done}/{total} {unit}")
            else:
                self.end_status()

        return show

    def status(self, text: str) -> None:
        """Show a line that the next one replaces; not on a terminal, one that stays, if the last was a while ago."""
        if not self._rich.is_terminal:
            if time.monotonic() - self._last > _PROGRESS_SECONDS:
                self._last = time.monotonic()
                self.say(text)
            return
        if self._status is None:
            self._status = self._rich.status("")
            self._status.start()
        self._status.update(escape(text.strip()))

    def end_status(self) -> None:
        """Take away the line that would be replaced."""
        if self._status is not None:
            self._status.stop()
            self._status = None


def run(
    main: Callable[[argparse.Namespace, Console], dict[str, object]],
    arguments: argparse.ArgumentParser,
    argv: Sequence[str] | None = None,
) -> int:
    """Parse, run `main`, write its summary; gives the exit status. `main` returns the summary."""
    options = arguments.parse_args(argv)
    options.given = _given(arguments, argv, options)
    console = Console()
    try:
        _end_as_interrupted()
        _check_summary(options.summary)
        result = main(options, console)
        console.end_status()
        if options.summary is not None:
            options.summary.write_bytes(json_bytes(result))
    except KeyboardInterrupt:
        console.end_status()
        _leave_ray()
        return _left(_fail("interrupted; what was finished is kept", 130))
    except Exception as error:  # noqa: BLE001 - the outermost frame: everything becomes a line and a status
        console.end_status()
        return _left(complain(error))
    return 0


def _given(arguments: argparse.ArgumentParser, argv: Sequence[str] | None, parsed: argparse.Namespace) -> frozenset[str]:
    """Names of the options that the command line has, also those whose value is the default."""
    # What a namespace has already is not set to a default.
    found = vars(arguments.parse_args(argv, argparse.Namespace(**dict.fromkeys(vars(parsed)))))
    return frozenset(name for name, value in found.items() if value is not None)


def _inside_ray() -> bool:
    """Whether a thread waits for Ray and will not come back."""
    return any(thread.name == INSIDE_RAY for thread in threading.enumerate())


def _left(status: int) -> int:
    """The exit status. With a thread inside Ray the process ends here, for Ray would end it with a status of its own."""
    if _inside_ray():
        sys.stdout.flush()
        # Ray's own processes would outlive a Ray of this process by up to a minute, in which they look for it.
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        os._exit(status)
    return status


def _leave_ray() -> None:
    """End this process' part in Ray, so that what Ray's own threads still say comes before our last line."""
    ray = sys.modules.get("ray")
    if ray is not None and not _inside_ray():
        with contextlib.suppress(KeyboardInterrupt):
            ray.shutdown()


def complain(error: Exception) -> int:
    """Print the one line that an error comes to; gives the exit status."""
    known = find_cause(error)
    if isinstance(known, UserError):
        return _fail(str(known), 2)
    if isinstance(known, JobFailedError):
        return _fail(str(known), 1)
    if isinstance(error, OSError) and error.errno is not None:
        where = f" ('{error.filename}')" if error.filename else ""
        remedy = _REMEDIES.get(error.errno)
        return _fail(f"{error.strerror}{where}" + (f"; {remedy}" if remedy else ""), 1)
    traceback.print_exc()
    return _fail(f"unexpected {type(error).__name__}; this is a bug in degrain, please report it", 1)


def _end_as_interrupted() -> None:
    """Let SIGTERM (`kill`, Kubernetes, a time limit) end a pipeline as Ctrl-C does, so that its runs are marked."""

    def interrupt(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, interrupt)


def _fail(text: str, status: int) -> int:
    print(f"error: {text}", file=sys.stderr, flush=True)
    return status


def _check_summary(path: Path | None) -> None:
    """Find out before the work, not after it, that the summary cannot be written."""
    if path is None:
        return
    if not path.absolute().parent.is_dir():
        raise UserError(f"cannot write '{path}': there is no folder '{path.absolute().parent}'; make it first")
    if path.is_dir():
        raise UserError(f"cannot write '{path}': it is a folder; name a file with --summary")
    if path.is_file() and not _may_be_summary(path):
        raise UserError(f"cannot write '{path}': a file that is no summary is there; name another with --summary")


def _may_be_summary(path: Path) -> bool:
    """Whether a file is empty or begins as a summary does: others are not written over."""
    with path.open("rb") as file:
        return file.read(1) in (b"", b"{")


def hush() -> None:
    """Keep Ray, MLflow and their libraries quiet: what they would say is in Ray's log folder."""
    warnings.filterwarnings("ignore")
    for name in ("ray", "ray.data", "ray.train", "ray.tune", "mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def start_ray(*, verbose: bool) -> None:
    """Join the cluster that `RAY_ADDRESS` names (as under `ray job submit`), else start one on this machine.

    A bare `ray.init()` would join whatever cluster happens to run here. Raises UserError if the cluster does not answer.
    """
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if not verbose:
        os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    import ray
    import ray.data

    address = os.environ.get("RAY_ADDRESS") or "local"
    _check_address(address)
    if not verbose:
        # Ray sets its loggers up when it is imported, so only now can they be turned down.
        hush()
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
    options: dict[str, object] = {"include_dashboard": False} if address == "local" else {}
    if not verbose:
        options |= {"log_to_driver": False, "configure_logging": False}
    try:
        ray.init(address=address, **options)
    except Exception as error:
        short = str(error).strip().splitlines()[0]
        if address == "local":
            raise JobFailedError(f"Ray did not start on this machine: {short} Is it overloaded? Run it again") from error
        raise UserError(f"cannot join the Ray cluster at {address}: {short}; check RAY_ADDRESS") from None
    # Ray has put a handler of its own in place.
    _end_as_interrupted()


def _check_address(address: str) -> None:
    """Raise UserError, within seconds, unless something listens there: Ray itself would wait for minutes."""
    if address in ("local", "auto"):
        return
    found = re.fullmatch(r"(?:ray://)?(?P<host>[^/:]+|\[[^\]]+\]):(?P<port>\d+)", address)
    if found is None:
        raise UserError(
            f"cannot read RAY_ADDRESS '{address}': write HOST:PORT (of the cluster, e.g. 10.0.0.1:6379), auto or local"
        )
    try:
        socket.create_connection((found["host"].strip("[]"), int(found["port"])), _CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise UserError(
            f"no Ray cluster answers at {address}: {error}; check RAY_ADDRESS, or unset it to run on this machine"
        ) from None
