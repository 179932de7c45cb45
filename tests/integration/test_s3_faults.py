"""A bucket whose server fails now and then, or for good: results are the same, errors a line."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from integration.fault_proxy import FaultProxy, fault_proxy
from integration.support import (
    SMOKE,
    TEMPLATES,
    S3Server,
    client_of,
    run_here,
    write_pairs,
    write_tracking,
)
from unit.ingest_support import serial_ingest

from degrain.errors import JobFailedError, UserError
from degrain.patchsets.reading import DamagedSetError
from degrain.storage.lease import exclusive
from degrain.storage.location import Location, Storage
from degrain.training.config import TrainingConfig
from degrain.training.distributed.job import TrainingJob
from degrain.training.distributed.splits import open_splits
from degrain.training.distributed.workers import WorkerRange, Workers
from degrain.training.loop import train
from degrain.training.session import LocalSession

RATES = dict.fromkeys(("slow", "error", "reset", "lost", "cut"), 0.05)


@pytest.fixture
def proxy(server: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    with fault_proxy(server.environment["AWS_ENDPOINT_URL"]) as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL", running.endpoint)
        yield running


@pytest.fixture
def corpus(bucket: str, tmp_path: Path) -> str:
    photos = write_pairs(tmp_path / "photos", [f"scene{number}" for number in range(9)])
    client = Storage.from_environment().s3_client()
    for path in photos.rglob("*.png"):
        client.upload_file(str(path), bucket, f"photos/{path.relative_to(photos)}")
    return f"pairs=s3://{bucket}/photos"


def test_an_ingest_through_faults_gives_the_same_set(
    corpus: str, proxy: FaultProxy, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda _seconds: None)
    without = serial_ingest(corpus, f"s3://{bucket}/one", storage=Storage.from_environment())
    proxy.rates = RATES
    done = serial_ingest(corpus, f"s3://{bucket}/two", storage=Storage.from_environment())
    assert sum(proxy.failed.values()) >= 5
    one, two = without.patch_set, done.patch_set
    assert (two.manifest.version, two.catalog) == (one.manifest.version, one.catalog)


@pytest.mark.soak
@pytest.mark.ray
def test_a_streamed_training_through_faults_gives_the_same_scores(
    ray_cluster: None, corpus: str, proxy: FaultProxy, bucket: str
) -> None:
    storage = Storage.from_environment()
    patch_set = serial_ingest(corpus, f"s3://{bucket}/patches", storage=storage).patch_set
    config = TrainingConfig(
        model="red10",
        arguments={"width": 6},
        batches="streaming",
        precision="float32",
        steps=12,
        batch_size=2,
        crop=16,
        validate_every=2,
    )
    config, splits = open_splits(config, patch_set)
    without = LocalSession(splits.train.patches(), splits.val.patches())
    train(config, without)
    proxy.rates = RATES
    config, splits = open_splits(config, patch_set)
    run = storage.locate(f"s3://{bucket}/run")
    workers = Workers(workers=WorkerRange(1, 1), cpus_per_worker=1)
    done = TrainingJob(config, splits, run, "streamed", workers).run()
    assert sum(proxy.failed.values()) >= 5
    assert done.metrics["val_psnr"] == max(m["val_psnr"] for m in without.history)
    # Ray's own requests would not survive.
    assert {name.split("/")[0] for name in run.files()} == {"checkpoints"}


@pytest.mark.soak
@pytest.mark.ray
def test_a_retraining_through_faults_decides_the_same(
    ray_cluster: None, corpus: str, proxy: FaultProxy, bucket: str, tmp_path: Path
) -> None:
    """One trial a network: of several, the early stopping asks which was first."""
    found = []
    for name, rates in (("without", {}), ("with", RATES)):
        proxy.rates = rates
        folder, place = tmp_path / name, f"s3://{bucket}/{name}"
        folder.mkdir()
        tracking = write_tracking(folder, artifacts=f"{place}/artifacts")
        where = ["--out", f"{place}/patches", "--studies", f"{place}/studies", "--mlflow", tracking]
        argv = ["--corpus", corpus, *where, "--patch-size", 32, *TEMPLATES, *SMOKE]
        done = run_here("retrain", [*argv, "--batches", "streaming"], folder)
        assert done.status == 0, done.err
        client = client_of(tracking)
        runs = client.search_runs([client.get_experiment_by_name("degrain").experiment_id])
        curves = {
            (run.data.tags["degrain.kind"], run.data.params["model"]): [
                (metric.step, metric.value)
                for metric in client.get_metric_history(run.info.run_id, "val_psnr")
            ]
            for run in runs
            if run.data.tags["degrain.kind"] in ("trial", "refit")
        }
        assert len(curves) == 4
        found.append((done.summary["patch_set"], done.summary["decision"], curves))
    assert sum(proxy.failed.values()) >= 20
    assert found[0] == found[1]


def test_requests_are_repeated_after_hundreds_of_failures(proxy: FaultProxy, bucket: str) -> None:
    place = Storage.from_environment().locate(f"s3://{bucket}/x")
    place.write_bytes(b"x")
    files = place.filesystem
    proxy.rates = {"error": 0.4}
    for _ in range(200):
        files.get_file_info(place.path)
    assert proxy.failed["error"] > 100


@pytest.mark.parametrize("times", [1, 2])
def test_a_shard_that_is_damaged_on_its_way_is_read_once_more(
    corpus: str, bucket: str, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    storage = Storage.from_environment()
    patch_set = serial_ingest(corpus, f"s3://{bucket}/set", storage=storage).patch_set
    read, damaged = Location.read_bytes, 0

    def read_damaged(self: Location) -> bytes:
        nonlocal damaged
        damaged += 1
        content = read(self)
        return content if damaged > times else content[:-1] + bytes([content[-1] ^ 1])

    monkeypatch.setattr(Location, "read_bytes", read_damaged)
    if times == 1:
        patch_set.read_shard(patch_set.manifest.shards[0])
        assert damaged == 2
    else:
        with pytest.raises(DamagedSetError, match="its content is not what was written"):
            patch_set.read_shard(patch_set.manifest.shards[0])


@pytest.mark.soak
def test_a_lease_whose_answers_are_lost_is_held(proxy: FaultProxy, bucket: str) -> None:
    lock = Storage.from_environment().locate(f"s3://{bucket}/job.lock")
    proxy.rates = {"lost": 0.3, "slow": 0.1, "cut": 0.3}
    for _ in range(5):
        with exclusive(lock, "retraining") as lease:
            lease.check()
            with (
                pytest.raises(JobFailedError, match="another retraining"),
                exclusive(lock, "retraining"),
            ):
                pytest.fail("two hold the lease")
    assert proxy.failed["lost"] > 3
    assert proxy.failed["cut"] > 3


def test_a_server_that_fails_is_not_called_wrong_credentials(
    proxy: FaultProxy, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda _seconds: None)
    place = Storage.from_environment().locate(f"s3://{bucket}/x")
    proxy.rates = {"slow": 0.5}
    place.check_answers()
    proxy.rates = {"slow": 1.0}
    with pytest.raises(JobFailedError, match=r"fails \(.*503.*\); run it again later"):
        place.check_answers()
    proxy.rates = {"denied": 1.0}
    with pytest.raises(UserError, match="the credentials are refused"):
        place.check_answers()


@pytest.mark.parametrize(
    ("kind", "remedy"),
    [
        ("denied", "check the URI, AWS_ACCESS_KEY_ID"),
        pytest.param("slow", "run it again", marks=pytest.mark.soak),
    ],
)
def test_what_lasts_is_one_line(
    corpus: str, proxy: FaultProxy, bucket: str, tmp_path: Path, kind: str, remedy: str
) -> None:
    proxy.whole_bucket = False
    proxy.rates = {kind: 1.0}
    done = run_here("denoise", [f"s3://{bucket}/photos/noisy", "--out", tmp_path / "o"], tmp_path)
    assert done.status == 1
    (line,) = done.err.splitlines()
    assert line.startswith("error: a bucket failed: ")
    assert remedy in line
