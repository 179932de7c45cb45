"""`degrain serve` as a process of its own: start, ports, end."""

import json
import signal
import socket
import threading
import time
import urllib.request
from pathlib import Path

import psutil
import pytest
from integration.support import free_ports, run_here, start_pipeline, write_tracking


def test_an_address_beyond_this_machine_needs_a_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DEGRAIN_SERVE_TOKEN", raising=False)
    outcome = run_here("serve", ["--host", "0.0.0.0"], tmp_path)
    assert outcome.status == 2
    assert "there is no token" in outcome.err
    assert "--token-file" in outcome.err


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    tracking = write_tracking(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        outcome = run_here("serve", ["--port", port, "--mlflow", tracking], tmp_path)
    assert outcome.status == 2
    assert f"cannot listen on 127.0.0.1:{port}" in outcome.err
    assert "--port" in outcome.err


def test_a_registry_that_does_not_answer_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port, mlflow = free_ports(2)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{mlflow}")
    outcome = run_here("serve", ["--port", port], tmp_path)
    assert outcome.status == 2
    assert "does not answer" in outcome.err


@pytest.mark.ray
def test_the_service_listens_on_this_machine_only_and_ends_with_ctrl_c(tmp_path: Path) -> None:
    tracking = write_tracking(tmp_path)
    port = free_ports(1)[0]
    options = ["--port", port, "--mlflow", tracking, "--max-replicas", 1]
    process = start_pipeline("serve", [*options, "--summary", tmp_path / "summary.json"])
    lines: list[str] = []
    assert process.stdout is not None
    reader = threading.Thread(target=lambda: lines.extend(process.stdout or ()))
    reader.start()
    try:
        deadline = time.monotonic() + 600
        while not any("serving on" in line for line in lines):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert lines[0] == "there is no champion yet: serving the starter model\n"
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=60) as answer:
            assert json.load(answer)["model"] == "starter"
        family = psutil.Process(process.pid)
        listening = {
            connection.laddr.ip
            for each in [family, *family.children(recursive=True)]
            for connection in each.net_connections()
            if connection.status == psutil.CONN_LISTEN
        }
        assert listening <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=120) == 0
    finally:
        process.kill()
        reader.join()
        for pipe in (process.stdout, process.stderr):
            assert pipe is not None
            pipe.close()
    assert json.loads((tmp_path / "summary.json").read_text())["url"].endswith(str(port))
    assert "ending: no photo is in work\n" in lines
