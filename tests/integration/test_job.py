"""`ray job submit` to a cluster that `make up` would start, where degrain is installed and where it
is not.
"""

import importlib.util
import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from types import ModuleType

import psutil
import pytest
from integration.support import (
    ROOT,
    SCENES,
    TEMPLATES,
    Promises,
    free_ports,
    run_here,
    write_pairs,
    write_tracking,
)
from mlflow import MlflowClient

pytestmark = pytest.mark.ray


def cluster_module() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "degrain_cluster", ROOT / "infra" / "ray" / "cluster.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that has everything degrain needs, but not degrain."""
    folder = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    packages = Path(
        sysconfig.get_paths(vars={"base": str(folder), "platbase": str(folder)})["purelib"]
    )
    # A path file is read here but not in the folder that it names, so the editable install stays
    # unseen.
    (packages / "borrowed.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    (folder / "bin" / "ray").symlink_to(Path(sys.executable).parent / "ray")
    python = folder / "bin" / "python"
    found = subprocess.run(
        [python, "-c", "import ray, mlflow, torch, degrain"], capture_output=True, text=True
    )
    assert "No module named 'degrain'" in found.stderr
    return python


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    """The environment of a job, without variables of other clusters, and a token of its own."""
    env = {
        k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "PYTHONPATH", "MLFLOW_"))
    }
    return {**env, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef" * 4}


def script(python: Path, folder: Path, ports: list[int], store: Path) -> list[str]:
    """Start or end a cluster with that Python, as `make up` and `make down` do, with ports and a
    store of our own.
    """
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import cluster; from pathlib import Path\n"
        "if sys.argv[2] == 'up':\n"
        "    s = cluster.up(Path(sys.argv[3]), dashboard_port=int(sys.argv[4]), "
        "mlflow_port=int(sys.argv[5]),\n"
        "                   store=Path(sys.argv[6]), cpus=2)\n"
        "    print(*[x.pid for x in s])\n"
        "else:\n"
        "    print(len(cluster.down(Path(sys.argv[3]))[0]))\n"
    )
    return [
        str(python),
        "-c",
        code,
        str(ROOT / "infra" / "ray"),
        "ACTION",
        str(folder),
        *map(str, ports),
        str(store),
    ]


def act(command: list[str], action: str, env: dict[str, str]) -> str:
    done = subprocess.run(
        [action if part == "ACTION" else part for part in command],
        env=env,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


PROMISES = ("job succeeds", "model is in MLflow", "another token is refused", "down ends both")


def submitted(
    python: Path, environment: dict[str, str], folder: Path, *, installed: bool
) -> Promises:
    """Start a cluster, submit a job to it, end the cluster."""
    promises = Promises()
    corpus = write_pairs(folder / "photos", SCENES)
    write_tracking(folder)
    ingest = ["--corpus", f"pairs={corpus}", "--out", folder / "patches", "--patch-size", 32]
    assert run_here("ingest", [*ingest, *TEMPLATES], folder).status == 0
    dashboard, mlflow = free_ports(2)
    command = script(python, folder / "cluster", [dashboard, mlflow], folder)
    pids = [int(pid) for pid in act(command, "up", environment).split()]
    submit = [str(Path(sys.executable).parent / "ray"), "job", "submit"]
    submit += ["--address", f"http://127.0.0.1:{dashboard}"]
    if not installed:
        submit += ["--working-dir", ".", "--runtime-env", "infra/ray/runtime_env.yaml"]
    with promises.scenario():
        try:
            with promises.keep("job succeeds"):
                done = run_job([*submit, "--", "python", *job(folder, installed)], environment)
                assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
                assert "succeeded" in done.stdout + done.stderr
            with promises.keep("model is in MLflow"):
                check_model(MlflowClient(f"http://127.0.0.1:{mlflow}"), installed)
            with promises.keep("another token is refused"):
                other = {**environment, "RAY_AUTH_TOKEN": "f" * 64}
                assert run_job([*submit, "--", "true"], other).returncode != 0
        finally:
            ended = act(command, "down", environment).strip()
        with promises.keep("down ends both"):
            assert ended == "2"
            assert not any(runs(pid) for pid in pids)
            assert act(command, "down", environment).strip() == "0"
    return promises


def job(folder: Path, installed: bool) -> list[str]:
    """A study where degrain is installed; training from the uploaded checkout where it is not."""
    script = ["pipelines/train.py", "--model", "red10", "--workers", "2"]
    if installed:
        script = ["pipelines/tune.py", "--models", "red10", "--trials", "1", "--refit-steps", "4"]
    places = {"data": "patches", "out": "runs", "mlflow": "mlflow.yaml"}
    options = [text for k, v in places.items() for text in (f"--{k}", str(folder / v))]
    return [*script, *options, "--steps", "4", "--batch-size", "2", "--crop", "24"]


def run_job(command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900
    )


def runs(pid: int) -> bool:
    """Whether a process runs; one that has ended may wait for its parent as a zombie."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def check_model(client: MlflowClient, installed: bool) -> None:
    if installed:
        held = client.get_model_version_by_alias("degrain-denoiser", "champion")
        assert held.tags["model"] == "red10"
        return
    (run,) = client.search_runs([client.get_experiment_by_name("degrain").experiment_id])
    stored = {a.path for a in client.list_artifacts(run.info.run_id, "model")}
    assert {"model/card.json", "model/weights.safetensors", "model/MLmodel"} <= stored
    assert run.data.tags["mlflow.source.type"] == "JOB"


@pytest.fixture(scope="module")
def installed_job(
    ray_cluster: None, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Promises:
    folder = tmp_path_factory.mktemp("installed")
    return submitted(Path(sys.executable), environment, folder, installed=True)


@pytest.fixture(scope="module")
def uploaded_job(
    ray_cluster: None,
    environment: dict[str, str],
    bare_python: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Promises:
    folder = tmp_path_factory.mktemp("uploaded")
    return submitted(bare_python, environment, folder, installed=False)


@pytest.mark.parametrize("promise", PROMISES)
def test_job_where_degrain_is_installed(installed_job: Promises, promise: str) -> None:
    installed_job.check(promise)


@pytest.mark.parametrize("promise", PROMISES)
def test_job_where_the_checkout_is_uploaded(uploaded_job: Promises, promise: str) -> None:
    uploaded_job.check(promise)


def test_up_names_a_taken_port_and_leaves_nothing(tmp_path: Path) -> None:
    import socket

    cluster = cluster_module()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(cluster.ClusterError, match=f"port {port} is in use"):
            cluster.up(
                tmp_path / "c", dashboard_port=port, mlflow_port=free_ports(1)[0], store=tmp_path
            )
    assert not (tmp_path / "c").exists()


def test_down_spares_a_process_that_reuses_a_process_id(tmp_path: Path) -> None:
    cluster = cluster_module()
    other = subprocess.Popen(["sleep", "60"])
    try:
        scratch = tmp_path / "scratch"
        for folder in (tmp_path / "c", scratch):
            folder.mkdir()
        ended_by_itself = cluster.Server("ray", other.pid, 1.0, "http://127.0.0.1:1", str(scratch))
        cluster.write_state(tmp_path / "c", [ended_by_itself])
        assert cluster.down(tmp_path / "c") == ([], [ended_by_itself])
        assert other.poll() is None
        assert not scratch.exists()
    finally:
        other.kill()
        other.wait()
