"""The command `degrain`: finds the subcommand and runs it.

Only the standard library is imported here, so that help and errors come at once.
"""

import importlib
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

COMMANDS = {
    "ingest": "cut corpora of noisy/clean photos into a patch set",
    "explore": "write a page with the figures of a patch set",
    "train": "train one network by distributed data-parallel training",
    "tune": "search, refit, compare and register networks",
    "retrain": "ingest new photos and promote a better champion, once or on schedule",
    "evaluate": "score denoisers on whole photos, with intervals, slices and a page",
    "promote": "make a model the champion by hand, through the gates or with a reason",
    "rollback": "make the previous champion the champion again",
    "history": "list the decisions on the champion",
    "runs": "list studies and trainings with state and size, and remove old ones",
    "denoise": "denoise whole photos with a model or a classical filter",
    "serve": "serve the champion over HTTP, with a web page",
    "export": "write a model as an ONNX or torch.export file",
    "import": "register weights that others published",
}
"""One line on each subcommand; `degrain.cli.NAME` has its options and its work."""
MODULES = {"import": "import_weights"}
"""Modules of subcommands whose name is a keyword of Python."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run `degrain SUBCOMMAND OPTIONS`; returns the exit status.

    0 means done, 1 failed, 2 wrong input, 130 interrupted.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    name = arguments[0] if arguments else "--help"
    if name in ("-h", "--help"):
        print(usage())
        return 0
    if name == "--version":
        from degrain import __version__

        print(f"degrain {__version__}")
        return 0
    if name not in COMMANDS:
        from denoisenets.suggestions import unknown_name

        print(f"error: {unknown_name('subcommand', name, COMMANDS)}", file=sys.stderr)
        return 2
    _provide_home()
    # Until the work begins there is nothing to save and nothing to report.
    before = signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    try:
        from degrain.cli.execution import execute

        command = importlib.import_module(f"degrain.cli.{MODULES.get(name, name)}").COMMAND
        return execute(command, arguments[1:], prog=f"degrain {name}", interrupt=before)
    finally:
        # The last key press of several must not interrupt Python while it ends.
        signal.signal(signal.SIGINT, before if argv is not None else lambda *_: os._exit(130))


def _provide_home() -> None:
    """Name a home folder if the user has none, as in a container: MLflow and Ray cannot be imported
    without a name. There is no such folder, because others could write in one that exists.
    """
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = "/nonexistent"


def usage() -> str:
    """The help of `degrain` itself."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {text}" for name, text in COMMANDS.items()]
    return "\n".join(
        [
            "usage: degrain SUBCOMMAND [OPTIONS]",
            "",
            "Train, tune and ship image-denoising networks on a Ray cluster.",
            "",
            *lines,
            "",
            "degrain SUBCOMMAND --help lists the options of one; degrain --version prints the "
            "version.",
        ]
    )
