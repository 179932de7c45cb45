"""Whether a bulk run that is killed again and again ends as one that is not.

    python tests/benchmarks/denoise_kills.py --files 500 --kills 10

Denoises a folder undisturbed. Then the same into another folder, in runs that are killed by
`kill -9` at random moments and started again. Compares the outputs byte by byte after each kill and
at the end, and counts how often each was written.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from functools import partial
from pathlib import Path

from bulk import noisy_photo
from cli import CODE
from kills import kill_after
from PIL import Image
from table import Table, print_tables, progress


def start(folder: Path, out: Path, log: Path) -> subprocess.Popen[bytes]:
    """Start `degrain denoise` in a session of its own; appends its lines to `log`."""
    options = ["--filter", "tv", "-r", "--out", str(out)]
    command = [sys.executable, "-c", CODE, "denoise", str(folder), *options]
    with log.open("ab") as lines:
        return subprocess.Popen(command, stdout=lines, stderr=lines, start_new_session=True)


def finish(folder: Path, out: Path, log: Path) -> None:
    """Run to the end."""
    if start(folder, out, log).wait():
        raise SystemExit(f"a run failed: {log.read_text()[-2000:]}")


def write_photos(folder: Path, count: int) -> None:
    """Photos of three types in ten folders."""
    for number in range(count):
        suffix = ("jpg", "png", "tif")[number % 3]
        file = folder / f"day{number % 10}" / f"{number:04}.{suffix}"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noisy_photo(128, number)).save(file)


def files(folder: Path) -> dict[str, bytes]:
    """Content of the finished files by name."""
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob("*.*")
        if file.suffix != ".part"
    }


def has_files(folder: Path, count: int) -> bool:
    """Whether a folder has so many finished files."""
    return sum(file.suffix != ".part" for file in folder.rglob("*.*")) >= count


def main() -> int:
    """Run both, and print the table."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--files", type=int, default=500)
    options.add_argument("--kills", type=int, default=10)
    options.add_argument("--seed", type=int, default=0, help="of the moments")
    chosen = options.parse_args()
    moments = random.Random(chosen.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_photos(folder / "in", chosen.files)
        began = time.monotonic()
        finish(folder / "in", folder / "whole", folder / "whole.log")
        seconds = time.monotonic() - began
        progress(f"undisturbed: {seconds:.0f} s")
        expected, log = files(folder / "whole"), folder / "killed.log"
        killed, wrong = 0, 0
        while killed < chosen.kills:
            before = len(files(folder / "killed"))
            share = (chosen.files - before) / (chosen.kills - killed + 1)
            enough = before + moments.randint(1, max(int(share), 1))
            wait = moments.uniform(0, 0.2)
            running = start(folder / "in", folder / "killed", log)
            if not kill_after(running, wait, partial(has_files, folder / "killed", enough)):
                break
            killed += 1
            present = files(folder / "killed")
            wrong += sum(expected[key] != content for key, content in present.items())
            progress(f"kill {killed}: {len(present)} files")
        finish(folder / "in", folder / "killed", log)
        final = files(folder / "killed")
        written = Counter(
            line.split(" -> ")[1].split("  ")[0]
            for line in log.read_text().splitlines()
            if " -> " in line
        )
        left = list((folder / "killed").rglob("*.part"))
        equal = sum(final[key] == expected.get(key) for key in final)
        rows = [
            ("files", str(len(expected)), str(len(final))),
            (
                "files equal to the undisturbed run's",
                "",
                str(equal),
            ),
            ("half-written files after a kill", "", str(wrong)),
            ("most reports of one file", "", str(max(written.values()))),
            ("temporary files at the end", "", str(len(left))),
        ]
        print_tables([Table(("", "undisturbed", f"killed {killed} times"), rows)])
    return int(final != expected or wrong or bool(left) or os.EX_OK)


if __name__ == "__main__":
    sys.exit(main())
