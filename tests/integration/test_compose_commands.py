"""The servers of `infra/compose.yaml` as plain processes, by the commands of their containers.

Only hosts, ports and folders are replaced.
"""

import contextlib
import os
import re
import shlex
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

import boto3
import pytest
import yaml
from botocore.exceptions import ClientError
from integration.support import ROOT, free_ports
from mlflow import MlflowClient
from postgresql_server import postgresql, programs
from programs import needs

pytestmark = needs(programs(), "postgresql")
SERVICES = yaml.safe_load((ROOT / "infra" / "compose.yaml").read_text())["services"]
DOCKERFILE = (ROOT / "infra" / "docker" / "Dockerfile").read_text()
PROGRAMS = Path(sys.executable).parent
KEYS = {"AWS_ACCESS_KEY_ID": "compose", "AWS_SECRET_ACCESS_KEY": "compose-secret"}
PASSWORD = "compose-password"


def health_path(target: str) -> str:
    """The path of the health check of a stage of the Dockerfile."""
    stage = DOCKERFILE.partition(f" AS {target}\n")[2]
    found = re.search(r'"http://127\.0\.0\.1:\d+(/\w+)"', stage)
    assert found is not None
    return found[1]


def replaced(text: str, changes: Mapping[str, str]) -> str:
    """The text with all keys replaced, each of which must be there."""
    for old, new in changes.items():
        assert old in text, (old, text)
        text = text.replace(old, new)
    return text


@contextlib.contextmanager
def process(command: str, environment: Mapping[str, str], url: str, folder: Path) -> Iterator[None]:
    """A server for the length of a block, which begins when it answers."""
    program, *options = shlex.split(command)
    log = folder / f"{program}.log"
    with log.open("ab") as output:
        server = subprocess.Popen(
            [str(PROGRAMS / program), *options],
            env={**os.environ, **environment},
            stdout=output,
            stderr=output,
            cwd=folder,
        )
    try:
        deadline = time.monotonic() + 1200
        while True:
            assert server.poll() is None, log.read_text()[-2000:]
            assert time.monotonic() < deadline, log.read_text()[-2000:]
            with contextlib.suppress(OSError):
                urllib.request.urlopen(url, timeout=5).close()
                break
            time.sleep(0.3)
        yield
    finally:
        server.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(timeout=5)
        server.kill()
        server.wait(timeout=300)


def make_buckets(master: int, grpc: int) -> None:
    """Run the command of the service `buckets`."""
    (command,) = SERVICES["buckets"]["command"]
    script = replaced(command, {"$$": "$", "seaweedfs:9333": f"127.0.0.1:{master}.{grpc}"})
    environment = {**os.environ, "PATH": f"{PROGRAMS}{os.pathsep}{os.environ['PATH']}"}
    subprocess.run(
        [*SERVICES["buckets"]["entrypoint"], script],
        check=True,
        env=environment,
        stdout=subprocess.DEVNULL,
        timeout=300,
    )


@pytest.mark.soak
def test_mlflow_writes_to_postgresql_and_to_a_bucket(tmp_path: Path) -> None:
    s3, master, volume, filer, *grpc = free_ports(8)
    mlflow = free_ports(1)[0]
    weed = replaced(
        SERVICES["seaweedfs"]["command"],
        {
            "/data": str(tmp_path),
            "-ip=seaweedfs": "-ip=127.0.0.1",
            "-ip.bind=0.0.0.0": "-ip.bind=127.0.0.1",
            "-s3.port=8333": f"-s3.port={s3} -s3.port.grpc={grpc[0]}",
        },
    )
    weed += f" -master.port={master} -master.port.grpc={grpc[1]} -volume.port={volume}"
    weed += f" -volume.port.grpc={grpc[2]} -filer.port={filer} -filer.port.grpc={grpc[3]}"
    endpoint = f"http://127.0.0.1:{s3}"
    environment = {
        **KEYS,
        "AWS_ENDPOINT_URL": endpoint,
        "MLFLOW_S3_ENDPOINT_URL": endpoint,
        "AWS_REGION": "us-east-1",
        "PGPASSWORD": PASSWORD,
    }
    with (
        process(weed, KEYS, endpoint + health_path("seaweedfs"), tmp_path),
        postgresql(PASSWORD) as database,
    ):
        make_buckets(master, grpc[1])
        server = replaced(
            SERVICES["mlflow"]["command"],
            {
                "0.0.0.0": "127.0.0.1",
                "--port 5000": f"--port {mlflow}",
                "postgres:5432/mlflow": f"127.0.0.1:{database}/postgres",
                "127.0.0.1:5000": f"127.0.0.1:{mlflow}",
                "--workers 2": "--workers 1",
            },
        )
        url = f"http://127.0.0.1:{mlflow}"
        with process(server, environment, url + health_path("mlflow"), tmp_path):
            client = MlflowClient(url)
            run = client.create_run(client.create_experiment("compose")).info.run_id
            client.log_text(run, "text", "note.txt")
            assert [each.path for each in client.list_artifacts(run)] == ["note.txt"]
        check_bucket(endpoint)


def check_bucket(endpoint: str) -> None:
    """MLflow's artifact is in the bucket, and wrong credentials are refused."""

    def client(secret: str) -> "boto3.client":
        return boto3.client(
            "s3",
            endpoint_url=endpoint,
            region_name="us-east-1",
            aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=secret,
        )

    s3 = client(KEYS["AWS_SECRET_ACCESS_KEY"])
    assert {each["Name"] for each in s3.list_buckets()["Buckets"]} == {
        "degrain",
        "mlflow",
        "photos",
    }
    keys = [each["Key"] for each in s3.list_objects_v2(Bucket="mlflow")["Contents"]]
    assert [key.rpartition("/")[2] for key in keys] == ["note.txt"]
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        client("wrong").list_objects_v2(Bucket="mlflow")
