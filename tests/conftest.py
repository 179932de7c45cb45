"""What tests share: one Ray cluster, S3 servers, small corpora of real PNG files."""

import os
import re
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

# A cluster that a developer or a neighbour runs is none of the tests' business.
for name in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
    os.environ.pop(name, None)

# Tests run beside Ray's workers and servers: more threads than cores would make all of them slow.
os.environ["OMP_NUM_THREADS"] = "1"

# Ray's workers are as nice as 15 and would wait for the unit tests beside them.
os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 - as Ray spells it

# `make test` ends its groups by SIGTERM: what fixtures have started has to end then, as by Ctrl-C.
if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Note the Debian packages for want of which tests were skipped; `make test` lists them."""
    reasons = [str(report.longrepr) for report in terminalreporter.stats.get("skipped", [])]
    packages = re.findall(r"apt-get install ([\w+-]+)", " ".join(reasons))
    if file := os.environ.get("MISSING_PACKAGES"):
        with Path(file).open("a") as listed:
            listed.writelines(f"{package}\n" for package in set(packages))


SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """One cluster of two CPUs for all tests that need Ray."""
    import ray

    from degrain.cluster import start_ray

    # Functions of test modules run in workers, which have to find the modules.
    root = Path(__file__).resolve().parents[1]
    folders = [str(root / "tests"), str(root / "infra/ray"), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, folders))
    start_ray()
    yield
    ray.shutdown()


@pytest.fixture
def shared_data() -> Path:
    """Real photo pairs, where they are at hand."""
    if not SHARED.is_dir():
        pytest.skip("the real photo pairs of shared/data are not on this machine")
    return SHARED
