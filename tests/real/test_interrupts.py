"""Ctrl-C while a run is watched: counted at once, heeded between two messages."""

from __future__ import annotations

import signal
import threading

import pytest

from real.interrupts import deferred


def press() -> None:
    signal.raise_signal(signal.SIGINT)


def test_it_counts_and_raises_where_asked() -> None:
    with deferred() as interrupts:
        interrupts.check()
        press()
        assert interrupts.count == 1
        with pytest.raises(KeyboardInterrupt):
            interrupts.check()
        interrupts.check(1)
        press()
        with pytest.raises(KeyboardInterrupt):
            interrupts.check(1)
    with pytest.raises(KeyboardInterrupt):
        press()


def test_a_handler_of_the_callers_stays() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGINT, lambda *_: heard.append(1))
    try:
        with deferred() as interrupts:
            press()
        assert (heard, interrupts.count) == ([1], 0)
    finally:
        signal.signal(signal.SIGINT, before)


def test_in_another_thread_nothing_changes() -> None:
    found = []

    def inside() -> None:
        with deferred():
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert found == [signal.default_int_handler]
