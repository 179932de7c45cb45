"""The local stack, with small HTTP servers in place of MLflow and Ray."""

import os
import socket
import sys
import threading
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import processes
import psutil
import pytest
import servers
import stack
import up
from credentials import Credentials, credentials_file
from processes import Server, StackError, free_port, launch
from servers import Programs

# The servers go on when their `Popen` objects are deleted.
pytestmark = pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning")


@pytest.fixture(autouse=True)
def own_environment() -> Iterator[None]:
    """`make status` sets the variables of the stack in its own process, which is that of tests."""
    with mock.patch.dict(os.environ):
        yield


NONE = Programs(weed=None, prometheus=None, grafana=None)
STUB = """
import http.server, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print("Ray runtime started", flush=True)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
    def log_message(self, *_): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
"""Answers every request, and has a child that outlives it."""


def start_stub(name: str, folder: Path, port: int, scratch: Path | None = None) -> Server:
    command = [sys.executable, "-S", "-c", STUB, str(port)]
    url = f"http://127.0.0.1:{port}"
    return launch(name, command, folder, url, os.environ, scratch=scratch)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ACCESS_KEY_ID", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a stack of two small servers, which is ended after the test."""
    monkeypatch.setattr(stack, "USUAL_PORTS", {name: free_port() for name in stack.USUAL_PORTS})
    monkeypatch.setattr(
        stack, "start_mlflow", lambda folder, port, _: start_stub("mlflow", folder, port)
    )
    monkeypatch.setattr(
        stack,
        "start_ray",
        lambda folder, port, scratch, *_: start_stub("ray", folder, port, scratch),
    )
    monkeypatch.setattr(up, "running_jobs", lambda _: [])
    yield tmp_path / "stack"
    stack.down(tmp_path / "stack")


def start(folder: Path) -> stack.Stack:
    return stack.up(folder, store=folder, programs=NONE)


def family(server: Server) -> list[psutil.Process]:
    process = server.process()
    assert process is not None
    return [process, *process.children(recursive=True)]


def test_a_second_up_starts_nothing(folder: Path) -> None:
    first = start(folder)
    assert first.started == ["mlflow", "ray"]
    assert start(folder) == stack.Stack(first.servers, [])
    assert [state for _, state in stack.status(folder)] == ["healthy", "healthy"]


