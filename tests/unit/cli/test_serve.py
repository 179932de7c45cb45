"""`degrain serve` without Ray: what Ctrl-C does."""

from collections.abc import Callable
from types import SimpleNamespace

import pytest

from degrain import cluster
from degrain.cli.console import Console
from degrain.cli.serve import Serve
from degrain.serving import application, settings


@pytest.mark.parametrize(
    ("interrupts", "expected"),
    [
        (0, ["end within 300 s", "stop"]),
        (1, ["end within 300 s", "end within 0 s", "stop"]),
        (2, ["end within 300 s", "end within 0 s", "stop"]),
    ],
)
def test_a_second_ctrl_c_gives_the_photos_in_work_no_more_time(
    interrupts: int, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`interrupts` are those after the first."""
    left, done = interrupts, []

    def end_work(seconds: float, tell: Callable[[int], None]) -> None:
        nonlocal left
        done.append(f"end within {seconds:g} s")
        tell(2)
        if left:
            left -= 1
            raise KeyboardInterrupt

    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cluster, "start_ray", lambda **_: None)
    monkeypatch.setattr(cluster, "shut_down_ray", lambda: None)
    monkeypatch.setattr(settings, "read_settings", lambda *_: SimpleNamespace())
    monkeypatch.setattr(settings, "check_reachable", lambda _: None)
    monkeypatch.setattr(application, "start", interrupted)
    monkeypatch.setattr(application, "end_work", end_work)
    monkeypatch.setattr(application, "stop", lambda: done.append("stop"))
    Serve().run(Console())
    assert done == expected
