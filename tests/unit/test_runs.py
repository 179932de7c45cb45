"""Runs in MLflow: what holds whatever the store is."""

import signal

import pytest

from degrain.tracking.runs import interrupts_deferred


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_waits_for_the_end_of_the_block(how: signal.Signals) -> None:
    before = signal.getsignal(how)
    done: list[str] = []

    def block() -> None:
        with interrupts_deferred():
            signal.raise_signal(how)
            done.append("all of it")

    with pytest.raises(KeyboardInterrupt):
        block()
    assert done == ["all of it"]
    assert signal.getsignal(how) is before


def test_a_block_that_is_left_alone_raises_nothing() -> None:
    with interrupts_deferred():
        pass
