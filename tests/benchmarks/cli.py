"""Time to `--help` and to the error of a wrong option, from the start of the process."""

import statistics
import subprocess
import sys
import tempfile
import time

from table import Settings, Table

from degrain.cli.main import COMMANDS

CODE = "import sys; from degrain.cli.main import main; sys.exit(main(sys.argv[1:]))"
"""The command `degrain`, also from a checkout where it is not installed."""
WRONG_OPTION = ["train", "--data", "patches", "--step", "10"]


def wall_time(argv: list[str], status: int, folder: str) -> float:
    """Seconds of one `degrain` process, which must exit with `status`."""
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", CODE, *argv], cwd=folder, capture_output=True)
    elapsed = time.perf_counter() - start
    assert done.returncode == status, done.stderr.decode()
    return elapsed


def run(settings: Settings) -> list[Table]:
    """Median of five wall times of each subcommand's `--help` and of a wrong option."""
    repeats = 1 if settings.quick else 5
    commands: list[tuple[list[str], int]] = [(["--help"], 0)]
    commands += [([name, "--help"], 0) for name in COMMANDS]
    commands.append((WRONG_OPTION, 2))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for argv, status in commands:
            times = [wall_time(argv, status, folder) for _ in range(repeats)]
            rows.append((f"`degrain {' '.join(argv)}`", f"{statistics.median(times):.2f}"))
    return [Table(("command", "seconds"), rows, f"Median of {repeats} wall times.")]
