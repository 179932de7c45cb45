"""Everything over a real S3 server: ingest from and to it, train from it, artifacts in it, the
lock, its absence.
"""

import io
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import boto3
import pytest
import torch
from integration.support import (
    SCENES,
    TEMPLATES,
    S3Server,
    free_ports,
    run_here,
    s3_server,
    write_pairs,
    write_tracking,
)

from degrain import cluster
from degrain.corpora.config import CorpusOptions
from degrain.loading.batches import BatchLoader, BatchPlan
from degrain.loading.order import Windowed
from degrain.loading.resident import make_resident, make_streamed
from degrain.loading.streamed import StreamedPatches
from degrain.patchsets.geometry import PatchGeometry
from degrain.patchsets.ingest.config import IngestConfig
from degrain.patchsets.ingest.run import ingest
from degrain.registry.versions import load_registered
from degrain.storage import upload as uploads
from degrain.storage.atomic import AtomicWrite
from degrain.storage.location import Storage
from degrain.tracking.client import connect
from degrain.tracking.config import load_tracking_config


def upload(folder: Path, bucket: str, prefix: str) -> None:
    client = Storage.from_environment().s3_client()
    for path in folder.rglob("*.png"):
        client.upload_file(str(path), bucket, f"{prefix}/{path.relative_to(folder)}")


@pytest.mark.ray
def test_ingest_study_and_artifacts_in_a_bucket(
    ray_cluster: None,
    bucket: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    corpus = write_pairs(tmp_path / "photos", SCENES)
    upload(corpus, bucket, "a corpus")
    place = Storage.from_environment().locate(f"s3://{bucket}/a corpus")
    by_folder = list(place.files_by_folder())
    assert [{name.partition("/")[0] for name in part} for part in by_folder] == [
        {"clean"},
        {"noisy"},
    ]
    assert {name: stamp for part in by_folder for name, stamp in part.items()} == place.files()
    argv = ["--corpus", f"pairs=s3://{bucket}/a corpus", "--patch-size", 32, *TEMPLATES]
    remote = run_here("ingest", [*argv, "--out", f"s3://{bucket}/patches"], tmp_path)
    assert remote.status == 0, remote.err
    assert remote.summary["uri"] == f"s3://{bucket}/patches/{remote.summary['version']}"
    again = run_here("ingest", [*argv, "--out", f"s3://{bucket}/patches"], tmp_path)
    assert again.summary["reused"] is True
    local = run_here(
        "ingest",
        ["--corpus", f"pairs={corpus}", "--out", tmp_path / "p", "--patch-size", 32, *TEMPLATES],
        tmp_path,
    )
    assert local.summary["version"] == remote.summary["version"], (
        "the version depends on content, not on place"
    )

    tracking = write_tracking(tmp_path, artifacts=f"s3://{bucket}/artifacts")
    argv = [
        "--data",
        f"s3://{bucket}/patches",
        "--out",
        f"s3://{bucket}/a report",
        "--mlflow",
        tracking,
    ]
    explored = run_here("explore", argv, tmp_path)
    assert explored.status == 0, explored.err
    page = Storage.from_environment().locate(f"s3://{bucket}/a report/exploration.html")
    assert page.read_bytes().startswith(b"<!DOCTYPE html>")
    options = [
        "--data",
        f"s3://{bucket}/patches",
        "--mlflow",
        tracking,
        "--out",
        f"s3://{bucket}/runs",
    ]
    smoke = [
        "--models",
        "red10",
        "--trials",
        1,
        "--steps",
        4,
        "--refit-steps",
        4,
        "--batch-size",
        2,
        "--crop",
        24,
    ]
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    done = run_here("tune", [*options, *smoke], tmp_path)
    assert done.status == 0, done.err
    assert list(temporary.glob("degrain-*")) == []
    picture = done.summary["picture"]
    assert picture.startswith(f"s3://{bucket}/runs/studies/")
    assert f"picture:  {picture}\n" in done.out
    assert Storage.from_environment().locate(picture).read_bytes().startswith(b"\x89PNG")
    keys = [
        entry["Key"]
        for page in boto3.client("s3", endpoint_url=Storage.from_environment().endpoint)
        .get_paginator("list_objects_v2")
        .paginate(Bucket=bucket)
        for entry in page.get("Contents", [])
    ]
    assert any(k.startswith("artifacts/") and k.endswith("model/weights.safetensors") for k in keys)
    assert any(k.startswith("artifacts/") and k.endswith("comparison.png") for k in keys)
    assert any(k.startswith("runs/studies/") and k.endswith(".pt") for k in keys)
    secret = os.environ["AWS_SECRET_ACCESS_KEY"].encode()
    bucket_root = Storage.from_environment().locate(f"s3://{bucket}")
    files = [key for key in keys if not key.endswith("/")]
    assert [key for key in files if secret in (bucket_root / key).read_bytes()] == []
    local = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path for path in local if secret in path.read_bytes()] == []
    client = connect(load_tracking_config(tracking), Storage.from_environment())
    denoiser, _ = load_registered(client, "models:/degrain-denoiser@champion")
    assert denoiser.parameters > 0
    argv = [f"s3://{bucket}/a corpus/noisy", "--out", f"s3://{bucket}/clean", "--mlflow", tracking]
    applied = run_here("denoise", argv, tmp_path)
    assert applied.summary["files"] == len(SCENES), applied.err


