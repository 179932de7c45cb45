"""A month of retraining in minutes: a real cluster, a real S3 server, a real MLflow server.

New photos come, bad ones come, jobs are killed, two run at once, a scheduled time is missed, a
champion is taken back. After each, registry, bucket and MLflow agree.
"""

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from integration.support import (
    NO_GATES,
    MlflowServer,
    Outcome,
    Promises,
    empty_store,
    json_receiver,
    run_here,
    s3_server,
    start_pipeline,
)
from mlflow import MlflowClient
from skimage import data as skimage_data

from degrain.evaluation.scores import Evaluation
from degrain.evaluation.slices import slices
from degrain.imaging.camera_noise import ISO_LEVELS, photograph
from degrain.imaging.codecs import encode_png
from degrain.imaging.pixels import Photo
from degrain.registry.versions import load_registered
from degrain.retraining.schedule import SCHEDULE_FILE
from degrain.storage.location import Storage

pytestmark = pytest.mark.ray

MODEL = "degrain-denoiser"
WEBHOOKS_OF_THIS_MACHINE = {
    "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
    "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http",
}
STEPS = (
    "first study",
    "nothing new",
    "unseen camera",
    "swapped photos",
    "photos of other scenes",
    "another resolution",
    "duplicates",
    "killed at five random moments",
    "two at once",
    "missed schedule",
    "rollback",
    "webhook of the MLflow server",
)
SIDE = 96


def photos_of(number: int, iso: int) -> tuple[Photo, Photo]:
    """Noisy and clean photo of a scene, which are parts of a photograph."""
    photograph_ = (skimage_data.astronaut, skimage_data.coffee, skimage_data.chelsea)[number % 3]()
    top, left = (number * 37) % 200, (number * 53) % 300
    clean = np.ascontiguousarray(photograph_[top : top + SIDE, left : left + SIDE])
    return photograph(clean, ISO_LEVELS[iso], np.random.default_rng(number)), clean


@dataclass
class Month:
    """The bucket, the tracking server, and the options of every retraining."""

    folder: Path
    bucket: str
    storage: Storage
    client: MlflowClient
    champion: str = ""
    """Version that is to hold the alias."""

    @property
    def options(self) -> list[object]:
        """The options of a retraining."""
        root = f"s3://{self.bucket}"
        argv = ["--corpus", f"sidd={root}/photos", "--out", f"{root}/patches"]
        argv += ["--studies", f"{root}/studies", "--patch-size", 32, "--models", "red10"]
        argv += ["--trials", 1, "--steps", 4, "--batch-size", 2, "--crop", 24, "--workers", 1]
        return [*argv, "--mlflow", self.folder / "mlflow.yaml"]

    def retrain(self, *more: object) -> Outcome:
        """Retrain in this process."""
        return run_here("retrain", [*self.options, "--refit-steps", 12, *more], self.folder)

    def deliver(self, number: int, camera: str, noisy: Photo, clean: Photo) -> list[str]:
        """Upload a pair; returns its keys."""
        name = f"{number:04}_{number:03}_{camera}_03200_01000_5500_N"
        keys = []
        for kind, photo in (("NOISY", noisy), ("GT", clean)):
            keys.append(f"photos/Data/{name}/{kind}_SRGB_010.PNG")
            self.client_of_bucket.put_object(
                Bucket=self.bucket, Key=keys[-1], Body=encode_png(photo)
            )
        return keys

    def scenes(self, numbers: Sequence[int], camera: str, iso: int = 3200) -> None:
        """Upload good pairs of new scenes."""
        for number in numbers:
            self.deliver(number, camera, *photos_of(number, iso))

    def withdraw(self, keys: Sequence[str]) -> None:
        """Remove a delivery."""
        for key in keys:
            self.client_of_bucket.delete_object(Bucket=self.bucket, Key=key)

    @property
    def client_of_bucket(self) -> Any:  # noqa: ANN401 - boto3's clients have no type
        return self.storage.s3_client()

    def keys(self) -> set[str]:
        """All objects."""
        pages = self.client_of_bucket.get_paginator("list_objects_v2").paginate(Bucket=self.bucket)
        return {entry["Key"] for page in pages for entry in page.get("Contents", [])}

    def lease_seconds(self) -> float:
        """How long the lease lasts without a renewal; 0 if it is not held."""
        file = self.storage.locate(f"s3://{self.bucket}/patches/retrain.lock")
        return float(json.loads(file.read_bytes())["seconds"]) if file.exists() else 0.0

    def let_the_lease_expire(self) -> None:
        """What three minutes without a renewal do."""
        self.client_of_bucket.delete_object(Bucket=self.bucket, Key="patches/retrain.lock")

    def check(self) -> None:
        """Registry, bucket and MLflow agree, and nothing is left of a job."""
        champion = self.client.get_model_version_by_alias(MODEL, "champion")
        assert str(champion.version) == self.champion
        denoiser, card = load_registered(self.client, f"models:/{MODEL}@champion")
        noisy, _ = photos_of(0, 3200)
        assert denoiser(noisy).shape == noisy.shape
        keys = self.keys()
        for version in self.client.search_model_versions(f"name='{MODEL}'"):
            run = self.client.get_run(version.run_id)
            assert run.info.status == "FINISHED"
            assert f"patches/{version.tags['patch_set']}/manifest.json" in keys
        assert any(key.startswith(f"patches/{card.patch_set}/catalog-") for key in keys)
        assert not any(key.startswith("studies/retraining-") for key in keys)
        assert self.lease_seconds() == 0
        secret = os.environ["AWS_SECRET_ACCESS_KEY"].encode()
        files = [key for key in sorted(keys) if not key.endswith("/")]
        stored = [self.storage.locate(f"s3://{self.bucket}/{key}") for key in files]
        assert [str(place) for place in stored if secret in place.read_bytes()] == []
        experiment = self.client.get_experiment_by_name("degrain").experiment_id
        runs = self.client.search_runs([experiment], "tags.`degrain.kind` = 'retraining'")
        assert {run.info.status for run in runs} <= {"FINISHED"}
        promotions = self.client.search_runs(
            [experiment], "tags.`degrain.kind` = 'promotion'", order_by=["attributes.end_time DESC"]
        )
        assert promotions
        assert denoiser.name == f"{MODEL} v{self.champion}"


