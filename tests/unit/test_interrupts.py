"""Signals that interrupt, and blocks in which they wait."""

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from documented import ROOT

from degrain.interrupts import defer_interrupts

PLATFORM = ROOT / "platform"
SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.fixture
def handled(how: signal.Signals) -> Iterator[Any]:
    """A handler of the signal: tests in the background inherit that Ctrl-C is ignored."""
    inherited = signal.signal(how, signal.default_int_handler)
    yield signal.default_int_handler
    signal.signal(how, inherited)


@pytest.mark.parametrize("how", SIGNALS)
def test_interrupt_is_raised_at_the_end_of_the_block(
    how: signal.Signals,
    handled: Any,  # noqa: ANN401 - a handler
) -> None:
    done: list[str] = []

    def block() -> None:
        with defer_interrupts():
            signal.raise_signal(how)
            done.append("all of it")

    with pytest.raises(KeyboardInterrupt):
        block()
    assert done == ["all of it"]
    assert signal.getsignal(how) is handled


@pytest.mark.parametrize("how", SIGNALS)
def test_a_signal_that_is_ignored_stays_so(how: signal.Signals) -> None:
    inherited = signal.signal(how, signal.SIG_IGN)
    try:
        with defer_interrupts():
            signal.raise_signal(how)
    finally:
        signal.signal(how, inherited)


def test_block_without_an_interrupt_raises_nothing() -> None:
    with defer_interrupts():
        pass


JOB = f"""
import subprocess, sys, time
from pathlib import Path
sys.path.insert(0, {str(PLATFORM)!r})
from degrain.interrupts import children_outlive_terminal, defer_interrupts, interrupt_on_signals
interrupt_on_signals()
with children_outlive_terminal():
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
try:
    print("ready", flush=True)
    if sys.argv[2] == "deferred":
        with defer_interrupts():
            time.sleep(3)
    time.sleep(20)
except KeyboardInterrupt:
    print("nobody reads this", flush=True)
    time.sleep(0.5)
    child.kill() if child.poll() is None else Path(sys.argv[1] + "-child").touch()
    Path(sys.argv[1]).write_text("saved")
"""


@pytest.mark.parametrize("how", ["at once", "deferred"])
def test_a_closed_terminal_interrupts_and_lets_save(tmp_path: Path, how: str) -> None:
    job, main = pty.fork()
    if job == 0:
        os.execv(sys.executable, [sys.executable, "-c", JOB, str(tmp_path / "saved"), how])
    assert b"ready" in os.read(main, 99)
    # A shell sends one to its jobs, then its terminal another.
    os.killpg(job, signal.SIGHUP)
    time.sleep(0.2)
    os.close(main)
    _, status = os.waitpid(job, 0)
    assert status == 0
    assert (tmp_path / "saved").read_text() == "saved"
    assert not (tmp_path / "saved-child").exists(), "processes of the job ended before it had saved"


def test_nohup_stays() -> None:
    command = (
        f"import sys, signal; sys.path.insert(0, {str(PLATFORM)!r})\n"
        "from degrain.interrupts import defer_interrupts, interrupt_on_signals\n"
        "interrupt_on_signals()\n"
        "signal.raise_signal(signal.SIGHUP)\n"
        "with defer_interrupts(): signal.raise_signal(signal.SIGHUP)\n"
        "print('went on')\n"
    )
    done = subprocess.run(
        ["nohup", sys.executable, "-c", command], capture_output=True, text=True, check=False
    )
    assert done.stdout == "went on\n"


def test_a_key_that_is_held_down_interrupts_once() -> None:
    command = (
        f"import sys, signal, time; sys.path.insert(0, {str(PLATFORM)!r})\n"
        "from degrain.interrupts import interrupt_on_signals\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "interrupt_on_signals()\n"
        "for _ in range(2):\n"
        "    try: signal.raise_signal(signal.SIGINT)\n"
        "    except KeyboardInterrupt:\n"
        "        for _ in range(3): signal.raise_signal(signal.SIGINT)\n"
        "        signal.raise_signal(signal.SIGTERM)\n"
        "        print('saved')\n"
        "        time.sleep(1.1)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", command], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("saved\nsaved\n", "")