@pytest.mark.soak
@pytest.mark.ray
def test_a_study_reads_each_object_of_its_patch_set_once_for_one_and_for_eight_trials(
    ray_cluster: None, server: S3Server, bucket: str, tmp_path: Path
) -> None:
    corpus = write_pairs(tmp_path / "photos", [f"scene{number:02}" for number in range(12)])
    config = IngestConfig(
        corpus=[f"pairs={corpus}"],
        out=f"s3://{bucket}/patches",
        geometry=PatchGeometry(patch_size=32),
        options=CorpusOptions(noisy_name=TEMPLATES[1], clean_name=TEMPLATES[3]),
    )
    patch_set = ingest(config, Storage.from_environment()).patch_set
    shards = {
        f"patches/shards/{shard.key}.parquet"
        for split in ("train", "val")
        for shard in patch_set.shards(split)
    }
    others = {"patches/current.json"} | {
        f"patches/{patch_set.manifest.version}/{name}"
        for name in ("manifest.json", f"catalog-{patch_set.manifest.catalog.digest}.parquet")
    }
    options = ["--data", f"s3://{bucket}/patches", "--out", tmp_path / "runs"]
    options += ["--mlflow", write_tracking(tmp_path), "--models", "red10", "--crop", 24]
    options += ["--batch-size", 2, "--steps", 2, "--refit-steps", 2, "--workers", 2]
    before = server.audit_log.reads(bucket)
    for trials in (1, 8):
        done = run_here("tune", [*options, "--trials", trials], tmp_path)
        assert done.status == 0, done.err
        assert len(done.summary["trials"]) == trials
        after = server.audit_log.reads(bucket)
        assert after - before == dict.fromkeys(shards | others, 1)
        before = after


class Interrupted(io.BytesIO):
    """Forty megabytes; Ctrl-C comes while a later part of them is read."""

    def __init__(self) -> None:
        super().__init__(bytes(40 * 2**20))

    def read(self, size: int | None = -1) -> bytes:
        if self.tell() >= 32 * 2**20:
            raise KeyboardInterrupt
        return super().read(size)


def test_an_interrupted_write_leaves_the_object_as_it_was(bucket: str) -> None:
    storage = Storage.from_environment()
    place = storage.locate(f"s3://{bucket}/folder/thing.bin")
    place.write_bytes(b"good" * 1000)

    def interrupt_writing() -> None:
        with AtomicWrite(storage.locate(f"s3://{bucket}/folder"), "thing.bin") as file:
            file.write(b"half" * 10)
            raise KeyboardInterrupt

    for write in (interrupt_writing, lambda: uploads.upload(place, Interrupted())):
        with pytest.raises(KeyboardInterrupt):
            write()
        assert place.read_bytes() == b"good" * 1000
    assert list(storage.locate(f"s3://{bucket}").files()) == ["folder/thing.bin"]
    assert "Uploads" not in storage.s3_client().list_multipart_uploads(Bucket=bucket)
    place.write_bytes(content := bytes(range(256)) * 2**18)
    assert place.read_bytes() == content


def test_a_write_that_is_refused_is_an_error_of_storage(bucket: str) -> None:
    storage = replace(Storage.from_environment(), secret_key="wrong")
    with pytest.raises(OSError, match=f"cannot write 's3://{bucket}/x': .*SignatureDoesNotMatch"):
        storage.locate(f"s3://{bucket}/x").write_bytes(b"x")