@pytest.fixture(scope="module")
def month(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Promises]:
    """The whole month."""
    folder, promises = tmp_path_factory.mktemp("month"), Promises()
    with pytest.MonkeyPatch.context() as patch, s3_server(folder / "weed") as server:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        storage = Storage.from_environment()
        storage.s3_client().create_bucket(Bucket="month")
        (folder / "mlflow.db").write_bytes(empty_store())
        for name, value in WEBHOOKS_OF_THIS_MACHINE.items():
            patch.setenv(name, value)
        tracking = MlflowServer(folder, f"sqlite:///{folder}/mlflow.db", "s3://month/artifacts")
        with tracking.running(), json_receiver() as (hook, posts), promises.scenario():
            (folder / "mlflow.yaml").write_text(
                f"tracking_uri: {tracking.url}\npromotion: {NO_GATES}\n"
            )
            client = MlflowClient(tracking.url)
            client.create_webhook("moves", hook, ["model_version_alias.created"])
            live(Month(folder, "month", storage, client), promises)
            with promises.keep("webhook of the MLflow server"):
                moves = [p["data"] for p in posts if p["data"]["alias"] == "champion"]
                assert [m["version"] for m in moves][:2] == ["1", "2"]
        yield promises


def live(month: Month, promises: Promises) -> None:
    """All that happens, in order."""
    with promises.keep("first study"):
        month.scenes(range(8), "S6")
        month.scenes(range(8, 12), "IP")
        first = month.retrain("--refit-steps", 1)
        assert (first.status, first.summary.get("decision")) == (0, "promoted"), first.err
        month.champion = "1"
        month.check()

    with promises.keep("nothing new"):
        idle = month.retrain()
        assert idle.summary["decision"] == "unchanged", idle.err
        assert idle.summary["new_pairs"] == 0
        month.check()

    with promises.keep("unseen camera"):
        month.scenes(range(20, 24), "GP", iso=12_800)
        camera = month.retrain()
        assert camera.summary["decision"] == "promoted", camera.err
        assert "new camera" in camera.summary["drift"]
        assert f"around models:/{MODEL}/1" in camera.out
        month.champion = "2"
        month.check()
        slices = last_slices(month)
        assert "camera sidd GP" in slices
        assert {"scenes earlier", "scenes new"} <= set(slices)

    poison(month, promises)

    with promises.keep("killed at five random moments"):
        month.scenes(range(30, 32), "S6")
        randomness = random.Random(7)
        for _ in range(5):
            job = start(month)
            time.sleep(randomness.uniform(0.2, 0.6) * LONG)
            os.killpg(job.pid, signal.SIGKILL)
            job.communicate(timeout=1200)
            champion = month.client.get_model_version_by_alias(MODEL, "champion").version
            load_registered(month.client, f"models:/{MODEL}/{champion}")
            if month.lease_seconds():
                month.let_the_lease_expire()
        done = month.retrain()
        assert done.status == 0, done.err
        versions = [v.version for v in month.client.search_model_versions(f"name='{MODEL}'")]
        assert sorted(map(int, versions)) == [1, 2, 3]
        month.champion = str(done.summary["champion"])
        month.check()

    with promises.keep("two at once"):
        month.scenes([33], "IP")
        jobs = [start(month) for _ in range(2)]
        ends = [job.communicate(timeout=900) for job in jobs]
        statuses = sorted(job.returncode for job in jobs)
        assert statuses == [0, 1], ends
        assert any("another retraining is running" in err for _, err in ends), ends
        month.champion = str(month.client.get_model_version_by_alias(MODEL, "champion").version)
        month.check()

    with promises.keep("missed schedule"):
        missed_schedule(month)
        month.check()

    with promises.keep("rollback"):
        before = run_here("rollback", ["--mlflow", month.folder / "mlflow.yaml"], month.folder)
        assert before.status == 0, before.err
        month.champion = str(before.summary["champion"])
        assert month.retrain().summary["decision"] == "unchanged"
        month.check()


