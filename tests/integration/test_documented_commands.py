"""The commands of README and docs, as written, page by page in an empty folder.

Each page with blocks to run is one script, so that later commands find what earlier ones made.
Commands join the cluster of the tests, which saves the start of Ray.
"""

import contextlib
import csv
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import ray
from documented import PAGES, ROOT, Block, blocks
from integration.support import SCENES, write_pairs
from PIL import Image
from skimage import data as skimage_data

pytestmark = pytest.mark.ray


def own_photos(folder: Path) -> None:
    """Pairs in two folders, and the table of the same pairs."""
    photos = write_pairs(folder / "own", SCENES, side=160)
    with (photos / "pairs.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["noisy", "clean", "scene"])
        for scene in SCENES:
            table.writerow([f"noisy/{scene}_0.png", f"clean/{scene}_0.png", scene])


def holiday_photos(folder: Path) -> None:
    """A folder of photos with a folder below it, and a photo of 2.5 megapixels."""
    (folder / "holiday" / "beach").mkdir(parents=True)
    photo = Image.fromarray(skimage_data.chelsea())
    for name in ("holiday/one.jpg", "holiday/beach/two.jpg"):
        photo.resize((120, 80)).save(folder / name, quality=95)
    photo.resize((1920, 1280)).save(folder / "photo.jpg", quality=95)


PREPARATIONS: dict[str, Callable[[Path], None]] = {
    "own-corpus.md": own_photos,
    "denoise.md": holiday_photos,
}
"""What a page takes for granted, made in its folder."""


def pages_to_run() -> list[Path]:
    return [page for page in PAGES if any(block.is_run for block in blocks(page))]


def script(block: Block) -> str:
    """A block as lines of a shell script."""
    if block.language == "python":
        return f"python - <<'END'\n{block.code}END\n"
    return block.code


@pytest.mark.parametrize("page", pages_to_run(), ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_succeed_as_written(ray_cluster: None, page: Path, tmp_path: Path) -> None:
    if page.name in PREPARATIONS:
        PREPARATIONS[page.name](tmp_path)
    commands = "".join(script(block) for block in blocks(page) if block.is_run)
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "RAY_ADDRESS": ray.get_runtime_context().gcs_address,
    }
    shell = subprocess.Popen(
        ["bash", "-euxo", "pipefail", "-c", commands],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        output, errors = shell.communicate()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(shell.pid, signal.SIGKILL)
    assert shell.returncode == 0, output[-2000:] + errors[-3000:]
