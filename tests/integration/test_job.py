"""`ray job submit` to a cluster that `make up` would start, where degrain is installed and where it is not."""

import importlib.util
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from integration.support import ROOT, SCENES, TEMPLATES, free_ports, run_here, write_pairs, write_tracking
from mlflow import MlflowClient

from degrain import cli

pytestmark = pytest.mark.ray


def cluster_module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("degrain_cluster", ROOT / "infra" / "ray" / "cluster.py")
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
    packages = Path(sysconfig.get_paths(vars={"base": str(folder), "platbase": str(folder)})["purelib"])
    # A path file is read here but not in the folder that it names, so the editable install stays unseen.
    (packages / "borrowed.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    (folder / "bin" / "ray").symlink_to(Path(sys.executable).parent / "ray")
    python = folder / "bin" / "python"
    found = subprocess.run([python, "-c", "import ray, mlflow, torch, degrain"], capture_output=True, text=True)
    assert "No module named 'degrain'" in found.stderr
    return python


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """Another cluster may run in this process: the job's environment is a clean one, with a token of its own."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "PYTHONPATH", "MLFLOW_"))}
    return {**env, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef" * 4}


def script(python: Path, folder: Path, ports: list[int], store: Path) -> list[str]:
    """Start or end a cluster with that Python, as `make up` and `make down` do, with ports and a store of our own."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import cluster; from pathlib import Path\n"
        "if sys.argv[2] == 'up':\n"
        "    s = cluster.up(Path(sys.argv[3]), dashboard_port=int(sys.argv[4]), mlflow_port=int(sys.argv[5]),\n"
        "                   store=Path(sys.argv[6]), cpus=2)\n"
        "    print(*[x.pid for x in s])\n"
        "else:\n"
        "    print(len(cluster.down(Path(sys.argv[3]))[0]))\n"
    )
    return [str(python), "-c", code, str(ROOT / "infra" / "ray"), "ACTION", str(folder), *map(str, ports), str(store)]


def act(command: list[str], action: str, env: dict[str, str]) -> str:
    done = subprocess.run(
        [action if part == "ACTION" else part for part in command], env=env, capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("installed", [True, False], ids=["installed", "uploaded"])
def test_a_submitted_job_succeeds_and_its_model_is_in_mlflow(
    installed: bool,
    tmp_path: Path,
    environment: dict[str, str],
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
    ray_cluster: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A study where degrain is installed; training from the uploaded checkout where it is not."""
    python = Path(sys.executable) if installed else request.getfixturevalue("bare_python")
    corpus = write_pairs(tmp_path / "photos", SCENES)
    write_tracking(tmp_path)
    monkeypatch.setattr(cli, "start_ray", lambda *, verbose: None)
    ingest = ["--corpus", f"pairs={corpus}", "--out", tmp_path / "patches", "--patch-size", 32, *TEMPLATES]
    assert run_here("ingest", ingest, capsys, tmp_path).status == 0

    dashboard, mlflow = free_ports(2)
    command = script(python, tmp_path / "cluster", [dashboard, mlflow], tmp_path)
    pids = [int(pid) for pid in act(command, "up", environment).split()]
    try:
        submit = [str(Path(sys.executable).parent / "ray"), "job", "submit", "--address", f"http://127.0.0.1:{dashboard}"]
        if not installed:
            submit += ["--working-dir", ".", "--runtime-env", "infra/ray/runtime_env.yaml"]
        job = ["pipelines/tune.py", "--models", "red10", "--trials", "1", "--refit-steps", "4"]
        if not installed:
            job = ["pipelines/train.py", "--model", "red10", "--workers", "2"]
        job += [
            "--data",
            str(tmp_path / "patches"),
            "--out",
            str(tmp_path / "runs"),
            "--mlflow",
            str(tmp_path / "mlflow.yaml"),
        ]
        done = subprocess.run(
            [*submit, "--", "python", *job, "--steps", "4", "--batch-size", "2", "--crop", "24"],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
        assert "succeeded" in done.stdout + done.stderr
        client = MlflowClient(f"http://127.0.0.1:{mlflow}")
        if installed:
            held = client.get_model_version_by_alias("degrain-denoiser", "champion")
            assert held.tags["model"] == "red10"
        else:
            (run,) = client.search_runs([client.get_experiment_by_name("degrain").experiment_id])
            assert {a.path for a in client.list_artifacts(run.info.run_id, "model")} == {
                "model/card.json",
                "model/weights.safetensors",
            }
        refused = subprocess.run(
            [*submit, "--", "true"],
            cwd=ROOT,
            env={**environment, "RAY_AUTH_TOKEN": "f" * 64},
            capture_output=True,
            text=True,
        )
        assert refused.returncode != 0, "a job with another token must be refused"
    finally:
        assert act(command, "down", environment).strip() == "2"
    import psutil

    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert act(command, "down", environment).strip() == "0"


def test_up_says_which_port_is_taken_and_leaves_nothing(tmp_path: Path) -> None:
    import socket

    cluster = cluster_module()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(cluster.ClusterError, match=f"port {port} is taken"):
            cluster.up(tmp_path / "c", dashboard_port=port, mlflow_port=free_ports(1)[0], store=tmp_path)
    assert not (tmp_path / "c").exists()


def test_down_leaves_a_process_alone_that_got_the_number_of_ours(tmp_path: Path) -> None:
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
