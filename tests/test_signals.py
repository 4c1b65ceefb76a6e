"""Signals end runs and waits, and none is lost."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from paropt_exporter.signals import DeferredSignals, Signals

HANG_SECONDS = 30.0


class Running:
    """What a signal ends."""

    def __init__(self) -> None:
        self.stops: list[tuple[str, bool]] = []

    def interrupt(self, reason: str, *, now: bool) -> None:
        self.stops.append((reason, now))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_is_polite_and_the_second_is_not(number: signal.Signals) -> None:
    running = Running()
    with Signals() as signals:
        signals.send_to(running)
        signal.raise_signal(number)
        signal.raise_signal(signal.SIGTERM)
    assert running.stops == [(f"interrupted by {number.name}", False), ("interrupted by SIGTERM", True)]
    assert signals.interrupted_run
    assert signals.number == number


def test_a_signal_before_the_run_reaches_it() -> None:
    running = Running()
    with Signals() as signals:
        signal.raise_signal(signal.SIGTERM)
        signals.send_to(running)
    assert running.stops == [("interrupted by SIGTERM", False)]


def test_a_signal_while_nothing_runs_ends_the_wait_and_interrupts_no_run() -> None:
    with Signals() as signals:
        signals.send_to(Running())
        signals.send_to(None)
        signal.raise_signal(signal.SIGTERM)
        assert signals.wait(None)
    assert not signals.interrupted_run


def test_a_signal_that_another_thread_takes_ends_the_wait_of_the_main_thread() -> None:
    done = threading.Event()
    other = threading.Thread(target=done.wait)
    with Signals() as signals:
        other.start()
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        try:
            threading.Timer(0.0, os.kill, (os.getpid(), signal.SIGTERM)).start()
            assert signals.wait(HANG_SECONDS)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
            done.set()
            other.join()


def test_a_wait_ends_with_its_time_or_with_a_wake_which_are_no_signals() -> None:
    with Signals() as signals:
        assert not signals.wait(0.0)
        threading.Timer(0.0, signals.wake).start()
        assert not signals.wait(HANG_SECONDS)


def test_the_handlers_that_were_there_come_back() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with Signals():
        assert signal.getsignal(signal.SIGINT) != before[0]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_a_hangup_that_asks_for_a_reload_ends_a_wait_and_no_run() -> None:
    running = Running()
    with Signals(reloads=True) as signals:
        signals.send_to(running)
        signal.raise_signal(signal.SIGHUP)
        signals.send_to(None)
        assert not signals.wait(HANG_SECONDS)
        assert (signals.take_reload(), signals.take_reload()) == (True, False)
    assert (running.stops, signals.number) == ([], None)


def test_other_signals_end_a_run_that_a_hangup_reloads() -> None:
    running = Running()
    with Signals(reloads=True) as signals:
        signals.send_to(running)
        signal.raise_signal(signal.SIGTERM)
    assert running.stops == [("interrupted by SIGTERM", False)]


def test_a_hangup_that_asks_for_a_reload_does_not_end_a_program_that_is_waited_for() -> None:
    with Signals(reloads=True) as signals:
        with DeferredSignals() as held:
            signal.raise_signal(signal.SIGHUP)
            assert held.number is None
        assert signals.take_reload()