def test_status_names_the_log_of_a_server_that_has_ended(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mlflow, ray = start(folder).servers
    assert up.show(folder) == 0
    capsys.readouterr()
    psutil.Process(ray.pid).kill()
    psutil.Process(ray.pid).wait()
    assert up.show(folder) == 1
    first, second = capsys.readouterr().out.splitlines()
    assert first.split() == ["MLflow", mlflow.url, "healthy"]
    assert second.split(maxsplit=2)[2] == f"ended; see its log '{folder / 'ray.log'}'"


def test_status_and_down_name_the_jobs_that_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    start(folder)
    monkeypatch.setattr(up, "running_jobs", lambda _: ["night: sleep 9, 3 min"])
    assert up.show(folder) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "job         night: sleep 9, 3 min"
    # The small server is no Ray, so that its answer cannot be read.
    monkeypatch.setattr(up, "running_jobs", stack.running_jobs)
    assert up.end(folder) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("its jobs are not known: ")
    assert second == "ended MLflow, Ray"


@pytest.mark.slow
def test_up_restarts_a_server_that_has_ended_on_its_port(folder: Path) -> None:
    mlflow, ray = start(folder).servers
    child = family(ray)[1]
    psutil.Process(ray.pid).kill()
    psutil.Process(ray.pid).wait()
    again = start(folder)
    assert again.started == ["ray"]
    assert not child.is_running()
    assert [(s.url, s.scratch) for s in again.servers] == [
        (s.url, s.scratch) for s in (mlflow, ray)
    ]
    assert again.servers[0] == mlflow


def test_down_leaves_no_process_and_no_temporary_folder(folder: Path) -> None:
    mlflow, ray = start(folder).servers
    everything = [*family(mlflow), *family(ray)]
    assert len(everything) == 4
    # Its child stays behind, without a parent by which to find it.
    psutil.Process(mlflow.pid).kill()
    psutil.Process(mlflow.pid).wait()
    assert stack.down(folder) == ([ray], [mlflow])
    assert not any(process.is_running() for process in everything)
    assert ray.scratch is not None
    assert not Path(ray.scratch).exists()
    assert {path.name for path in folder.iterdir()} == {"mlflow.log", "ray.log"}
    assert stack.down(folder) == ([], [])


def test_stop_ends_a_process_that_starts_while_its_server_ends(tmp_path: Path) -> None:
    started = tmp_path / "started"
    child = f"open({str(started)!r}, 'w').write('started'); import time; time.sleep(60)"
    script = (
        "import os, signal, subprocess, sys, time\n"
        "def end(*_):\n"
        f"    subprocess.Popen([sys.executable, '-S', '-c', {child!r}], start_new_session=True)\n"
        f"    while not os.path.exists({str(started)!r}): time.sleep(0.01)\n"
        "    os._exit(0)\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)\n"
    )
    command = [sys.executable, "-S", "-c", script]
    server = launch("late", command, tmp_path, "http://127.0.0.1:1", os.environ)
    processes.wait_for(server, lambda: b"ready" in Path(server.log).read_bytes())
    processes.stop([server])
    assert started.exists()
    assert processes._marked({server.mark}) == []


def test_a_server_that_does_not_start_ends_the_others(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Server] = []

    def start_mlflow(folder: Path, port: int, _: Path) -> Server:
        started.append(start_stub("mlflow", folder, port))
        return started[0]

    def start_ray(folder: Path, port: int, scratch: Path, *_: object) -> Server:
        return launch("ray", ["false"], folder, f"http://127.0.0.1:{port}", {}, scratch=scratch)

    monkeypatch.setattr(stack, "start_mlflow", start_mlflow)
    monkeypatch.setattr(stack, "start_ray", start_ray)
    with pytest.raises(StackError, match="the ray server did not start; see its log"):
        start(folder)
    assert started[0].process() is None
    assert stack.read_state(folder) == []


def test_up_names_a_port_that_is_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "is_used", lambda port: port == 81)
    with pytest.raises(StackError, match="port 81 is in use; leave out --dashboard-port"):
        stack.up(tmp_path / "c", store=tmp_path, programs=NONE, ports={"ray": 81})
    assert not (tmp_path / "c").exists()
    assert processes.choose_port(None, 80, "--x") == 80
    assert processes.choose_port(None, 81, "--x") not in (80, 81)


def test_down_spares_a_process_that_reuses_a_process_id(tmp_path: Path) -> None:
    scratch, socket = tmp_path / "scratch", tmp_path / "s.sock"
    scratch.mkdir()
    socket.touch()
    left = {"scratch": str(scratch), "sockets": [str(socket)]}
    ended = Server("ray", os.getpid(), 1.0, "http://127.0.0.1:1", "l", "m", **left)
    stack.write_state(tmp_path, [ended])
    assert stack.down(tmp_path) == ([], [ended])
    assert not scratch.exists()
    assert not socket.exists()


def test_credentials_are_made_once_and_only_their_user_can_read_them(tmp_path: Path) -> None:
    made = Credentials.load()
    assert Credentials.load() == made
    assert credentials_file() == tmp_path / "config" / "degrain" / "stack.json"
    assert credentials_file().stat().st_mode & 0o777 == 0o600
    assert made.secret_key not in repr(made)
    credentials_file().write_text("{}")
    with pytest.raises(StackError, match="is damaged; remove it"):
        Credentials.load()


def test_a_shell_gets_the_variables_of_what_runs(folder: Path) -> None:
    assert stack.environment(folder) == {}
    mlflow, ray = start(folder).servers
    assert stack.environment(folder) == {
        "RAY_AUTH_MODE": "token",
        "RAY_API_SERVER_ADDRESS": ray.url,
        "MLFLOW_TRACKING_URI": mlflow.url,
    }