LONG = 20.0
"""About the seconds of a retraining, over which the kills are spread."""


def start(month: Month, *more: object) -> subprocess.Popen[str]:
    """Start a retraining as a process of its own."""
    return start_pipeline("retrain", [*month.options, "--refit-steps", 12, *more], cwd=month.folder)


def last_slices(month: Month) -> list[str]:
    """Names of the slices in the report of the last promotion."""
    experiment = month.client.get_experiment_by_name("degrain").experiment_id
    (run,) = month.client.search_runs(
        [experiment],
        "tags.`degrain.kind` = 'promotion'",
        max_results=1,
        order_by=["attributes.start_time DESC"],
    )
    local = month.client.download_artifacts(run.info.run_id, "", str(month.folder))
    (file,) = Path(local).rglob("evaluation.json")
    return [part.name for part in slices(Evaluation.from_json(file.read_bytes()))]


def poison(month: Month, promises: Promises) -> None:
    """Each kind of bad delivery is refused with its reason, and changes nothing."""
    noisy, clean = photos_of(40, 3200)
    _, other = photos_of(41, 3200)
    again, again_clean = photos_of(3, 3200)
    deliveries = {
        "swapped photos": (clean, noisy, "has more noise than"),
        "photos of other scenes": (noisy, other, "show different scenes"),
        "another resolution": (noisy, clean[: SIDE // 2], "unequal sizes"),
        "duplicates": (again, again_clean, "has the pixels of"),
    }
    for number, (name, (bad, worse, reason)) in enumerate(deliveries.items(), 50):
        with promises.keep(name):
            keys = month.deliver(number, "S6", bad, worse)
            strict = month.retrain("--max-refused", 0)
            if name == "duplicates":
                # They are no bad photos.
                assert strict.summary["decision"] == "unchanged", strict.err
            else:
                assert strict.status == 2, strict.out
                assert reason in strict.err, strict.err
            lenient = month.retrain("--max-refused", 0.5)
            assert lenient.summary["decision"] == "unchanged", lenient.err
            assert "1 of 1 new pairs were refused" in lenient.summary["reason"]
            assert reason in lenient.summary["reason"]
            month.withdraw(keys)
            month.check()


def missed_schedule(month: Month) -> None:
    """A time that passed while nothing ran is done once, at once."""
    file = month.storage.locate(f"s3://{month.bucket}/studies/{SCHEDULE_FILE}")
    file.write_bytes(json.dumps({"schedule": "0 3 1 * *", "done": "2026-01-01T03:00:00"}).encode())
    job = start(month, "--schedule", "0 3 1 * *")
    deadline = time.monotonic() + 600
    try:
        while json.loads(file.read_bytes())["done"].startswith("2026-01-01"):
            assert job.poll() is None, job.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.2)
    finally:
        os.killpg(job.pid, signal.SIGINT)
        out, err = job.communicate(timeout=1200)
    assert out.count("looking for new photos") == 1, (out, err)
    assert out.count("unchanged: ") == 1, (out, err)


@pytest.mark.soak
@pytest.mark.parametrize("step", STEPS)
def test_a_month(month: Promises, step: str) -> None:
    month.check(step)