def test_wrong_credentials_and_missing_buckets_are_said(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        cluster, "start_ray", lambda: pytest.fail("started Ray before the input was checked")
    )
    done = run_here("train", ["--data", "s3://no-such-bucket-here/x", "--steps", 1], tmp_path)
    assert done.status == 2
    assert "the bucket does not exist" in done.err
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    done = run_here("train", ["--data", f"s3://{bucket}/x", "--steps", 1], tmp_path)
    assert done.status == 2
    assert "credentials are refused" in done.err
    assert len(done.err.splitlines()) == 1
    # So are those of the artifacts.
    tracking = write_tracking(tmp_path, artifacts=f"s3://{bucket}/artifacts")
    argv = ["--data", tmp_path, "--out", tmp_path / "runs", "--mlflow", tracking, "--steps", 1]
    done = run_here("train", argv, tmp_path)
    assert done.status == 2
    assert f"cannot use 's3://{bucket}/artifacts': the credentials are refused" in done.err


LOG_A_FILE = """
import sys
from pathlib import Path
from degrain.storage.location import Storage
from degrain.tracking.config import load_tracking_config
from degrain.tracking.runs import Tracker
tracker = Tracker.open(load_tracking_config(Path(sys.argv[1])), Storage.from_environment())
try:
    with tracker.run("name", "training") as run:
        run.files({"note.txt": b"note"})
except Exception as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


@pytest.mark.parametrize("key", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_wrong_keys_for_artifacts_are_one_line_at_once(
    key: str, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracking = write_tracking(tmp_path, artifacts=f"s3://{bucket}/artifacts")
    # MLflow caches its S3 clients, whatever the keys, so this needs a process of its own.
    command = [sys.executable, "-c", LOG_A_FILE, str(tracking)]
    subprocess.run(command, check=True, timeout=600)
    monkeypatch.setenv(key, "wrong")
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 1
    assert "JobFailedError: the MLflow store failed: Failed to upload" in done.stderr
    assert "; check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("silent", [True, False])
def test_an_endpoint_that_does_not_answer_is_said(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    silent: bool,
) -> None:
    listener = socket.create_server(("127.0.0.1", 0)) if silent else None
    port = listener.getsockname()[1] if listener else free_ports(1)[0]
    for name, value in S3Server(f"http://127.0.0.1:{port}", [], tmp_path).environment.items():
        monkeypatch.setenv(name, value)
    began = time.monotonic()
    done = run_here("train", ["--data", "s3://bucket/patches", "--steps", 1], tmp_path)
    assert time.monotonic() - began < 40, "it takes 14 s on an idle machine"
    assert done.status == 2
    assert len(done.err.splitlines()) == 1
    assert "cannot reach 's3://bucket/patches'" in done.err
    if listener:
        listener.close()


@pytest.mark.soak
@pytest.mark.ray
def test_a_bucket_that_goes_away_while_it_is_streamed_from_delays_and_changes_nothing(
    ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A shard each, of which few are kept in memory.
    corpus = write_pairs(tmp_path / "photos", [f"scene{number}" for number in range(16)])
    with s3_server(tmp_path / "weed") as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        storage = Storage.from_environment()
        storage.s3_client().create_bucket(Bucket="patches")
        config = IngestConfig(
            corpus=[f"pairs={corpus}"],
            out="s3://patches/set",
            geometry=PatchGeometry(patch_size=32, stride=32),
            options=CorpusOptions(noisy_name=TEMPLATES[1], clean_name=TEMPLATES[3]),
        )
        patch_set = ingest(config, storage).patch_set
        whole = make_resident(patch_set, "train").patches()
        window = 4 * 2 * 32 * 32 * 3
        streamed = make_streamed(patch_set, "train", window).patches()
        assert isinstance(streamed, StreamedPatches)
        plan = BatchPlan(
            seed=0,
            order=Windowed(seed=0, shards=streamed.shards, window=4),
            side=32,
            batch_size=4,
            crop=32,
        )
        steps = 3 * len(streamed) // 4
        expected = BatchLoader(whole, plan, device=torch.device("cpu"))
        got = BatchLoader(streamed, plan, device=torch.device("cpu"))
        before = steps // 3
        for step in range(before):
            assert torch.equal(got.batch(step).noisy, expected.batch(step).noisy)
        server.kill()
        back = threading.Timer(6, server.start)
        back.start()
        gone = time.monotonic()
        for step in range(before, steps):
            assert torch.equal(got.batch(step).noisy, expected.batch(step).noisy)
        assert time.monotonic() - gone > 6, "nothing was read from the bucket"
        back.join()
