"""Interrupts that are deferred."""

import signal

import pytest

from degrain.interrupts import defer_interrupts


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_is_raised_at_the_end_of_the_block(how: signal.Signals) -> None:
    before = signal.getsignal(how)
    done: list[str] = []

    def block() -> None:
        with defer_interrupts():
            signal.raise_signal(how)
            done.append("all of it")

    with pytest.raises(KeyboardInterrupt):
        block()
    assert done == ["all of it"]
    assert signal.getsignal(how) is before


def test_block_without_an_interrupt_raises_nothing() -> None:
    with defer_interrupts():
        pass
