"""Ingest that is killed, and a bucket that goes away for a while: the next run ends as an
undisturbed one would have.
"""

import os
import random
import shutil
import signal
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from integration.support import TEMPLATES, run_here, s3_server, start_pipeline, write_pairs

from degrain.errors import UserError
from degrain.patchsets.patch_set import PatchSet
from degrain.storage.location import Storage

pytestmark = pytest.mark.ray
MANY = [f"scene{n:02}" for n in range(40)]


def arguments(corpus: object, out: object) -> list[object]:
    return ["--corpus", f"pairs={corpus}", "--out", out, "--patch-size", 64, *TEMPLATES]


class Reader:
    """Opens the set again and again, as a job would that started just then, and reads all of it."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.complaints: list[str] = []
        self.seen: set[str] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> "Reader":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _read(self) -> None:
        while not self._stop.wait(0.02):
            try:
                patch_set = PatchSet.open(self.uri, Storage())
            except UserError as error:
                if "it has no manifest.json" not in str(error):
                    self.complaints.append(str(error))
                continue
            self.seen.add(patch_set.manifest.version)
            try:
                shards = [s for split in ("train", "val", "test") for s in patch_set.shards(split)]
                read = sum(len(patch_set.read_shard(s)[0]) for s in shards)
            except UserError as error:
                self.complaints.append(str(error))
                continue
            if (
                read != patch_set.manifest.patches()
                or len(patch_set.catalog) != patch_set.manifest.pairs
            ):
                self.complaints.append(f"{read} patches instead of {patch_set.manifest.patches()}")


def kill_family(pid: int) -> None:
    """Kill -9 of a process and of all that it started."""
    family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    for process in family:
        try:
            os.kill(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    psutil.wait_procs(family, timeout=300)


@pytest.mark.soak
@pytest.mark.parametrize("seed", [1, 2])
def test_an_ingest_killed_at_any_moment_is_finished_by_the_next(
    ray_cluster: None,
    seed: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    corpus = write_pairs(tmp_path / "photos", MANY, side=160)
    out = tmp_path / "out"
    undisturbed = run_here("ingest", arguments(corpus, tmp_path / "other"), tmp_path)
    after = random.Random(seed).randrange(1, len(MANY))
    running = start_pipeline("ingest", arguments(corpus, out), {"RAY_ADDRESS": ""})
    with Reader(str(out)) as reader:
        deadline = time.monotonic() + 600
        while time.monotonic() < deadline and running.poll() is None:
            if len(list((out / "shards").glob("*.json"))) >= after:
                break
            time.sleep(0.005)
        if running.poll() is not None:
            pytest.fail(f"it was over before it could be killed: {running.communicate()[1]}")
        kill_family(running.pid)
        running.communicate()
        cut = {p.name for p in (out / "shards").glob("*.json")}
        again = run_here("ingest", arguments(corpus, out), tmp_path)
        time.sleep(0.2)
    assert again.status == 0, again.err
    assert again.summary["version"] == undisturbed.summary["version"]
    assert cut <= {p.name for p in (out / "shards").glob("*.json")}, "what was cut is used"
    assert reader.complaints == []
    assert reader.seen == {again.summary["version"]}


@pytest.mark.soak
def test_a_server_that_goes_away_costs_a_retry_and_not_the_job(
    ray_cluster: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    corpus = write_pairs(tmp_path / "photos", MANY, side=160)
    expected = run_here("ingest", arguments(corpus, tmp_path / "local"), tmp_path)
    with s3_server(tmp_path / "weed") as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        client = Storage.from_environment().s3_client()
        client.create_bucket(Bucket="photos")
        for path in corpus.rglob("*.png"):
            client.upload_file(str(path), "photos", f"in/{path.relative_to(corpus)}")

        def outage() -> None:
            deadline = time.monotonic() + 600
            while time.monotonic() < deadline:
                listed = client.list_objects_v2(Bucket="photos", Prefix="out/shards/").get(
                    "KeyCount", 0
                )
                if listed >= 4:
                    break
            server.kill()
            time.sleep(10)
            server.start()

        breaking = threading.Thread(target=outage)
        breaking.start()
        done = run_here("ingest", arguments("s3://photos/in", "s3://photos/out"), tmp_path)
        breaking.join()
        assert server.kills == 1
        assert done.status == 0, done.err
        assert done.summary["version"] == expected.summary["version"]
        patch_set = PatchSet.open("s3://photos/out", Storage.from_environment())
        assert (
            sum(len(patch_set.read_shard(s)[0]) for s in patch_set.manifest.shards)
            == done.summary["patches"]
        )


def test_a_full_disk_is_one_line_and_leaves_the_old_set(
    ray_cluster: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A file system of four megabytes, where the tests may mount one."""
    import subprocess

    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(small)], capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip("no permission to mount a small file system")
    try:
        corpus = write_pairs(tmp_path / "photos", MANY[:5], side=160)
        first = run_here("ingest", arguments(corpus, small / "out"), tmp_path)
        assert first.status == 0, first.err
        write_pairs(tmp_path / "photos", MANY, side=160)
        full = run_here("ingest", arguments(corpus, small / "out"), tmp_path)
        assert full.status == 1
        assert len(full.err.splitlines()) == 1
        assert "No space left on device" in full.err
        assert not list(small.rglob("*.part"))
        assert (
            PatchSet.open(str(small / "out"), Storage()).manifest.version
            == first.summary["version"]
        )
        assert (
            np.sum([row.patches for row in PatchSet.open(str(small / "out"), Storage()).catalog])
            > 0
        )
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)
    shutil.rmtree(small)
