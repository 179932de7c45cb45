"""The Ray cluster: start or join one, collect the results of tasks, shut it down.

`ray.init()` without an address would join any cluster on the machine, so only the cluster of
`RAY_ADDRESS` is joined; without it a cluster is started for this process. Ray's own messages appear
if the logger `degrain` has level DEBUG.
"""

import contextlib
import logging
import os
import re
import secrets
import socket
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from degrain.errors import JobFailedError, UserError
from degrain.interrupts import children_outlive_terminal, interrupt_on_signals

if TYPE_CHECKING:
    import ray

K = TypeVar("K")

RAY_THREAD = "inside-ray"
"""Name of a thread that blocks in a call to Ray until a job ends."""
_CONNECT_SECONDS = 5
_LONGEST_SOCKET = "ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
_MOST_SOCKET_BYTES = 103 if sys.platform == "darwin" else 107
"""Of the path of a Unix socket."""
_SHORT_FOLDER = "/tmp/ray"
_TOO_SLOW = "timed out during startup"
"""In Ray's message after 30 seconds, which cannot be changed."""


def start_ray(*, loopback: bool = False, metrics_port: int | None = None) -> None:
    """Join the cluster of `RAY_ADDRESS`, or start one; does nothing if already connected.

    With `loopback` a cluster that is started listens on 127.0.0.1 only; `metrics_port` is the port
    of its metrics, None: a free one. Raises UserError if the
    cluster does not answer, JobFailedError if none can be started.
    """
    # The address is checked before `import ray`, which takes a second.
    address = os.environ.get("RAY_ADDRESS") or "local"
    _check_address(address)
    verbose = logging.getLogger("degrain").isEnabledFor(logging.DEBUG)
    _set_environment(verbose=verbose, loopback=loopback)
    if address == "local":
        _do_without_home()
    import ray

    if ray.is_initialized():
        return
    if not verbose:
        silence_libraries()
    options: dict[str, object] = {}
    if address == "local":
        options = {"include_dashboard": False, **_folders()}
        if loopback:
            options["_node_ip_address"] = "127.0.0.1"
        if metrics_port is not None:
            options["_metrics_export_port"] = metrics_port
    if not verbose:
        options |= {"log_to_driver": False, "configure_logging": False}
    try:
        with children_outlive_terminal():
            _init(address, options)
    except Exception as error:
        short = str(error).strip().splitlines()[0]
        if address == "local":
            if isinstance(error, PermissionError):
                raise JobFailedError(
                    f"Ray did not start on this machine: {short}; set TMPDIR to a folder that can "
                    "be written"
                ) from error
            raise JobFailedError(
                f"Ray did not start on this machine: {short}; end other jobs, and run it again"
            ) from error
        raise UserError(
            f"cannot join the Ray cluster at {address}: {short}; check RAY_ADDRESS"
        ) from None
    # `ray.init` replaced the handler of SIGTERM.
    interrupt_on_signals()


def _set_environment(*, verbose: bool, loopback: bool) -> None:
    """Set the variables that Ray reads when it is imported or started."""
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Below `uv run` Ray would have each worker install an environment, from the network.
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    if not verbose:
        os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    if loopback:
        # Without it Ray replaces 127.0.0.1 by the machine's address and listens on all interfaces.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")


def _folders() -> dict[str, object]:
    """Options that move Ray's sockets where the path of the temporary folder is too long for them.

    What Ray writes when memory is full stays in that folder, which has the room for it.
    """
    folder = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or tempfile.gettempdir()
    if len(os.fsencode(f"{folder}/{_LONGEST_SOCKET}")) <= _MOST_SOCKET_BYTES:
        return {}
    return {"_temp_dir": _SHORT_FOLDER, "object_spilling_directory": folder}


def _do_without_home() -> None:
    """Set a token for the cluster where Ray cannot keep it in the user's home folder."""
    if not os.access(Path.home(), os.W_OK | os.X_OK):
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex())


def _init(address: str, options: Mapping[str, object]) -> None:
    """Start or join Ray; a start that took too long, on a busy machine, is repeated once."""
    import ray

    try:
        ray.init(address=address, **options)
    except Exception as error:
        if _TOO_SLOW not in str(error):
            raise
        ray.init(address=address, **options)


def silence_libraries() -> None:
    """Disable console output of Ray, MLflow and their libraries; Ray's log folder has it."""
    import ray.data

    warnings.filterwarnings("ignore")
    # Ray configures its loggers at import, so their levels are set after that.
    for name in ("ray", "ray.data", "ray.train", "ray.tune", "mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False


def files_of_ray() -> tempfile.TemporaryDirectory[str]:
    """A folder for what Ray Train and Ray Tune write, which is read by neither them nor degrain.

    Checkpoints and the state of a study are written by degrain. A run whose results are in a bucket
    does not depend on Ray's requests to it, which Ray hardly repeats when they fail.
    """
    return tempfile.TemporaryDirectory(prefix="degrain-ray-", ignore_cleanup_errors=True)


def shut_down_ray() -> None:
    """Disconnect from the cluster; ends it if `start_ray` started it."""
    ray = sys.modules.get("ray")
    if ray is not None and not blocked_in_ray():
        with contextlib.suppress(KeyboardInterrupt):
            ray.shutdown()


def blocked_in_ray() -> bool:
    """Whether a thread blocks in a call to Ray."""
    return any(thread.name == RAY_THREAD for thread in threading.enumerate())


def collect(
    pending: Mapping["ray.ObjectRef", K],
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Iterator[tuple[K, Any]]:
    """Yield (key, result) of each task as it finishes; `progress` receives (done, total).

    Raises the error of a failed task.
    """
    import ray

    waiting = list(pending)
    while waiting:
        done, waiting = ray.wait(waiting)
        for reference in done:
            yield pending[reference], ray.get(reference)
        progress(len(pending) - len(waiting), len(pending))


def _check_address(address: str) -> None:
    """Raise UserError within seconds unless the port is open; Ray would wait for minutes."""
    if address in ("local", "auto"):
        return
    found = re.fullmatch(r"(?:ray://)?(?P<host>[^/:]+|\[[^\]]+\]):(?P<port>\d+)", address)
    if found is None:
        raise UserError(
            f"cannot read RAY_ADDRESS '{address}': write HOST:PORT (of the cluster, "
            "e.g. 10.0.0.1:6379), auto or local"
        )
    try:
        socket.create_connection(
            (found["host"].strip("[]"), int(found["port"])), _CONNECT_SECONDS
        ).close()
    except (OSError, OverflowError) as error:
        raise UserError(
            f"no Ray cluster answers at {address}: {error}; check RAY_ADDRESS, or unset it to run "
            "on this machine"
        ) from None