def test_servers_that_are_not_installed_have_one_line_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    s3, metrics = NONE.notes()
    assert "pip install 'degrain[stack]'" in s3
    assert metrics.endswith("Prometheus and Grafana are not on PATH")
    (metrics,) = Programs(weed="w", prometheus="p", grafana=None).notes()
    assert metrics.endswith("Grafana is not on PATH")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://lab:9000")
    assert "AWS_ENDPOINT_URL names" in Programs.find().notes()[0]
    assert "AWS_ENDPOINT_URL names" in Programs.find("http://127.0.0.1:8333").notes()[0]


def test_the_stack_s_own_s3_server_is_not_one_of_the_user_s(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In the documented shell, where `make env` has set the variables, it is started again."""
    for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID"):
        monkeypatch.setenv(name, "http://127.0.0.1:8333")
    assert Programs.find("http://127.0.0.1:8333").own_s3 is None


def test_a_proxy_is_not_asked_for_servers_of_this_machine(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for server in start(folder).servers:
        assert server.answers()


def test_what_does_not_speak_http_is_no_answer() -> None:
    """As gRPC, which may listen on a port that was free a moment ago."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()

        def greet() -> None:
            with listening.accept()[0] as connection:
                connection.sendall(bytes.fromhex("000006040000000000000300000064"))

        other = threading.Thread(target=greet)
        other.start()
        assert not processes.answers(f"http://127.0.0.1:{listening.getsockname()[1]}/")
        other.join()


def test_free_ports_are_none_that_the_system_hands_out() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        given = probe.getsockname()[1]
    assert given not in processes.FREE_PORTS
    assert free_port() in processes.FREE_PORTS


def test_grafana_reads_its_source_and_dashboards_from_the_stack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched: list[tuple[object, ...]] = []
    monkeypatch.setattr(servers, "launch", lambda *given, **_: launched.append(given))
    program = tmp_path / "grafana-12" / "bin" / "grafana"
    (tmp_path / "grafana-12" / "conf").mkdir(parents=True)
    servers.start_grafana(
        str(program), tmp_path, 3001, tmp_path / "ray", "http://127.0.0.1:9090", Credentials.load()
    )
    ((_, command, _, url, environment),) = launched
    assert command == [str(program), "server", f"--homepath={tmp_path / 'grafana-12'}"]
    assert url == "http://127.0.0.1:3001"
    assert isinstance(environment, dict)
    assert environment["GF_SERVER_HTTP_ADDR"] == "127.0.0.1"
    provisioning = Path(environment["GF_PATHS_PROVISIONING"])
    assert "url: http://127.0.0.1:9090" in (provisioning / "datasources/prometheus.yml").read_text()
    dashboards = (provisioning / "dashboards" / "degrain.yml").read_text()
    assert str(tmp_path / "ray" / "session_latest" / "metrics") in dashboards


def test_prometheus_finds_ray_and_s3_by_files(tmp_path: Path) -> None:
    config = servers.prometheus_config(tmp_path, tmp_path / "ray")
    files = [job["file_sd_configs"][0]["files"] for job in config["scrape_configs"]]
    assert files == [
        [str(tmp_path / "ray" / "prom_metrics_service_discovery.json")],
        [str(tmp_path / servers.S3_TARGETS)],
    ]


@pytest.mark.slow
def test_up_prints_addresses_notes_and_next_commands(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Programs, "find", lambda _: NONE)
    options = Namespace(folder=folder, cpus=None, **dict.fromkeys(stack.USUAL_PORTS))
    for _ in range(2):
        assert up.start(options) == 0
    first, second = capsys.readouterr().out.split("running already: MLflow, Ray\n")
    assert first == second
    for text in ("MLflow:", "Ray:", "S3:", "metrics:", f"logs:       {folder}", "ray job submit"):
        assert text in first
    assert up.print_environment(folder) == 0
    assert "export RAY_AUTH_MODE=token\n" in capsys.readouterr().out
    assert up.end(folder) == 0
    assert capsys.readouterr().out == "ended MLflow, Ray\n"
    assert up.show(folder) == 1
