"""`ray job submit` to the local stack: the README's commands, and a job that uploads its code."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from documented import blocks
from integration.support import (
    ROOT,
    SCENES,
    TEMPLATES,
    Promises,
    empty_store,
    free_ports,
    run_here,
    write_pairs,
    write_tracking,
)
from mlflow import MlflowClient

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that has everything degrain needs, but not degrain."""
    folder = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    packages = site_packages(folder)
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


def site_packages(environment: Path) -> Path:
    base = str(environment)
    return Path(sysconfig.get_paths(vars={"base": base, "platbase": base})["purelib"])


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    """The environment of a job, without variables of other clusters, and a token of its own."""
    env = {
        k: v
        for k, v in os.environ.items()
        # Within `make test` the variables of make would add lines to what its targets print.
        if not k.startswith(
            ("RAY_", "PYTHONPATH", "MLFLOW_", "AWS_", "VIRTUAL_ENV", "MAKE", "MFLAGS")
        )
    }
    return {**env, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef" * 4}


def script(python: Path, folder: Path, ports: list[int], store: Path) -> list[str]:
    """Start or end Ray and MLflow with that Python, with ports and a store of our own."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import stack; from pathlib import Path\n"
        "if sys.argv[2] == 'up':\n"
        "    none = stack.Programs(weed=None, prometheus=None, grafana=None)\n"
        "    ports = {'ray': int(sys.argv[4]), 'mlflow': int(sys.argv[5])}\n"
        "    stack.up(Path(sys.argv[3]), store=Path(sys.argv[6]), programs=none, ports=ports, "
        "cpus=2)\n"
        "else:\n"
        "    print(len(stack.down(Path(sys.argv[3]))[0]))\n"
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


@pytest.fixture(scope="module")
def uploaded_job(
    ray_cluster: None,
    environment: dict[str, str],
    bare_python: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Promises:
    """Start Ray and MLflow, submit the checkout as a job, end both."""
    folder = tmp_path_factory.mktemp("uploaded")
    promises = Promises()
    cut_patches(folder)
    dashboard, mlflow = free_ports(2)
    command = script(bare_python, folder / "cluster", [dashboard, mlflow], folder)
    act(command, "up", environment)
    submit = [str(Path(sys.executable).parent / "ray"), "job", "submit"]
    submit += ["--address", f"http://127.0.0.1:{dashboard}"]
    submit += ["--working-dir", ".", "--runtime-env", "infra/ray/runtime_env.yaml"]
    train = ["python", "pipelines/train.py", "--model", "red10", "--workers", "2", *QUICK]
    train += ["--data", str(folder / "patches"), "--out", str(folder / "runs")]
    train += ["--mlflow", str(folder / "mlflow.yaml")]
    with promises.scenario():
        try:
            with promises.keep("job succeeds"):
                done = run_job([*submit, "--", *train], environment)
                assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
                assert "succeeded" in done.stdout + done.stderr
            with promises.keep("model is in MLflow"):
                client = MlflowClient(f"http://127.0.0.1:{mlflow}")
                (run,) = client.search_runs([experiment(client)])
                stored = {a.path for a in client.list_artifacts(run.info.run_id, "model")}
                assert {
                    "model/card.json",
                    "model/weights.safetensors",
                    "model/MLmodel",
                } <= stored
                assert run.data.tags["mlflow.source.type"] == "JOB"
            with promises.keep("another token is refused"):
                other = {**environment, "RAY_AUTH_TOKEN": "f" * 64}
                assert run_job([*submit, "--", "true"], other).returncode != 0
        finally:
            ended = act(command, "down", environment).strip()
        with promises.keep("down ends both"):
            assert ended == "2"
            assert act(command, "down", environment).strip() == "0"
    return promises


QUICK = ["--steps", "4", "--batch-size", "2", "--crop", "24"]


def cut_patches(folder: Path) -> None:
    """A patch set of small photos, and an `mlflow.yaml` beside it."""
    corpus = write_pairs(folder / "photos", SCENES)
    write_tracking(folder)
    ingest = ["--corpus", f"pairs={corpus}", "--out", folder / "patches", "--patch-size", 32]
    assert run_here("ingest", [*ingest, *TEMPLATES], folder).status == 0


def experiment(client: MlflowClient) -> str:
    found = client.get_experiment_by_name("degrain")
    assert found is not None
    return str(found.experiment_id)


@pytest.mark.soak
@pytest.mark.parametrize("promise", PROMISES)
def test_job_where_the_checkout_is_uploaded(uploaded_job: Promises, promise: str) -> None:
    uploaded_job.check(promise)


def run_job(command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900
    )


README_PROMISES = (
    "commands succeed",
    "job used the bucket and MLflow",
    "all are healthy",
    "status and down name the jobs that run",
    "nothing listens beyond 127.0.0.1",
    "nothing is left behind",
)


@pytest.fixture(scope="module")
def short_folder() -> Iterator[str]:
    """A folder for temporary files; paths of Ray's sockets have at most 107 characters."""
    with tempfile.TemporaryDirectory(prefix="d") as folder:
        yield folder


@pytest.fixture(scope="module")
def readme_run(
    ray_cluster: None,
    environment: dict[str, str],
    short_folder: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Promises:
    """The commands of the README's section on clusters, in a copy of the checkout."""
    folder = tmp_path_factory.mktemp("readme")
    clone, photos = folder / "clone", folder / "photos"
    photos.mkdir()
    cut_patches(photos)
    make_clone(clone)
    options = f"--models red10 --trials 1 --refit-steps 4 {' '.join(QUICK)} --data"
    options += f" {photos / 'patches'} --mlflow {photos / 'mlflow.yaml'} --out s3://degrain/runs"
    commands = readme_commands().replace("pipelines/tune.py", f"pipelines/tune.py {options}")
    before, down = commands.split("make down")
    environment = {
        **environment,
        "OPTIONS": "--cpus 2",
        "XDG_CONFIG_HOME": str(folder / "config"),
        # Neither Prometheus nor Grafana, which this machine may have.
        "PATH": "/usr/bin:/bin",
        "TMPDIR": short_folder,
    }
    promises = Promises()
    with promises.scenario():
        pids: set[int] = set()
        sockets: list[str] = []
        try:
            done = shell(before, clone, environment)
            state = clone / "runs" / "stack" / "servers.json"
            servers = json.loads(state.read_text()) if state.exists() else []
            stack = {s["name"]: s for s in servers}
            processes = [p for s in servers for p in family(s["pid"])]
            pids = {p.pid for p in processes}
            sockets = [socket for s in servers for socket in s["sockets"]]
            with promises.keep("commands succeed"):
                assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
            with promises.keep("job used the bucket and MLflow"):
                client = MlflowClient(stack["mlflow"]["url"])
                held = client.get_model_version_by_alias("degrain-denoiser", "champion")
                assert held.tags["model"] == "red10"
                assert f"{stack['mlflow']['url']}/#/compare-runs" in done.stdout
                assert "s3://degrain/runs" in done.stdout + done.stderr
            with promises.keep("all are healthy"):
                states = [line.split() for line in done.stdout.splitlines() if "healthy" in line]
                assert [state[0] for state in states] == ["MLflow", "S3", "Ray"]
                assert shell("make status", clone, environment).returncode == 0
            with promises.keep("status and down name the jobs that run"):
                submit = '. .venv/bin/activate; eval "$(make -s env)"; ray job submit --no-wait'
                shell(f"{submit} --submission-id night -- sleep 99", clone, environment)
                shown = shell("make status", clone, environment).stdout.splitlines()
                assert shown[-1] == "job         night: sleep 99, 0 min"
            with promises.keep("nothing listens beyond 127.0.0.1"):
                listening = {
                    (process.name(), *connection.laddr)
                    for process in processes
                    for connection in process.net_connections()
                    if connection.status == psutil.CONN_LISTEN
                }
                assert len(listening) > 10
                assert [
                    name for name, ip, _ in listening if ip not in ("127.0.0.1", "::ffff:127.0.0.1")
                ] == []
        finally:
            ended = shell(f"make down{down}", clone, environment)
        with promises.keep("nothing is left behind"):
            said = "ending the job night: sleep 99, 0 min\nended MLflow, S3, Ray\n"
            assert ended.stdout == said, ended.stderr
            assert not [pid for pid in pids if runs(pid)]
            # The job leaves its report.
            assert list(Path(short_folder).glob("degrain-*-*")) == []
            assert sockets
            assert not any(Path(socket).exists() for socket in sockets)
            assert shell("make status", clone, environment).returncode != 0
            changed = subprocess.run(
                ["git", "status", "--porcelain"], cwd=clone, capture_output=True, text=True
            )
            assert changed.stdout == ""
    return promises


@pytest.mark.parametrize("promise", README_PROMISES)
def test_the_commands_of_the_readme(readme_run: Promises, promise: str) -> None:
    readme_run.check(promise)


def readme_commands() -> str:
    """The block of commands that starts with `make up`."""
    [block] = [b for b in blocks(ROOT / "README.md") if b.code.startswith("make up")]
    return block.code


def make_clone(clone: Path) -> None:
    """A repository with the files of this one, and an environment as `make install` makes one."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("this is not a git checkout")
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, clone / name)
    git = ["git", "-c", "user.name=tests", "-c", "user.email=tests@example.com"]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "all"]):
        subprocess.run([*git, *command], cwd=clone, check=True)
    # The tables of the store are copied, because making them takes ten seconds.
    (clone / "mlflow.db").write_bytes(empty_store())
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", clone / ".venv"], check=True)
    packages = site_packages(clone / ".venv")
    (packages / "borrowed.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    (packages / "degrain.pth").write_text(f"{clone / 'platform'}\n{clone / 'models'}\n")
    programs = clone / ".venv" / "bin"
    for name in (".installed", ".installed-stack"):
        (clone / ".venv" / name).touch()
    (programs / "weed").symlink_to(Path(sys.executable).parent / "weed")
    ray = programs / "ray"
    ray.write_text(f"#!{programs / 'python'}\nfrom ray.scripts.scripts import main\nmain()\n")
    ray.chmod(0o755)


def shell(
    commands: str, folder: Path, environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-e", "-c", commands],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
    )


def family(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def runs(pid: int) -> bool:
    """Whether a process runs; one that has ended may wait for its parent as a zombie."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
